"""Real files that break parsers, through the sandbox: whatever happens is typed and bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse import EXTENSIONS
from ingestion.sandbox import Sandbox
from ingestion.types import Parsed

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "hard-files"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="hard-files: ../shared/data is absent")

KNOWN_GAPS = {
    "064__pdf-invalid-structure__invalid-pdf-structure-pdfminer-one-page.pdf",
    "070__pdf-bad-metadata__unreadablemetadata.pdf",  # A truncated linearized file: PDFium refuses it.
    "090__doc-legacy__legacy_sample.doc",
}
REASONS = {"password": {"encrypted"}, "ocr": {"needs_ocr"}, "empty": {"empty"}, "reject": {"damaged"}}


def manifest() -> list[dict[str, Any]]:
    if not FOLDER.is_dir():
        return []
    listed = json.loads((FOLDER / "MANIFEST.json").read_text())
    entries: list[dict[str, Any]] = listed if isinstance(listed, list) else listed["files"]
    return entries


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(timeout=20.0, memory=2**30)
    yield made
    await made.close()


@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry["file"])
async def test_a_hard_file_ends_as_it_should(sandbox: Sandbox, entry: dict[str, Any]) -> None:
    name = entry["file"]
    content = (FOLDER / name).read_bytes()
    outcome: Parsed | Quarantined | UnsupportedType
    try:
        outcome = await sandbox.parse(content, name, None)
    except (Quarantined, UnsupportedType) as error:
        outcome = error
    if Path(name).suffix not in EXTENSIONS:
        assert isinstance(outcome, UnsupportedType)
    elif entry["expect"] in REASONS:
        assert isinstance(outcome, Quarantined)
        assert outcome.reason in REASONS[entry["expect"]]
    elif entry["expect"] == "text" and name not in KNOWN_GAPS:
        assert isinstance(outcome, Parsed)
        _has_words(outcome, entry)
    else:
        assert not isinstance(outcome, Quarantined) or outcome.reason not in ("timeout", "crashed")


def _has_words(parsed: Parsed, entry: dict[str, Any]) -> None:
    """Most of the words that two other extractors both saw."""
    words = entry["oracle"].get("words_agreed") or []
    text = parsed.text.casefold()
    seen = [word for word in words if word.casefold() in text]
    assert len(seen) >= 0.8 * len(words), sorted(set(words) - set(seen))
