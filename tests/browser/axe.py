"""What axe-core finds wrong with a page: names, roles, contrast, order."""

from __future__ import annotations

from importlib.resources import files

from playwright.async_api import Page

_SCRIPT = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


TRIES, PAUSE = 4, 500
"""How often a page with a fault is looked at, and the milliseconds between: it may be half drawn."""


async def faults(page: Page) -> list[tuple[str, list[str]]]:
    """Each rule that stays broken, with the places."""
    await page.evaluate(_SCRIPT)
    found = await _broken(page)
    for _ in range(1, TRIES):
        if not found:
            break
        await page.wait_for_timeout(PAUSE)
        found = await _broken(page)
    return found


async def _broken(page: Page) -> list[tuple[str, list[str]]]:
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [(one["id"], [str(node["target"]) for node in one["nodes"]]) for one in found["violations"]]
