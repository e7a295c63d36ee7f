"""The arms of a release: they search its index, each alone, and are releases that the product takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.release import DEFAULT_RELEASE, Release, load_release
from eval.searches import DENSE, KEYWORD, arm_toml
from retrieval.types import EmbedderSpec

EMBEDDER = EmbedderSpec(name="any", artefact="any", dimension=2, max_tokens=64)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Not the default's index, candidates nor languages, so that a part that was lost shows."""
    text = DEFAULT_RELEASE.read_text()
    for old, new in [
        ("chunk_tokens = 200", 'chunk_tokens = 96\nheader = "Ü\\t{title}"'),
        ("candidates = 100", "candidates = 60"),
        ('["english"]', '["german"]'),
    ]:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    return load_release(file)


@pytest.mark.parametrize(("arm", "weight"), [(DENSE, 1.0), (KEYWORD, 0.0)])
def test_an_arm_searches_the_same_index_alone(
    release: Release, tmp_path: Path, arm: str, weight: float
) -> None:
    file = tmp_path / f"{arm}.toml"
    file.write_text(arm_toml(arm, release), encoding="utf-8")
    found = load_release(file)
    assert found.name == arm
    assert found.index_spec(EMBEDDER, "1").generation == release.index_spec(EMBEDDER, "1").generation
    assert (found.search.dense_weight, found.search.foreign_weight) == (weight, weight)
    assert found.search.smoothing == 0
    assert found.search.candidates == 60
