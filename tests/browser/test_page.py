"""The page in a real browser against a real instance: ask, open a citation, search, upload, delete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.live import Instance

pytestmark = pytest.mark.browser


async def test_a_question_gets_an_answer_whose_citation_opens_the_passage(page: Page) -> None:
    await page.fill("#question", "What caused the gateway outage of 14 March 2025?")
    await page.keyboard.press("Enter")
    await page.locator(".sources button").first.wait_for()
    assert "certificate" in await page.locator(".answer").inner_text()
    await page.locator(".cite").first.click()
    await expect(page.locator("#passage")).to_be_visible()
    await expect(page.locator("#passage-title")).to_contain_text("gateway outage")
    await expect(page.locator("#passage-text mark")).to_contain_text("certificate")
    await page.keyboard.press("Escape")
    await expect(page.locator("#passage")).to_be_hidden()


async def test_a_citation_opens_the_passage_at_the_sentence_that_says_it(page: Page) -> None:
    await page.fill("#question", "What caused the gateway outage of 14 March 2025?")
    await page.keyboard.press("Enter")
    sentence = page.locator(".claim.supported").first
    await sentence.wait_for()
    await sentence.locator(".cite").first.click()
    mark = await page.locator("#passage-text mark").inner_text()
    assert "certificate" in mark
    assert len(mark) < len(await page.locator("#passage-text").inner_text())


async def test_what_is_not_in_the_documents_is_shown_as_such(page: Page) -> None:
    await page.fill("#question", "Wer hat die Pyramiden von Gizeh gebaut?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".answer.declined")).to_have_text(
        "Die Dokumente beantworten diese Frage nicht."
    )
    await expect(page.locator(".doubt")).to_have_count(0)


async def test_a_sentence_that_its_source_does_not_bear_out_says_why(page: Page) -> None:
    """The model of the sample instance invents nothing, so the stream is one that another could send."""
    text = "Leave is 31 days. 😀 Ask early."
    verdict = {"citations": [], "score": 0.1, "spans": []}
    support = [
        {**verdict, "sentence": 1, "start": 0, "end": 17, "verdict": "unsupported", "reason": "number"},
        {**verdict, "sentence": 2, "start": 20, "end": 30, "verdict": "uncited", "reason": "no citation"},
    ]
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": 0, "delta": {"content": text}}]},
        {"choices": [{"index": 0, "delta": {}}], "plumbline": {"support": support[0]}},
        {"choices": [], "plumbline": {"support": support, "citations": [], "degraded": []}},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    await page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream")
    )
    await page.fill("#question", "How long is leave?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".claim.unsupported")).to_have_text("Leave is 31 days.")
    await expect(page.locator(".claim.uncited")).to_have_text("Ask early.")
    await page.get_by_role("button", name=re.compile("number or date")).click()
    await expect(page.locator(".why").first).to_contain_text("a number or date is not in it")
    await expect(page.locator(".answer")).to_contain_text("😀")


async def test_search_shows_hits_with_the_words_marked(page: Page) -> None:
    await page.goto(f"{page.url}#search")
    await page.fill("#query", "gateway outage")
    await page.keyboard.press("Enter")
    first = page.locator("#hits li").first
    await expect(first).to_contain_text("gateway")
    assert await first.locator("mark").count() > 0


async def test_an_uploaded_file_becomes_searchable_and_can_be_deleted(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "parking.md"
    file.write_text("# Parking\n\nThe car park behind the glasshouse opens at six.\n")
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", file)
    await expect(page.locator("#uploads li").first).to_contain_text("searchable", timeout=30_000)
    row = page.locator("#rows tr", has_text="parking")
    await expect(row).to_contain_text("searchable")
    page.on("dialog", lambda dialog: dialog.accept())
    await row.get_by_role("button", name="Delete").click()
    await expect(row).to_have_count(0)


async def test_a_refused_file_is_told_with_its_reason(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "empty.pdf"
    file.write_bytes(b"")
    await page.goto(f"{page.url}#documents")
    async with page.expect_response("**/v1/documents") as answered:
        await page.set_input_files("#files", file)
    assert (await answered.value).status == 400
    await expect(page.locator("#uploads .error")).to_contain_text("empty")


async def test_a_file_that_cannot_be_read_says_why_for_as_long_as_it_is_there(
    page: Page, tmp_path: Path
) -> None:
    file = tmp_path / "broken.pdf"
    file.write_bytes(b"%PDF-1.7\nnothing of a PDF")
    await page.goto(f"{page.url}#documents")
    await page.set_input_files("#files", file)
    await expect(page.locator("#uploads .error")).to_contain_text("damaged", timeout=30_000)
    await page.reload()
    row = page.locator("#rows tr", has_text="broken")
    await expect(row.locator(".error")).to_contain_text("damaged")
    page.on("dialog", lambda dialog: dialog.accept())
    await row.get_by_role("button", name="Delete").click()
    await expect(row).to_have_count(0)


async def test_markup_in_a_document_stays_text(page: Page, sampled: Instance) -> None:
    body = {"documents": [{"id": "hostile", "text": "Zebra crossing <img src=x onerror=alert(1)> rules."}]}
    reply = await page.request.post(f"{sampled.url}/v1/documents", data=body)
    job = (await reply.json())["jobs"][0]["id"]
    await page.goto(f"{page.url}#search")
    for _ in range(600):
        found = await (await page.request.get(f"{sampled.url}/v1/jobs/{job}")).json()
        if found["status"] == "succeeded":
            break
        await page.wait_for_timeout(100)
    assert found["status"] == "succeeded"
    await page.fill("#query", "zebra crossing")
    await page.keyboard.press("Enter")
    hit = page.locator("#hits li").first
    await expect(hit).to_contain_text("<img src=x onerror=alert(1)>")
    assert await page.locator("#hits img").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
async def test_no_view_scrolls_sideways(page: Page, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    for view in ("ask", "search", "summarize", "documents", "releases"):
        await page.goto(f"{page.url.split('#')[0]}#{view}")
        await expect(page.locator(f"#view-{view}")).to_be_visible()
        overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(overflow) <= 0


async def test_every_control_has_a_name(page: Page) -> None:
    for view in ("ask", "search", "summarize", "documents", "releases"):
        await page.goto(f"{page.url.split('#')[0]}#{view}")
        nameless = await page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, a')].filter((node) =>
                node.offsetParent && !(node.textContent.trim() || node.getAttribute('aria-label')
                || node.labels?.length)).length"""
        )
        assert nameless == 0


