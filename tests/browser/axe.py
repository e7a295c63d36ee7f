"""What axe-core finds wrong with a page: names, roles, contrast, order."""

from __future__ import annotations

from importlib.resources import files

from playwright.async_api import Page

_SCRIPT = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


async def faults(page: Page) -> list[tuple[str, list[str]]]:
    """Each rule that is broken, with the places."""
    await page.evaluate(_SCRIPT)
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [(one["id"], [str(node["target"]) for node in one["nodes"]]) for one in found["violations"]]
