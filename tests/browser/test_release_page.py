"""The view of releases in a real browser, against a real instance with its controller: who serves, what is on
trial, and every change with its question, its reason and its refusal."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from app import instance
from app.access import Access
from app.release import DEFAULT_RELEASE, Release, load_release
from app.settings import load_settings
from app.trials import Trial
from app.wiring import Control, open_control
from eval.rules import load_rules
from tests.live import Instance

pytestmark = pytest.mark.browser

METRICS = len((load_rules().canary or pytest.fail("no canary rules")).metrics)
POINTS = [[seconds, {"faults": 1.0 + seconds}] for seconds in range(5)]
SHOWN: dict[str, Any] = {
    "share": 0.05,
    "units": {"candidate": 40, "control": 760},
    "steps": [{"share": 0.01, "units": 700}, {"share": 0.05, "units": 1_000}],
    "path": POINTS,
    "metrics": [
        {
            "metric": "faults",
            "e_value": 150.0,
            "highest": 160.0,
            "threshold": 133.3,
            "units": 800,
            "harmed": 5,
            "rate_candidate": 0.075,
            "rate_control": 0.0026,
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Desk:
    """The view of releases, beside the instance's own registry and trials."""

    page: Page
    control: Control

    async def draft(self, *, evaluated: bool = True) -> Release:
        """A registered release of one test's own."""
        first = load_release(DEFAULT_RELEASE)
        body = first.body.model_copy(update={"name": f"try-{uuid.uuid4().hex[:8]}"})
        release = Release(body=body, answer=first.answer, summarize=first.summarize, rewrite=first.rewrite)
        await self.control.registry.add(release)
        if evaluated:
            await self.control.registry.judge(release.id, {"dataset": "handbook"}, passed=True)
        return release

    def row(self, release: Release) -> Locator:
        return self.page.locator("#release-rows tr", has_text=release.id)

    async def press(self, name: str, release: Release) -> None:
        await self.row(release).get_by_role("button", name=name).click()

    async def answer(self, reason: str = "", *, force: bool = False) -> None:
        """Fill in what the open dialog asks for, and go on."""
        await self.page.fill("#act-reason", reason)
        if force:
            await self.page.check("#act-force")
        await self.page.click("#act-go")

    async def running(self) -> Trial:
        [trial] = await self.control.trials.running()
        return trial


@pytest.fixture
async def desk(page: Page, sampled: Instance) -> AsyncIterator[Desk]:
    running = instance.running(sampled.data)
    assert running
    settings = load_settings({}, data=sampled.data, database_url=running.database_url)
    async with open_control(settings) as control:
        first = (await control.registry.served()).id
        await page.goto(f"{sampled.url}#releases")
        await expect(page.locator("#serving h3")).to_have_count(1)
        yield Desk(page, control)
        for trial in await control.trials.running():
            await control.trials.end(trial, "stopped", {"why": "the test is over"})
        if (await control.registry.served()).id != first:
            await control.promotions.rollback()


async def test_the_first_release_is_shown_as_never_evaluated_here_and_in_the_header(desk: Desk) -> None:
    await expect(desk.page.locator("#serving .pill")).to_have_text("bootstrap")
    await expect(desk.page.locator("#serving .warning")).to_contain_text("never evaluated")
    await expect(desk.page.locator("#status.doubtful")).to_contain_text("not evaluated yet")


async def test_where_nothing_served_before_nothing_can_be_rolled_back_to(desk: Desk) -> None:
    await expect(desk.page.locator("#serving .pill")).to_have_text("bootstrap")
    await expect(desk.page.locator("#serving button")).to_have_count(0)


