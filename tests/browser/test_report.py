"""The pages of evaluation in a real browser: they read at both widths, run nothing and ask for nothing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from eval.forms import write
from eval.history import write_index
from eval.page.postmortem import postmortem_html
from eval.postmortem import postmortem
from tests.browser.axe import faults
from tests.reports import HOSTILE, hostile_verdict, release, report, trial, verdict

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
PAGES = ("verdict", "hostile", "run", "hostile-run", "postmortem", "index")


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        await found.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write(verdict(), folder / "verdict.json")
    write(hostile_verdict(), folder / "hostile.json")
    write(report(lost=1), folder / "run.json")
    write(report(text=HOSTILE, of=replace(release(), name=HOSTILE)), folder / "hostile-run.json")
    write_index(folder)
    text = postmortem_html(postmortem(trial(first_request=HOSTILE)))
    (folder / "postmortem.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A fresh page; a script that runs, a dialog, a request or a complaint of the browser fails the test."""
    found: list[str] = []
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.on("console", lambda said: found.append(said.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: found.append(dialog.message))
    page.on("request", lambda request: found.append(request.url) if _foreign(request.url) else None)
    yield page
    await context.close()
    assert found == []


def _foreign(url: str) -> bool:
    return not (url.startswith("file:") and url.endswith(".html"))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
async def test_no_page_scrolls_sideways_whatever_it_holds(
    page: Page, folder: Path, name: str, width: int
) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto((folder / f"{name}.html").as_uri())
    overflow = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(overflow) <= 0


async def test_the_verdict_is_on_the_first_screen_of_a_phone(page: Page, folder: Path) -> None:
    await page.set_viewport_size({"width": 390, "height": 700})
    await page.goto((folder / "verdict.html").as_uri())
    for part in ("h1", ".lead", ".verdict li"):
        box = await page.locator(part).first.bounding_box()
        assert box
        assert box["y"] + box["height"] < 700


async def test_rows_become_cards_that_name_their_numbers_on_a_phone(page: Page, folder: Path) -> None:
    await page.set_viewport_size({"width": 390, "height": 700})
    await page.goto((folder / "verdict.html").as_uri())
    cell = page.locator("td[data-label='baseline']").first
    label = await cell.evaluate("node => getComputedStyle(node, '::before').content")
    assert label == '"baseline"'
    plots = page.locator("svg.forest")
    assert await plots.count() == 4
    for index in range(4):
        box = await plots.nth(index).bounding_box()
        assert box
        assert box["width"] > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_what_is_behind_it(page: Page, folder: Path, scheme: str) -> None:
    """WCAG 2 asks for a contrast of 4.5 at this size."""
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto((folder / "verdict.html").as_uri())
    for part in ("h1", ".lead", ".stamp", ".badge", ".soft", ".quote", "figcaption", "summary, code"):
        assert await page.locator(part).first.evaluate(_CONTRAST) >= 4.5, part


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
async def test_no_page_has_a_fault_that_axe_finds(page: Page, folder: Path, name: str, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto((folder / f"{name}.html").as_uri())
    assert await faults(page) == []


async def test_print_shows_what_is_folded_away(page: Page, folder: Path) -> None:
    await page.goto((folder / "hostile.html").as_uri())
    await page.emulate_media(media="print")
    hidden = (
        "() => [...document.querySelectorAll('details svg')].filter(node => !node.checkVisibility()).length"
    )
    assert await page.locator("details svg").count() > 0
    assert await page.evaluate(hidden) == 0


async def test_the_index_leads_to_each_page(page: Page, folder: Path) -> None:
    await page.goto((folder / "index.html").as_uri())
    await page.locator("a[href='verdict.html']").click()
    assert "may not replace" in await page.locator("h1").inner_text()


_CONTRAST = """node => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b]
        .map((value) => value / 255)
        .map((value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [.2126, .7152, .0722][index], 0);
    let behind = node;
    while (rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const both = [getComputedStyle(node).color, getComputedStyle(behind).backgroundColor].map(rgb).map(light);
    return (Math.max(...both) + .05) / (Math.min(...both) + .05);
}"""
