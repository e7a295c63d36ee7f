"""The address says what is shown: a search, a conversation, a document and a place in it can be bookmarked,
sent to a colleague and gone back to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Request, expect

from tests.browser.conftest import QUESTION
from tests.live import Instance

pytestmark = pytest.mark.browser

OUTAGE = "incidents:2025-03-14-gateway-outage.md"


def _questions(page: Page) -> list[str]:
    """The last question of each conversation that is sent from now on."""
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/chat/completions"):
            sent.append(json.loads(request.post_data or "")["messages"][-1]["content"])

    page.on("request", note)
    return sent


async def _copied(page: Page, pattern: str) -> str:
    """The clipboard, once it holds this."""
    for _ in range(100):
        text = str(await page.evaluate("navigator.clipboard.readText()"))
        if re.search(pattern, text):
            return text
        await page.wait_for_timeout(100)
    pytest.fail(f"copied was: {text}")


async def test_a_search_has_an_address_and_back_leads_to_the_one_before(
    page: Page, sampled: Instance
) -> None:
    await page.goto(f"{sampled.url}/#search?q=gateway+outage&collection=default")
    await expect(page.locator("#hits li").first).to_contain_text("gateway")
    await expect(page.locator("#query")).to_have_value("gateway outage")
    await expect(page.locator("#search-scope summary")).to_have_text("In default")
    await expect(page).to_have_title("gateway outage · Search · Plumbline")
    await page.fill("#query", "paid leave")
    await page.keyboard.press("Enter")
    await expect(page.locator("#hits li").first).to_contain_text("leave")
    await expect(page).to_have_url(re.compile(r"#search\?q=paid\+leave&collection=default$"))
    await page.go_back()
    await expect(page.locator("#hits li").first).to_contain_text("gateway")
    await expect(page.locator("#query")).to_have_value("gateway outage")


async def test_a_search_is_still_there_after_another_view(page: Page, sampled: Instance) -> None:
    await page.goto(f"{sampled.url}/#search?q=gateway+outage")
    await page.locator("#hits li").first.wait_for()
    await page.get_by_role("link", name="Releases").click()
    await page.get_by_role("link", name="Search").click()
    await expect(page).to_have_url(re.compile(r"#search\?q=gateway\+outage$"))
    await expect(page.locator("#hits li").first).to_be_visible()


async def test_whoever_opens_the_address_of_a_conversation_gets_it_answered_anew(
    page: Page, sampled: Instance
) -> None:
    sent = _questions(page)
    await page.goto(
        f"{sampled.url}/#ask?q=How+long+is+the+warranty+on+a+Skylark+320%3F&q=When+does+it+begin%3F"
    )
    await expect(page.locator(".turn .feedback")).to_have_count(2)
    assert sent == ["How long is the warranty on a Skylark 320?", "When does it begin?"]
    await page.reload()
    await expect(page.locator(".turn .feedback")).to_have_count(2)
    await page.wait_for_timeout(300)
    assert len(sent) == 2, "what this tab knows already is not asked again"


async def test_back_leads_to_the_conversation_before_without_asking_again(page: Page) -> None:
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".turn .feedback").wait_for()
    await expect(page).to_have_url(re.compile(r"#ask\?q=What\+caused"))
    sent = _questions(page)
    await page.get_by_role("button", name="Start a new conversation").click()
    await expect(page.locator(".turn")).to_have_count(0)
    await page.go_back()
    await expect(page.locator(".asked")).to_have_text(QUESTION)
    assert sent == []


async def test_back_closes_a_source_and_its_address_opens_it_at_the_same_place(page: Page) -> None:
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    cite = page.locator(".cite").first
    await cite.click()
    await expect(page.locator("#passage-text mark")).to_contain_text("certificate")
    marked, address = await page.locator("#passage-text mark").inner_text(), page.url
    await page.go_back()
    await expect(page.locator("#passage")).to_be_hidden()
    await expect(page.locator(".turn .feedback")).to_be_visible()
    await expect(cite).to_be_focused()
    await page.goto("about:blank")
    await page.goto(address)
    await expect(page.locator("#passage-text mark")).to_have_text(marked)
    await expect(page.locator("#passage-title")).to_contain_text("gateway outage")
    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile(r"#ask\?q=[^&]*$"))


async def test_a_document_has_an_address(page: Page, sampled: Instance) -> None:
    await page.goto(f"{sampled.url}/#documents?named=paid+2026&open={OUTAGE}")
    await expect(page.locator("#passage-text")).to_contain_text("The TLS certificate")
    await expect(page.get_by_label("named")).to_have_value("paid 2026")
    await page.keyboard.press("Escape")
    await expect(page.locator("#rows tr").first).to_contain_text("Paid leave policy 2026")
    await expect(page).to_have_url(re.compile(r"#documents\?named=paid\+2026$"))


async def test_the_address_of_what_is_gone_says_so(page: Page, sampled: Instance) -> None:
    await page.goto(f"{sampled.url}/#documents?open=gone.md")
    await expect(page.locator("#passage-note .error")).to_contain_text("gone.md")
    await expect(page.locator("#passage-original")).to_be_hidden()


async def test_an_answer_is_copied_with_its_sources_and_a_source_with_its_address(page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    await page.locator(".feedback").get_by_role("button", name="Copy").click()
    text = await _copied(page, r"\n\n\[\d\] Incident report: Finch Cloud gateway outage")
    assert "certificate" in text
    await page.locator(".cite").first.click()
    await page.get_by_role("button", name="Copy the link").click()
    assert await _copied(page, "^http") == page.url


async def test_a_summary_is_copied_with_its_sources(page: Page, sampled: Instance) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(f"{sampled.url}/#documents?open={OUTAGE}")
    await page.get_by_role("button", name="Summarize this document").click()
    await page.locator("#summary-go").click()
    await page.locator("#summary").get_by_role("button", name="Copy").click()
    await _copied(page, r"\n\n\[\d\] Incident report: Finch Cloud gateway outage")


async def test_where_a_page_may_not_use_the_clipboard_the_old_way_is_taken(page: Page) -> None:
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await page.fill("#question", QUESTION)
    await page.keyboard.press("Enter")
    copy = page.locator(".feedback").get_by_role("button", name="Copy")
    await copy.click()
    await expect(page.locator("#announced")).to_have_text("Copied.")
    await expect(page.locator(".feedback .copy")).to_be_focused()
    await page.locator("#question").press("Control+V")
    await expect(page.locator("#question")).to_have_value(re.compile("certificate"))


async def test_a_document_of_a_folder_is_found_by_its_path(
    page: Page, sampled: Instance, tmp_path: Path
) -> None:
    folder = tmp_path / "plans" / "spring" / "beds"
    folder.mkdir(parents=True)
    (folder / "tulips.md").write_text("# Tulips\n\nTulips stand in bed four.\n")
    await page.goto(f"{sampled.url}/#documents")
    await page.set_input_files("#folder", tmp_path / "plans")
    await expect(page.locator("#uploads li")).to_contain_text("searchable")
    await page.goto(f"{sampled.url}/#documents?open=plans:spring:beds:tulips.md")
    await expect(page.locator("#passage-text")).to_contain_text("bed four")