async def test_a_canary_is_started_watched_and_stopped(desk: Desk) -> None:
    release = await desk.draft()
    await desk.press("Canary", release)
    await desk.answer("shorter answers")

    card = desk.page.locator(".trial")
    await expect(card.locator(".head")).to_contain_text(f"Canary of {release.name}")
    await expect(card.locator(".waiting-for")).to_contain_text("more conversations", timeout=20_000)
    await expect(card.locator(".facts")).to_contain_text("1%of conversations")
    await expect(card.locator(".steps [aria-current]")).to_contain_text("1%")
    await expect(card.locator(".metrics tbody tr")).to_have_count(METRICS)
    await expect(card.locator(".metrics tbody tr").first).to_contain_text(re.compile(r"1 of \d+"))
    await expect(desk.row(release)).to_contain_text("in canary")
    await expect(desk.page.locator("#serving")).to_contain_text(
        f"1% of the conversations go to {release.name}"
    )

    await card.get_by_role("button", name="Stop").click()
    await desk.answer("enough seen")
    await expect(card).to_have_count(0)
    await expect(desk.page.locator("#no-trials")).to_be_visible()
    await desk.press("History", release)
    await expect(desk.page.locator("#history-body .pill")).to_have_text("stopped")
    await expect(desk.page.locator("#history-body .audit")).to_contain_text("canary: shorter answers")
    await expect(desk.page.locator("#history-body .audit")).to_contain_text("canary stopped: enough seen")


async def test_nothing_happens_when_the_question_is_answered_with_no(desk: Desk) -> None:
    release = await desk.draft()
    await desk.press("Shadow", release)
    await desk.page.click("#act-cancel")
    await expect(desk.page.locator("#act")).to_be_hidden()
    assert await desk.control.trials.running() == []


async def test_a_release_that_was_not_evaluated_needs_force_and_a_reason(desk: Desk) -> None:
    release = await desk.draft(evaluated=False)
    await expect(desk.row(release)).to_contain_text("never evaluated")
    await desk.press("Canary", release)
    await desk.answer("an urgent repair")
    await expect(desk.page.locator("#act")).to_be_visible()
    assert await desk.control.trials.running() == []

    await desk.answer("an urgent repair", force=True)
    await expect(desk.page.locator("#act")).to_be_hidden()
    await expect(desk.row(release)).to_contain_text("Forced: an urgent repair")
    assert (await desk.running()).release == release.id


async def test_a_trial_that_was_forced_is_promoted_by_force_too(desk: Desk) -> None:
    release = await desk.draft(evaluated=False)
    await desk.control.trials.start("shadow", release.id, {}, force=True, reason="urgent")
    await desk.page.locator(".trial").get_by_role("button", name="Promote").click()
    await expect(desk.page.locator("#act-force-row")).to_be_visible()
    await desk.page.click("#act-cancel")


async def test_a_refusal_is_told_in_the_dialog_and_what_a_key_may_not_do_is_hidden(
    desk: Desk, sampled: Instance
) -> None:
    release = await desk.draft()
    access = Access(desk.control.engine)
    _, secret = await access.create_key("default", "reader", groups=None, scopes=("read",))
    await desk.page.evaluate("(secret) => sessionStorage.setItem('plumbline-key', secret)", secret)
    await desk.press("Promote", release)
    await desk.answer("because")
    await expect(desk.page.locator("#act-error")).to_contain_text(re.compile("operate"))
    await expect(desk.page.locator("#act")).to_be_visible()
    assert (await desk.control.registry.served()).id != release.id

    await desk.page.reload()
    await expect(desk.row(release)).to_be_visible()
    await expect(desk.page.locator("[data-needs=operate]").filter(visible=True)).to_have_count(0)
    await desk.page.goto(f"{sampled.url}/#documents")
    await expect(desk.page.locator("#rows tr").first).to_be_visible()
    await expect(desk.page.get_by_role("button", name="Summarize").first).to_be_visible()
    await expect(desk.page.locator("[data-needs=write]").filter(visible=True)).to_have_count(0)
    await expect(desk.page.locator("nav a").filter(visible=True)).to_have_count(5)


