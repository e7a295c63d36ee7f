"""A release file is validated strictly, and its fingerprint changes with everything that it decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.changes import Change, changes
from app.release import DEFAULT_RELEASE, Release, ReleaseInvalid, load_release, parse_release, with_model
from retrieval.types import EmbedderSpec, IndexSpec, Prefixes

SPEC = EmbedderSpec(name="m", artefact="e", dimension=384, max_tokens=256)
BASE = """
name = "r"
[[models]]
name = "extractive"
"""


def _load(folder: Path, text: str) -> Release:
    file = folder / "release.toml"
    file.write_text(text)
    return load_release(file)


def test_the_default_release_loads() -> None:
    assert load_release(DEFAULT_RELEASE).body.models[0].name == "extractive"


def test_what_is_stored_gives_the_same_release_back(tmp_path: Path) -> None:
    release = _load(tmp_path, BASE)
    again = parse_release(release.canonical())
    assert again.fingerprint == release.fingerprint
    assert again.answer.text == release.answer.text


@pytest.mark.parametrize("default", ["[search]\nlimit = 8", "[sampling]\nthinking = false"])
def test_spelling_out_a_default_changes_nothing(tmp_path: Path, default: str) -> None:
    assert _load(tmp_path, BASE).id == _load(tmp_path, f"{BASE}{default}\n").id


@pytest.mark.parametrize(
    "change",
    [
        "[search]\nlimit = 1",
        "[search]\ndense_weight = 0.4",
        "[sampling]\ntemperature = 0.1",
        "[sampling]\nthinking = true",
        "[index]\nchunk_tokens = 64",
        '[index]\nheader = "{title}"',
        "[context]\nmax_characters = 500",
        "[cache]\nttl_seconds = 1",
        '[[models]]\nname = "other"',
    ],
)
def test_every_change_has_another_fingerprint(tmp_path: Path, change: str) -> None:
    assert _load(tmp_path, BASE).fingerprint != _load(tmp_path, f"{BASE}\n{change}\n").fingerprint


def test_releases_and_indexes_from_before_there_were_prefixes_keep_their_names() -> None:
    release, named = load_release(DEFAULT_RELEASE), replace(SPEC, artefact="a" * 64)
    assert release.fingerprint == "20475b37db253d21d8758063015654165254a59da422fc1262420e58f338e690"
    spec = release.index_spec(named, "1")
    assert spec.generation == "d7a654d80949c30d"
    assert "document_prefix" not in spec.fields


def test_a_prefix_of_documents_is_another_index_and_one_of_questions_another_release(tmp_path: Path) -> None:
    none = _load(tmp_path, BASE)
    asked = _load(tmp_path, f'{BASE}\n[search]\nquery_prefix = "query: "\n')
    read = _load(tmp_path, f'{BASE}\n[index]\ndocument_prefix = "passage: "\n')
    assert len({one.fingerprint for one in (none, asked, read)}) == 3
    generations = [one.index_spec(SPEC, "1").generation for one in (none, asked, read)]
    assert generations[0] == generations[1] != generations[2]
    assert (asked.prefixes, read.prefixes) == (Prefixes(query="query: "), Prefixes(document="passage: "))
    again = parse_release(read.canonical())
    assert (again.fingerprint, again.prefixes) == (read.fingerprint, read.prefixes)
    assert IndexSpec(**read.index_spec(SPEC, "1").fields).document_prefix == "passage: "  # type: ignore[arg-type]


def test_what_differs_between_releases_names_the_prefixes(tmp_path: Path) -> None:
    none = _load(tmp_path, BASE)
    both = _load(
        tmp_path,
        f'{BASE}\n[index]\ndocument_prefix = "passage: "\n[search]\nquery_prefix = "query: "\n',
    )
    assert changes(none.canonical(), both.canonical()) == (
        Change("index.document_prefix", None, "passage: "),
        Change("search.query_prefix", None, "query: "),
    )


def test_a_prompt_file_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text(load_release(DEFAULT_RELEASE).answer.text)
    text = BASE + '[prompts]\nanswer = "mine.md"\n'
    same = _load(tmp_path, text)
    assert same.fingerprint == _load(tmp_path, BASE).fingerprint
    (tmp_path / "mine.md").write_text(same.answer.text + "\nBe brief.\n")
    assert _load(tmp_path, text).fingerprint != same.fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'r'", "models"),
        (BASE + "[search]\nlimits = 3\n", "search.limits"),
        (BASE + "[search]\nlimit = 0\n", "search.limit"),
        (BASE + "[search]\nlimit = '3'\n", "search.limit"),
        (BASE + "[index]\nchunk_overlap = 150\n", "chunk_overlap"),
        (BASE + '[prompts]\nanswer = "gone.md"\n', "gone.md"),
        ("name = 'UPPER'\n[[models]]\nname = 'x'\n", "name"),
        ("= nonsense", "TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ReleaseInvalid, match=said):
        _load(tmp_path, text)


@pytest.mark.parametrize("name", ["champion", "standing"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "release.toml"
    path.write_text(DEFAULT_RELEASE.read_text().replace('"default"', f'"{name}"'))
    with pytest.raises(ReleaseInvalid, match=f"name: '{name}' means something else"):
        load_release(path)


def test_a_served_model_goes_in_front(tmp_path: Path) -> None:
    release = with_model(_load(tmp_path, BASE), "big")
    assert [m.name for m in release.body.models] == ["big", "extractive"]