async def test_the_link_to_the_content_stays_in_the_view(page: Page) -> None:
    await page.goto(f"{page.url}#documents")
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#view-documents")).to_be_visible()
    assert await page.evaluate("document.activeElement.id") == "main"


async def test_a_document_is_read_and_summarized_on_the_page(page: Page) -> None:
    await page.goto(f"{page.url}#documents")
    await page.locator("#rows tr", has_text="gateway outage").get_by_role("button").first.click()
    await expect(page.locator("#passage-text")).to_contain_text("The TLS certificate")
    await page.get_by_role("button", name="Summarize this document").click()
    await expect(page.locator("#summary-documents")).to_contain_text("gateway outage")
    await page.get_by_role("button", name="Summarize", exact=True).click()
    await expect(page.locator("#summary-note")).to_contain_text("of the text")
    await page.locator("#summary .cite").first.click()
    await expect(page.locator("#passage-text mark")).to_be_visible()


async def test_a_text_is_summarized_with_its_places(page: Page) -> None:
    await page.goto(f"{page.url}#summarize")
    await page.fill("#summary-text", "The car park opens at six. It closes at ten. Bicycles go to the shed.")
    await page.get_by_role("button", name="Summarize", exact=True).click()
    await expect(page.locator("#summary .answer")).to_contain_text("opens at six")
    await page.locator("#summary .cite").first.click()
    await expect(page.locator("#passage-text mark")).to_contain_text("car park")


async def test_a_search_keeps_to_a_collection_and_a_filter(page: Page) -> None:
    await page.goto(f"{page.url}#search")
    await page.locator("#search-scope summary").click()
    await page.locator("#search-scope input").fill('{"nowhere": ')
    await page.fill("#query", "gateway outage")
    await page.keyboard.press("Enter")
    await expect(page.locator("#search-note .error")).to_contain_text("no JSON")
    await page.locator("#search-scope input").fill('{"nowhere": "else"}')
    await page.locator("#search-scope select").select_option("default")
    async with page.expect_request("**/v1/search") as sent:
        await page.locator("#search-form button").click()
    body = json.loads((await sent.value).post_data or "")
    assert (body["collection"], body["filter"]) == ("default", {"nowhere": "else"})
    await expect(page.locator("#search-note")).to_have_text("Nothing was found.")


async def test_a_document_is_found_by_words_of_its_name(page: Page) -> None:
    await page.get_by_role("link", name="Documents", exact=True).click()
    rows = page.locator("#rows tr")
    await expect(rows.nth(2)).to_be_visible()
    await page.get_by_label("named").fill("LEAVE paid 2026")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Paid leave policy 2026")
    await page.get_by_label("named").fill("nothing is called so")
    await expect(page.locator("#documents-note")).to_have_text("No document is named so.")
    await page.get_by_label("named").fill("")
    await expect(rows.nth(2)).to_be_visible()