async def test_a_forced_champion_is_named_with_its_reason_and_can_be_rolled_back(desk: Desk) -> None:
    release, reason = await desk.draft(evaluated=False), "the other one is broken"
    await desk.press("Promote", release)
    await desk.answer(reason, force=True)
    await expect(desk.page.locator("#serving h3")).to_have_text(release.name)
    await expect(desk.page.locator("#serving .pill")).to_have_text("forced")
    await expect(desk.page.locator("#serving .warning")).to_contain_text(reason)
    await desk.page.reload()
    await expect(desk.page.locator("#status.doubtful")).to_contain_text(f"forced: {reason}")

    await desk.page.locator("#serving").get_by_role("button", name="Roll back").click()
    await expect(desk.page.locator("#act-text")).to_contain_text("default (")
    await desk.answer("mended")
    await expect(desk.page.locator("#serving .pill")).to_have_text("bootstrap")
    await expect(desk.row(release)).to_contain_text("retired")


async def test_the_history_shows_on_what_a_release_was_taken_back(desk: Desk) -> None:
    release = await desk.draft()
    trial = await desk.control.trials.start("canary", release.id, {})
    decision = {"why": "faults: 7.5% against 0.3%", "metric": "faults", "evidence": SHOWN}
    await desk.control.trials.end(trial, "rolled_back", decision)
    await expect(desk.row(release)).to_contain_text("passed, then withdrawn")
    await desk.press("History", release)

    body = desk.page.locator("#history-body")
    await expect(body.locator(".pill")).to_have_text("rolled back")
    await expect(body.locator(".card")).to_contain_text("faults: 7.5% against 0.3%")
    row = body.locator("tr.harmed")
    await expect(row).to_contain_text("Failed requests")
    await expect(row).to_contain_text("7.5%")
    await expect(row).to_contain_text("harm shown: 160 of 133")
    drawing = row.get_by_role("img")
    await expect(drawing).to_have_attribute("aria-label", re.compile("highest 160; 133 shows harm"))
    points = str(await drawing.locator(".course").get_attribute("points")).split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == len(POINTS)
    assert heights == sorted(heights, reverse=True)
    now = float(str(await drawing.locator(".now").get_attribute("width")))
    assert now == float(str(await drawing.locator(".highest").get_attribute("x1"))) - 1


async def test_a_reason_that_is_markup_stays_text(desk: Desk) -> None:
    release, reason = await desk.draft(evaluated=False), "<img src=x onerror=alert(1)>"
    await desk.control.trials.start("canary", release.id, {}, force=True, reason=reason)
    await expect(desk.row(release)).to_contain_text(reason)
    assert await desk.page.locator("#release-rows img").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_running_trial_does_not_scroll_sideways(desk: Desk, width: int) -> None:
    release = await desk.draft()
    await desk.control.trials.start("canary", release.id, {})
    await desk.page.set_viewport_size({"width": width, "height": 800})
    await expect(desk.page.locator(".trial .metrics tbody tr")).to_have_count(METRICS, timeout=20_000)
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await desk.page.evaluate(overflow) <= 0


async def test_a_reader_says_what_an_answer_is_worth(desk: Desk, sampled: Instance) -> None:
    page = desk.page
    await page.goto(f"{sampled.url}#ask")
    await page.fill("#question", "What caused the gateway outage of 14 March 2025?")
    async with page.expect_response("**/v1/chat/completions"):
        await page.keyboard.press("Enter")
    down = page.get_by_label("This answer is no good")
    async with page.expect_response("**/v1/feedback") as answered:
        await down.click()
    assert (await answered.value).status == 202
    await expect(down).to_have_attribute("aria-pressed", "true")
    async with page.expect_request("**/v1/feedback") as asked:
        await page.get_by_label("What is wrong with this answer").select_option("outdated")
    sent: dict[str, str] = (await asked.value).post_data_json or {}
    assert (sent["rating"], sent["reason"]) == ("down", "outdated")
    assert sent["id"].startswith("chatcmpl-")
