"""The page of someone whose key opens only a part of it, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import GiveKey
from tests.live import Instance

pytestmark = pytest.mark.browser


def _file(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text(f"# {name}\n\nThe ladder of {name} is two metres long.\n")
    return file


async def test_a_key_that_only_reads_is_not_offered_to_add_or_delete(page: Page, give_key: GiveKey) -> None:
    await give_key("read")
    await page.get_by_role("link", name="Documents", exact=True).click()
    await expect(page.locator("#rows tr").first).to_be_visible()
    await expect(page.locator("#drop")).to_be_hidden()
    await expect(page.get_by_role("button", name="Delete")).to_have_count(0)


async def test_a_key_that_only_writes_adds_documents_and_is_asked_for_nothing_else(
    page: Page, give_key: GiveKey, tmp_path: Path
) -> None:
    refused: list[str] = []
    await give_key("write", groups=["ladders"])
    page.on("response", lambda reply: refused.append(reply.url) if reply.status == 403 else None)
    await page.reload()
    await expect(page.locator("#view-documents")).to_be_visible()
    await expect(page.get_by_role("link", name="Ask")).to_have_count(0)
    await expect(page.locator("#list-collection")).to_be_hidden()
    await expect(page.get_by_label("readable by")).to_have_value("ladders")
    await page.set_input_files("#files", _file(tmp_path, "write-only.md"))
    await expect(page.locator("#uploads li")).to_contain_text("accepted; this key may not see")
    assert refused == []


async def test_a_key_of_some_groups_adds_documents_for_these(
    page: Page, sampled: Instance, give_key: GiveKey, tmp_path: Path
) -> None:
    await give_key("read", "write", groups=["hr", "legal"])
    await page.get_by_role("link", name="Documents", exact=True).click()
    await page.get_by_label("readable by").fill("legal")
    await page.set_input_files("#files", _file(tmp_path, "grouped.md"))
    await expect(page.locator("#uploads li")).to_contain_text("searchable")
    about = await (await page.request.get(f"{sampled.url}/v1/documents/grouped.md")).json()
    assert about["groups"] == ["legal"]


async def test_a_key_without_groups_is_told_why_it_can_add_nothing(page: Page, give_key: GiveKey) -> None:
    await give_key("read", "write")
    await page.get_by_role("link", name="Documents", exact=True).click()
    await expect(page.locator("#no-groups")).to_contain_text("has no groups")
    await expect(page.locator("#drop")).to_be_hidden()


async def test_a_key_for_the_instance_alone_opens_the_view_of_releases(page: Page, give_key: GiveKey) -> None:
    await give_key("operate")
    await expect(page.locator("#view-releases")).to_be_visible()
    await expect(page.locator("#serving h3")).to_be_visible()
    await expect(page.locator("nav a").filter(visible=True)).to_have_count(1)


async def test_a_key_that_is_not_accepted_is_told_as_such_and_can_be_exchanged(
    page: Page, give_key: GiveKey
) -> None:
    await give_key("read")
    await expect(page.locator("#who")).to_have_text("Key of default")
    good = await page.evaluate("sessionStorage.getItem('plumbline-key')")
    await page.evaluate("sessionStorage.setItem('plumbline-key', 'pl-of-last-year')")
    await page.reload()
    await expect(page.locator("#key-refused")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#who")).to_have_text("Give a key")
    await page.locator("#who").click()
    await page.fill("#key-value", f" {good} ")
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.locator("#who")).to_have_text("Key of default")
    await expect(page.locator("#welcome-text")).to_contain_text("documents in")


async def test_who_gives_the_key_back_leaves_nothing_behind(page: Page, give_key: GiveKey) -> None:
    await give_key("read")
    await page.fill("#question", "What caused the gateway outage of 14 March 2025?")
    await page.keyboard.press("Enter")
    await page.locator(".turn .feedback").wait_for()
    await page.locator("#who").click()
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.locator("#welcome-text")).to_contain_text("documents in")
    await expect(page.locator(".turn")).to_have_count(0)
    assert await page.evaluate("sessionStorage.length") == 0
