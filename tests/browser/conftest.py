"""Chromium, and a fresh page of the sample instance in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from tests.live import Instance

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# What is waited for comes from a whole instance on the same processor.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        await found.close()


@pytest.fixture
async def page(browser: Browser, sampled: Instance) -> AsyncIterator[Page]:
    """A fresh page at `/`; any error or warning of the browser fails the test."""
    complaints: list[str] = []
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if _complains(said) else None)
    await page.goto(sampled.url)
    yield page
    await context.close()
    assert complaints == []


def _complains(said: ConsoleMessage) -> bool:
    """A refused request is logged by the browser itself, and is no fault of the page."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text
