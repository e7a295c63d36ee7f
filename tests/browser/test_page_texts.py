"""Texts as documents and models write them: in Markdown, from right to left, with titles that do not end; and
questions that are asked while documents are still being read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests import live
from tests.live import Instance

pytestmark = pytest.mark.browser

GUIDE = """# Kiln guide

Read the [safety sheet](https://example.com/sheet_(1)) first. **Never** open the kiln above *80 degrees*.
Start it with `kiln --dry-run`. The file kiln_log_names stays as it is, and 2 * 3 * 4 is 24.

| Glaze | Hours |
|---|---|
| ash | 9 |

```
kiln fire --to 1240   # **not** bold
```
"""
ARABIC = "يحصل كل بستاني على ثلاثة أيام إجازة للحصاد في الخريف. يقدم الطلب إلى المكتب قبل أسبوعين."


def _guide(one: Instance) -> None:
    live.add(one, {"id": "kiln.md", "text": GUIDE, "media_type": "text/markdown"})


async def test_an_opened_markdown_file_is_shown_as_its_readers_see_it(page: Page, sampled: Instance) -> None:
    _guide(sampled)
    await page.goto(f"{sampled.url}/#documents?open=kiln.md")
    text = page.locator("#passage-text")
    await expect(text).to_contain_text("Read the safety sheet first. Never open the kiln above 80 degrees")
    await expect(text).to_contain_text("The file kiln_log_names stays as it is, and 2 * 3 * 4 is 24.")
    await expect(text.locator("strong")).to_have_text(["Never"])
    await expect(text.locator("em")).to_have_text(["80 degrees"])
    await expect(text.locator("code").first).to_have_text("kiln --dry-run")
    await expect(text).to_contain_text("kiln fire --to 1240   # **not** bold")
    await expect(text).not_to_contain_text("---")
    await expect(text).not_to_contain_text("```")


async def test_a_place_in_a_markdown_file_is_marked_without_its_marks(page: Page, sampled: Instance) -> None:
    _guide(sampled)
    body = {"query": "open the kiln above 80 degrees", "limit": 1}
    found = await (await page.request.post(f"{sampled.url}/v1/search", data=body)).json()
    [hit] = found["hits"]
    at = hit["span"]["start"] + hit["text"].index("**Never**")
    place = f"{hit['chunk_id']}:{at}-{at + len('**Never** open the kiln above *80 degrees*')}"
    await page.goto(f"{sampled.url}/#documents?open=kiln.md&at={place}")
    await expect(page.locator("#passage-text mark")).to_have_text("Never open the kiln above 80 degrees")


async def test_a_plain_text_keeps_its_stars_and_underlines(page: Page, sampled: Instance) -> None:
    live.add(sampled, {"id": "stars.txt", "text": "Call **init** as __init__ and `run`."})
    await page.goto(f"{sampled.url}/#documents?open=stars.txt")
    await expect(page.locator("#passage-text")).to_have_text("Call **init** as __init__ and `run`.")


async def test_an_answer_in_markdown_keeps_its_citations_and_its_sentences(page: Page) -> None:
    """The model of the sample instance writes none, so the stream is one that another could send."""
    text = "😀 **Leave** is *28 days* [1]. Ask `early` [2]."
    source = {"document_id": "d", "chunk_id": "1-1", "text": "x", "span": {"start": 0, "end": 1}}
    citations = [{**source, "number": 1, "title": "Leave"}, {**source, "number": 2, "title": "Asking"}]
    verdict = {"citations": [1], "score": 0.9, "spans": [], "verdict": "supported", "reason": None}
    support = [{**verdict, "sentence": 1, "start": 2, "end": text.index(" Ask")}]
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": 0, "delta": {"content": text}}]},
        {"choices": [], "plumbline": {"support": support, "citations": citations, "degraded": []}},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    await page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream")
    )
    await page.fill("#question", "How long is leave?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".claim.supported")).to_have_text("Leave is 28 days 1.")
    await expect(page.locator(".answer strong")).to_have_text("Leave")
    await expect(page.locator(".answer code")).to_have_text("early")
    await expect(page.locator(".answer .cite")).to_have_count(2)


async def test_text_from_right_to_left_runs_that_way_wherever_it_is_shown(
    page: Page, sampled: Instance
) -> None:
    live.add(sampled, {"id": "harvest-ar", "title": "إجازة الحصاد 2026 (HR)", "text": ARABIC})
    way = "node => getComputedStyle(node).direction"
    await page.goto(f"{sampled.url}/#ask?q=كم يوم إجازة للحصاد؟")
    await page.locator(".turn .feedback").wait_for()
    for part in (".asked", ".answer", "#question"):
        expected = "ltr" if part == "#question" else "rtl"
        assert await page.locator(part).evaluate(way) == expected, part
    await expect(page.locator(".sources bdi").first).to_have_text("إجازة الحصاد 2026 (HR)")
    await page.goto(f"{sampled.url}/#search?q=إجازة الحصاد")
    hit = page.locator("#hits li", has_text="إجازة الحصاد 2026").first
    await hit.wait_for()
    for part in ("h2 button", "p:last-child"):
        assert await hit.locator(part).evaluate(way) == "rtl", part
    await page.goto(f"{sampled.url}/#documents?named=الحصاد&open=harvest-ar")
    await expect(page.locator("#passage-text")).to_contain_text("ثلاثة أيام")
    for part in ("#passage-title", "#passage-text"):
        assert await page.locator(part).evaluate(way) == "rtl", part
    await page.keyboard.press("Escape")
    assert await page.locator("#rows [data-does=open]").first.evaluate(way) == "rtl"


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_title_without_end_takes_three_lines_and_no_more(
    page: Page, sampled: Instance, width: int
) -> None:
    long = "Sprinkleranlagenwartungsvertragsverzeichnis" * 11
    live.add(
        sampled, {"id": "sprinkler", "title": long[:490], "text": "The sprinklers are looked at in May."}
    )
    await page.set_viewport_size({"width": width, "height": 800})
    for view, part in (
        ("search?q=sprinklers looked at in May", "#hits h2"),
        ("documents?named=sprinkler", "#rows"),
    ):
        await page.goto(f"{sampled.url}/#{view}")
        title = page.locator(part).get_by_role("button", name=long[:40]).first
        box = await title.bounding_box()
        line = await title.evaluate("node => parseFloat(getComputedStyle(node).lineHeight)")
        assert box
        assert box["height"] < 3.5 * line
        overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(overflow) <= 0, view


async def test_whoever_asks_while_documents_are_being_read_is_told_so(
    page: Page, held: None, sampled: Instance, tmp_path: Path
) -> None:
    names = ("heron", "stork")
    documents = [{"id": f"{name}.txt", "text": f"The {name} nests on the roof."} for name in names]
    await page.request.post(f"{sampled.url}/v1/documents", data={"documents": documents})
    await page.goto("about:blank")
    await page.goto(sampled.url)
    await expect(page.locator("#welcome-text")).to_contain_text("2 documents wait: the queue is held back.")
    await page.fill("#question", "Where does the stork nest?")
    await page.keyboard.press("Enter")
    await expect(page.locator(".turn .reading")).to_contain_text("This does not know them yet.")
    await page.goto(f"{sampled.url}/#search?q=stork")
    await expect(page.locator("#search-reading")).to_contain_text("2 documents wait")
    await page.request.post(f"{sampled.url}/v1/queue/resume", data={})
    await page.get_by_role("button", name="Search", exact=True).click()
    await expect(page.locator("#search-note")).not_to_have_text("Searching…")
