"""The page without a mouse and without sight: axe-core finds nothing wrong with any view or dialog, in light
and dark; the keyboard reaches everything and is not lost; what changes is said."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.axe import faults
from tests.browser.conftest import QUESTION
from tests.live import Instance

pytestmark = pytest.mark.browser

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
async def asked(page: Page) -> Page:
    """The page after one question."""
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".turn .feedback").wait_for()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_no_view_and_no_dialog_has_a_fault_that_axe_finds(
    asked: Page, sampled: Instance, scheme: str, width: int
) -> None:
    page = asked
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert await faults(page) == []
    await page.get_by_label("This answer is no good").click()
    await page.get_by_label("What is wrong with this answer").wait_for()
    assert await faults(page) == []
    await page.locator(".cite").first.click()
    await page.locator("#passage-text mark").wait_for()
    assert await faults(page) == []
    await page.keyboard.press("Escape")
    await expect(page).not_to_have_url(re.compile("open="))  # It goes back in the history.
    for view, ready in (
        ("search?q=gateway+outage", "#hits li"),
        ("summarize", "#summary-go"),
        ("documents", "#rows tr"),
        ("releases", "#release-rows tr"),
    ):
        await page.goto(f"{sampled.url}/#{view}")
        await page.locator(ready).first.wait_for()
        assert await faults(page) == [], view
    await page.locator("#release-rows").get_by_role("button", name="History").last.click()
    await page.locator("#history-body .audit").wait_for()
    assert await faults(page) == []


async def test_a_question_is_asked_read_and_rated_by_keys_alone(page: Page) -> None:
    await expect(page.locator("#question")).to_be_focused()
    await page.keyboard.type(QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".turn .feedback").wait_for()
    await expect(page.locator("#question")).to_be_focused()
    reached = []
    for _ in range(30):
        await page.keyboard.press("Shift+Tab")
        reached.append(await page.evaluate("document.activeElement.className || document.activeElement.id"))
        if "cite" in reached[-1]:
            break
    assert [one for one in reached if "thumb" in one], reached
    await page.keyboard.press("Enter")
    await expect(page.locator("#passage")).to_be_visible()
    inside = "() => Boolean(document.activeElement.closest('#passage'))"
    for _ in range(7):
        assert await page.evaluate(inside) or await page.evaluate("document.activeElement === document.body")
        await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    await expect(page.locator(".cite").last).to_be_focused()


async def test_the_keyboard_is_where_it_was_after_a_document_was_read(page: Page, sampled: Instance) -> None:
    """While documents are on their way the list is made anew every other second."""
    await page.goto(f"{sampled.url}/#documents")
    opener = page.locator("#rows [data-does=open]").nth(2)
    await opener.focus()
    name = await opener.inner_text()
    await page.keyboard.press("Enter")
    await page.locator("#passage-text").get_by_text(" ").first.wait_for()
    await page.evaluate("import('/web/documents.js').then((documents) => documents.list())")
    await page.keyboard.press("Escape")
    await expect(page.locator("#passage")).to_be_hidden()
    assert await page.evaluate("document.activeElement.textContent") == name


async def test_more_hits_are_gone_on_with_from_where_one_was(page: Page, sampled: Instance) -> None:
    await page.goto(f"{sampled.url}/#search?q=policy")
    await expect(page.locator("#hits li")).to_have_count(20)
    await page.get_by_role("button", name="Show more").press("Enter")
    await expect(page.locator("#hits li button").nth(20)).to_be_focused()


async def test_answers_and_errors_are_said(page: Page) -> None:
    said = page.locator("#announced")
    await expect(said).to_have_attribute("role", "status")
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await expect(said).to_contain_text("certificate")
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    await page.fill("#question", "And then?")
    await page.keyboard.press("Enter")
    await expect(said).to_contain_text("does not answer")


async def test_the_tree_of_a_screen_reader_names_what_is_on_the_page(asked: Page) -> None:
    tree = await asked.locator("body").aria_snapshot()
    for part in (
        'link "Skip to content"',
        'navigation "Views"',
        'heading "Ask your documents" [level=1]',
        f'heading "{QUESTION}" [level=2]',
        'button "Source ',
        'button "This answer helped"',
        'textbox "Question"',
    ):
        assert part in tree, tree


async def test_at_twice_the_size_nothing_is_cut_off(asked: Page, sampled: Instance) -> None:
    """A window of 1280 points at 200 % has 640 of them."""
    await asked.set_viewport_size({"width": 640, "height": 400})
    for view in ("ask", "search?q=gateway+outage", "summarize", "documents", "releases"):
        await asked.goto(f"{sampled.url}/#{view}")
        await asked.wait_for_timeout(300)
        assert await asked.evaluate(OVERFLOW) <= 0, view
    await asked.goto(f"{sampled.url}/#documents?open=incidents:2025-03-14-gateway-outage.md")
    await expect(asked.locator("#passage-text")).to_contain_text("The TLS certificate")
    box = await asked.locator("#passage-text").bounding_box()
    assert box
    assert box["height"] >= 48


async def test_who_wants_less_motion_gets_none(page: Page) -> None:
    """What moves is the mark at the end of an answer that is being written."""
    moving = "() => document.getAnimations().length"
    await page.evaluate("document.getElementById('welcome').className = 'answer waiting'")
    assert await page.evaluate(moving) == 1
    await page.emulate_media(reduced_motion="reduce")
    assert await page.evaluate(moving) == 0
