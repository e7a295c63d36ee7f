"""The page while things take their time, fail, come late or are gone: what was typed, asked or handed in is
not lost, and what is shown is true."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import QUESTION
from tests.live import Instance

pytestmark = pytest.mark.browser


def _files(folder: Path, count: int, about: str) -> list[Path]:
    files = [folder / f"{about}-{number}.md" for number in range(count)]
    for number, file in enumerate(files):
        file.write_text(f"# {about} {number}\n\nThe {about} number {number} is painted green.\n")
    return files


async def test_questions_are_answered_while_many_files_wait(page: Page, held: None, tmp_path: Path) -> None:
    """A browser opens six connections to a server: files that are followed must not take them all."""
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 9, "fence"))
    await expect(page.locator("#uploads li", has_text="waiting")).to_have_count(9)
    await expect(page.locator("#uploads-note")).to_contain_text("9 to go")
    await page.goto(f"{page.url.split('#')[0]}#ask")
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".sources button").first.wait_for()


async def test_files_are_followed_further_after_the_service_was_away(
    page: Page, sampled: Instance, tmp_path: Path
) -> None:
    away = True

    async def lookup(route: Route) -> None:
        await (route.abort() if away else route.continue_())

    await page.route("**/v1/jobs/lookup", lookup)
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 1, "gate"))
    item = page.locator("#uploads li").first
    await expect(item).to_contain_text("does not answer, asking again")
    away = False
    await expect(item).to_contain_text("searchable")


async def test_a_file_that_takes_the_place_of_another_says_so(page: Page, tmp_path: Path) -> None:
    await page.goto(f"{page.url}#documents")
    [file] = _files(tmp_path, 1, "hedge")
    await page.set_input_files("#files", file)
    await expect(page.locator("#uploads li").first.locator("span").nth(1)).to_have_text("searchable")
    file.write_text("# Hedge\n\nThe hedge is cut in March.\n")
    await page.set_input_files("#files", file)
    await expect(page.locator("#uploads li").nth(1)).to_contain_text("in place of what had this name")


async def test_only_the_latest_search_is_shown(page: Page) -> None:
    first = asyncio.Event()

    async def late(route: Route) -> None:
        if "late" in (route.request.post_data or ""):
            await first.wait()
        await route.continue_()

    await page.route("**/v1/search", late)
    await page.goto(f"{page.url}#search")
    await page.fill("#query", "paid leave, late")
    await page.keyboard.press("Enter")
    await page.fill("#query", "gateway outage")
    await page.keyboard.press("Enter")
    await expect(page.locator("#hits li").first).to_contain_text("gateway")
    first.set()
    await page.wait_for_timeout(500)
    await expect(page.locator("#hits li").first).to_contain_text("gateway")


async def test_a_search_that_finds_none_of_the_words_says_so(page: Page) -> None:
    await page.goto(f"{page.url}#search")
    await page.fill("#query", "zxqv qwpoi")
    await page.keyboard.press("Enter")
    await expect(page.locator("#search-note")).to_contain_text("None of them has a word of yours")


async def test_a_question_that_failed_is_asked_again_with_one_click(page: Page) -> None:
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    turn = page.locator(".turn")
    await expect(turn.locator(".error")).to_contain_text("does not answer")
    await page.unroute("**/v1/chat/completions")
    await turn.get_by_role("button", name="Ask again").click()
    await expect(turn.locator(".answer")).to_contain_text("certificate")
    await expect(turn).to_have_count(1)


async def test_an_answer_that_is_cut_off_is_no_answer(page: Page) -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Half of it"}}]}
    await page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=f"data: {json.dumps(piece)}\n\n", content_type="text/event-stream"),
    )
    await page.fill("#question", "How long is leave?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".turn .error")).to_contain_text("cut off")


async def test_the_conversation_is_there_after_a_reload_and_goes_on(page: Page) -> None:
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".sources button").first.wait_for()
    await page.reload()
    await expect(page.locator(".asked")).to_have_text(QUESTION)
    await page.locator(".cite").first.click()
    await expect(page.locator("#passage-text mark")).to_contain_text("certificate")
    await page.keyboard.press("Escape")
    async with page.expect_request("**/v1/chat/completions") as sent:
        await page.fill("#question", "When was it noticed?")
        await page.keyboard.press("Enter")
    body = json.loads((await sent.value).post_data or "")
    assert [one["content"] for one in body["messages"]][::2] == [QUESTION, "When was it noticed?"]
    assert body["plumbline"]["conversation"]
    await page.locator(".turn").nth(1).locator(".feedback").wait_for()
    await page.get_by_role("button", name="Start a new conversation").click()
    await page.reload()
    await expect(page.locator(".turn")).to_have_count(0)


async def test_a_declined_question_shows_the_nearest_passages(page: Page) -> None:
    await page.fill("#question", "Wer hat die Pyramiden von Gizeh gebaut?")
    await page.keyboard.press("Enter")
    await page.locator(".near summary").click()
    await expect(page.locator(".near .sources button").first).to_be_visible()


async def test_what_was_deleted_is_not_left_standing(page: Page, sampled: Instance, tmp_path: Path) -> None:
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 1, "turnstile"))
    await expect(page.locator("#uploads li").first.locator("span").nth(1)).to_have_text("searchable")
    await page.goto(f"{page.url.split('#')[0]}#search")
    await page.fill("#query", "turnstile")
    await page.keyboard.press("Enter")
    hit = page.locator("#hits button", has_text="turnstile").first
    await hit.wait_for()
    await page.request.delete(f"{sampled.url}/v1/documents/turnstile-0.md")
    await hit.click()
    await expect(page.locator("#passage-note .error")).to_contain_text("turnstile-0.md")
    await expect(page.locator("#passage-text")).to_have_text("")
    await expect(page.locator("#passage-original")).to_be_hidden()


async def test_a_key_that_is_being_typed_is_left_alone(page: Page) -> None:
    """The view of releases asks again every other second."""
    refused = {"error": {"message": "This service needs a key."}}
    await page.route("**/v1/releases*", lambda route: route.fulfill(status=401, json=refused))
    await page.route("**/v1/releases/*", lambda route: route.fulfill(status=401, json=refused))
    await page.goto(f"{page.url}#releases")
    await expect(page.locator("#key")).to_be_visible()
    await page.locator("#key-value").type("plb_half")
    await page.wait_for_timeout(2_600)
    assert await page.locator("#key-value").input_value() == "plb_half"
    await page.keyboard.press("Escape")
    await page.wait_for_timeout(2_600)
    await expect(page.locator("#key")).to_be_hidden()
    await expect(page.locator("#releases-note")).to_contain_text("needs a key")
    assert await page.evaluate("sessionStorage.getItem('plumbline-key')") is None


async def test_the_newest_answer_and_the_next_question_are_in_sight(page: Page) -> None:
    await page.set_viewport_size({"width": 1280, "height": 500})
    for question in ("How long is the warranty on a Skylark 320?", "What caused the gateway outage?") * 2:
        await page.fill("#question", question)
        await page.keyboard.press("Enter")
        await expect(page.locator("#ask-button")).to_be_visible()
    await expect(page.locator(".turn")).to_have_count(4)
    await expect(page.locator(".turn").last.locator(".answer")).to_be_in_viewport()
    await expect(page.locator("#question")).to_be_in_viewport(ratio=1)
    await expect(page.locator("#question")).to_be_focused()


async def test_files_that_failed_are_told_first(page: Page, tmp_path: Path) -> None:
    for name, text in (("one.md", b"# One\n\nText."), ("two.md", b"# Two\n\nText."), ("none.md", b"")):
        (tmp_path / name).write_bytes(text)
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", [tmp_path / "one.md", tmp_path / "two.md", tmp_path / "none.md"])
    await expect(page.locator("#uploads-note")).to_have_text("2 of 3 files searchable, 1 failed")
    await expect(page.locator("#uploads li").first).to_contain_text("none.md")


async def test_a_folder_is_told_by_what_became_of_its_files(page: Page, tmp_path: Path) -> None:
    """Those that failed by their reasons, with their names; what systems leave beside files is no failure."""
    folder = tmp_path / "archive" / "2026"
    folder.mkdir(parents=True)
    (folder / "plums.md").write_text("# Plums\n\nPlums ripen in August.\n")
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (folder / "none.txt").write_bytes(b"")
    for name in (".DS_Store", "~$plums.docx", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#folder", tmp_path / "archive")
    told = "1 of 4 files searchable, 3 failed, 3 hidden files left out"
    await expect(page.locator("#uploads-note")).to_have_text(told)
    reasons = page.locator("#uploads-reasons li")
    await expect(reasons).to_have_count(2)
    await expect(reasons.first).to_contain_text("2 files: The file")
    await expect(reasons.first).to_contain_text("looks like a PNG image. archive/2026/")
    await expect(reasons.first).not_to_contain_text("Plumbline reads")
    await expect(reasons.last).to_contain_text("1 file: The document is empty")
    await expect(page.locator("#uploads-again")).to_be_hidden()
    await page.get_by_role("button", name="Clear this list").click()
    await expect(page.locator("#uploads li")).to_have_count(0)
    await expect(page.locator("#uploads-note")).to_have_text("")


async def test_files_wait_while_the_service_is_busy_or_away(page: Page, tmp_path: Path) -> None:
    refusals = ["busy", "away"]

    async def refuse(route: Route) -> None:
        if not refusals:
            await route.continue_()
        elif refusals.pop(0) == "away":
            await route.abort()
        else:
            error = {"error": {"message": "Too many documents wait.", "code": "queue_full"}}
            await route.fulfill(status=429, headers={"Retry-After": "1"}, json=error)

    await page.route("**/v1/documents", refuse)
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 1, "shed"))
    await expect(page.locator("#uploads li")).to_contain_text("Too many documents wait.")
    await expect(page.locator("#uploads li")).to_contain_text("does not answer, sends it again")
    await expect(page.locator("#uploads li")).to_contain_text("searchable")
    assert refusals == []


async def test_a_file_that_another_try_may_mend_is_tried_again_with_one_click(
    page: Page, tmp_path: Path
) -> None:
    error = {"error": {"message": "This key lacks the scope `write`.", "code": "forbidden"}}
    await page.route("**/v1/documents", lambda route: route.fulfill(status=403, json=error))
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 2, "barn"))
    await expect(page.locator("#uploads li.error, #uploads li .error")).to_have_count(2)
    await page.unroute("**/v1/documents")
    await page.get_by_role("button", name="Try those again").click()
    await expect(page.locator("#uploads-note")).to_have_text("2 of 2 files searchable")


async def test_what_is_not_sent_yet_is_not_left_without_a_question(page: Page, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route("**/v1/documents", slow)
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", _files(tmp_path, 3, "dock"))
    await expect(page.locator("#uploads li").last).to_contain_text("waits to be sent")
    asks = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert await page.evaluate(asks)
    go.set()
    await expect(page.locator("#uploads-note")).to_have_text("3 of 3 files searchable")
    assert not await page.evaluate(asks)


async def test_the_header_says_at_once_that_the_service_is_away_and_soon_that_it_is_back(page: Page) -> None:
    await expect(page.locator("#status")).to_contain_text("release")
    await page.route("**/*", lambda route: route.abort())
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await expect(page.locator("#status")).to_have_text("The service does not answer.", timeout=3_000)
    await page.unroute("**/*")
    await expect(page.locator("#status")).to_contain_text("release", timeout=12_000)


async def test_a_hit_is_shown_without_the_marks_of_markdown(page: Page) -> None:
    text = "See the [**leave** form](https://x.example/a(b)) of *1 \\- 5* May."
    hit = {"document_id": "d", "chunk_id": "c", "title": "Leave", "heading": "", "text": text}
    answer = json.dumps({"hits": [hit], "degraded": [], "release": "r"})
    await page.route("**/v1/search", lambda route: route.fulfill(body=answer))
    await page.goto(f"{page.url}#search")
    await page.fill("#query", "form")
    await page.keyboard.press("Enter")
    await expect(page.locator("#hits li p").last).to_have_text("See the leave form of 1 - 5 May.")
