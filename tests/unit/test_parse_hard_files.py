"""Real files that break parsers, through the sandbox: each ends as its label says, in bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eval.bench.files import made
from eval.bench.labels import Labelled, fault, labelled
from ingestion.sandbox import Sandbox

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "hard-files"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="hard-files: ../shared/data is absent")


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    opened = Sandbox(timeout=20.0, memory=2**30)
    yield opened
    await opened.close()


@pytest.mark.parametrize("label", labelled(FOLDER) if FOLDER.is_dir() else [], ids=lambda one: one.path.name)
async def test_a_hard_file_ends_as_its_label_says(sandbox: Sandbox, label: Labelled) -> None:
    reading = await sandbox.read(label.path.read_bytes(), label.path.name, None)
    assert fault(label, made(reading)) is None
