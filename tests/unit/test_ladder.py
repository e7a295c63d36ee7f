"""What an answer does without under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.ladder import Rung, rung_of, spared
from app.release import DEFAULT_RELEASE, Release, ReleaseInvalid, load_release

CHAIN = "".join(f'[[models]]\nname = "{name}"\n' for name in ("large", "small", "extractive"))


def release(folder: Path, ladder: str = "") -> Release:
    file = folder / "release.toml"
    file.write_text(f'name = "r"\n{CHAIN}{ladder}')
    return load_release(file)


def test_an_empty_house_answers_in_full() -> None:
    assert rung_of(load_release(DEFAULT_RELEASE), 0.0) == Rung.FULL


def test_the_fuller_the_queue_the_less_is_done(tmp_path: Path) -> None:
    rungs = [rung_of(release(tmp_path), step / 20) for step in range(21)]
    assert rungs == sorted(rungs)
    assert set(rungs) == set(Rung)


def test_a_release_says_when_and_1_is_never(tmp_path: Path) -> None:
    ladder = "[ladder]\nno_rerank = 0.1\nsmaller = 1.0\nextractive = 1.0\nsearch_only = 1.0\n"
    found = release(tmp_path, ladder)
    assert rung_of(found, 0.11) == Rung.NO_RERANK
    assert rung_of(found, 1.0) == Rung.NO_RERANK


def test_a_ladder_that_falls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseInvalid, match="must not fall"):
        release(tmp_path, "[ladder]\nsmaller = 0.9\nextractive = 0.5\n")


def test_each_rung_spares_more_of_the_chain(tmp_path: Path) -> None:
    found = release(tmp_path)
    assert [spared(found, rung) for rung in Rung] == [0, 0, 1, 2, 2]
