from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from app.cli.sources import SourcesInvalid, document_id, find
from ingestion.checks import checked
from ingestion.types import NewDocument

READ = frozenset({".md", ".pdf"})


def test_an_id_is_the_path_below_the_folder() -> None:
    assert document_id("policies/paid leave.md") == "policies:paid-leave.md"


def test_long_paths_keep_ids_apart_and_within_bounds() -> None:
    first, second = (document_id(f"{'x' * 300}/{name}.md") for name in "ab")
    assert first != second
    assert len(first) == len(second) == 200


def test_files_of_other_alphabets_keep_apart(tmp_path: Path) -> None:
    for name in ("日本.md", "中国.md"):
        (tmp_path / name).write_text("x")
    assert len({source.id for source in find([str(tmp_path)], READ).sources}) == 2


@pytest.mark.parametrize("path", ["a b.md", "Straße/Übersicht.md", "日本.md", f"{'x' * 300}/a.md"])
def test_the_service_gives_a_file_the_same_id(path: str) -> None:
    [accepted] = checked([NewDocument(content=b"text", filename=path)], 100)
    assert document_id(path) == accepted.id
    assert document_id(unicodedata.normalize("NFD", path)) == accepted.id


def test_a_folder_gives_its_readable_files_and_counts_the_others(tmp_path: Path) -> None:
    for name in ("b.md", "sub/a.PDF", "sub/picture.png", ".git/config.md", "sub/.hidden.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    found = find([str(tmp_path)], READ)
    assert [source.id for source in found.sources] == ["b.md", "sub:a.PDF"]
    assert found.left_out.total() == 1


def test_a_file_that_is_named_is_handed_in_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "odd.png").write_text("x")
    found = find([str(tmp_path / "odd.png")], READ)
    assert ([source.id for source in found.sources], found.left_out.total()) == (["odd.png"], 0)


def test_a_pattern_keeps_the_path_below_its_plain_part(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.md").write_text("x")
    (tmp_path / "b.md").write_text("x")
    sources = find([str(tmp_path / "**" / "*.md")], READ).sources
    assert [source.id for source in sources] == ["b.md", "one:a.md"]


def test_two_files_that_would_become_one_document_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text(folder)
    with pytest.raises(SourcesInvalid, match=r"both become document a\.md"):
        find([str(tmp_path / "one"), str(tmp_path / "two")], READ)


def test_the_same_file_named_twice_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    sources = find([str(tmp_path), str(tmp_path / "a.md")], READ).sources
    assert [source.id for source in sources] == ["a.md"]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourcesInvalid, match=r"no file or folder .*nowhere"):
        find([str(tmp_path / "nowhere")], READ)


def test_what_is_no_file_is_passed_over_in_a_folder_and_kept_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "broken.md").symlink_to(tmp_path / "gone")
    found = find([str(tmp_path)], READ)
    assert [source.id for source in found.sources] == ["a.md"]
    assert sorted(found.passed_over) == [str(tmp_path / "broken.md"), str(tmp_path / "pipe.md")]
    assert find([str(tmp_path / "*.md")], READ) == found
    assert [source.id for source in find([str(tmp_path / "pipe.md")], READ).sources] == ["pipe.md"]


def test_an_empty_path_is_not_the_folder_one_is_in() -> None:
    with pytest.raises(SourcesInvalid, match="empty path"):
        find([""], READ)


def test_a_name_that_is_not_utf_8_is_readable_and_has_an_id(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.md")
    (tmp_path / name).write_text("x")
    [source] = find([str(tmp_path)], READ).sources
    assert source.id.startswith("bad-.md-")
    assert source.name == "bad\ufffd.md"
    assert len(document_id(name * 100)) == 200
