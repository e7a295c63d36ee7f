"""Chromium, and a fresh page of the sample instance in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from app import instance
from app.access import Access
from app.database import open_engine
from app.types import Scope
from tests.live import Instance

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUESTION = "What caused the gateway outage of 14 March 2025?"
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


@pytest.fixture
async def held(page: Page, sampled: Instance) -> AsyncIterator[None]:
    """Documents are accepted, and none is read."""
    await page.request.post(f"{sampled.url}/v1/queue/pause", data={})
    yield
    await page.request.post(f"{sampled.url}/v1/queue/resume", data={})


GiveKey = Callable[..., Awaitable[None]]


@pytest.fixture
async def give_key(page: Page, sampled: Instance) -> AsyncIterator[GiveKey]:
    """Opens the page anew with a new key of these scopes and groups."""
    running = instance.running(sampled.data)
    assert running
    engine = open_engine(running.database_url)

    async def give(*scopes: Scope, groups: Collection[str] = ()) -> None:
        _, secret = await Access(engine).create_key(
            "default", "browser", groups=frozenset(groups), scopes=scopes
        )
        await page.evaluate("(secret) => sessionStorage.setItem('plumbline-key', secret)", secret)
        await page.goto("about:blank")
        await page.goto(sampled.url)

    yield give
    await engine.dispose()


def _complains(said: ConsoleMessage) -> bool:
    """A refused request is logged by the browser itself, and is no fault of the page."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text
