from __future__ import annotations

import io
import zipfile

import pytest

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse import parse
from ingestion.parse.within import MAX_FILES
from tests.packages import outline, package, read, texts


def reason(content: bytes) -> str:
    with pytest.raises(Quarantined) as caught:
        read(content, "a.zip")
    return caught.value.reason


def test_each_file_is_a_section_under_its_name_and_the_unreadable_are_named() -> None:
    content = package(
        {
            "docs/guide.md": "# Guide\n\nText.",
            "docs/": "",
            "data.csv": "a,b\n1,2\n",
            "logo.png": b"\x89PNG\r\n\x1a\n" + bytes(40),
            "__MACOSX/x": "litter",
            "docs/.DS_Store": "litter",
        }
    )
    parsed = read(content, "a.zip")
    assert outline(parsed)[:-1] == [
        ("heading", 1, "docs/guide.md"),
        ("heading", 2, "Guide"),
        ("paragraph", 0, "Text."),
        ("heading", 1, "data.csv"),
        ("table", 0, "| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ]
    assert texts(parsed)[-1].startswith("Not read:\n- logo.png: The file 'logo.png' ")
    assert "PDF (.pdf)" not in parsed.text
    assert [note.split(":")[0] for note in parsed.notes] == ["logo.png was not read"]
    assert "litter" not in parsed.text


def test_an_archive_in_an_archive_is_opened_and_one_in_that_is_not() -> None:
    inner = package({"deep.zip": package({"deepest.zip": package({"x.txt": "too deep"}), "b.txt": "third"})})
    parsed = read(package({"one.zip": inner, "a.txt": "first"}), "a.zip")
    assert "first" in parsed.text
    assert "too deep" not in parsed.text
    assert "Not read:" in parsed.text


def test_what_would_unpack_to_far_more_is_refused_before_it_is_unpacked() -> None:
    bomb = package({"zeros.txt": bytes(40 * 2**20)})
    assert len(bomb) < 2**20
    assert reason(bomb) == "too_large"
    nested = read(package({"bomb.zip": bomb, "a.txt": "fine"}), "a.zip")
    assert "would unpack to" in nested.text


def test_too_many_files_are_refused() -> None:
    assert reason(package({f"{n}.txt": "x" for n in range(MAX_FILES + 1)})) == "too_large"


def test_many_small_archives_share_one_budget() -> None:
    inner = package({f"{n}.txt": "x" for n in range(150)})
    assert reason(package({f"{n}.zip": inner for n in range(20)})) == "too_large"


def test_an_archive_of_which_nothing_can_be_read_says_so() -> None:
    with pytest.raises(UnsupportedType, match=r"None of the 1 files .* a PNG image"):
        read(package({"a.png": b"\x89PNG\r\n\x1a\n" + bytes(40)}), "a.zip")


def test_a_password_damage_and_emptiness_are_told_apart() -> None:
    content = package({"a.txt": "some text that is long enough to be packed, some text"})
    locked = bytearray(content)
    locked[6] |= 1
    locked[content.index(b"PK\x01\x02") + 8] |= 1
    assert reason(bytes(locked)) == "encrypted"
    assert reason(content[: len(content) // 2]) == "damaged"
    assert reason(package({})) == "empty"


def test_a_damaged_file_does_not_take_the_others_with_it() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("bad.txt", "bad bad bad")
        made.writestr("good.txt", "good")
    parsed = read(out.getvalue().replace(b"bad bad bad", b"bad BAD bad", 1), "a.zip")
    assert texts(parsed)[1] == "good"
    assert "bad.txt: it is damaged (BadZipFile)" in parsed.text


def test_a_name_in_utf_8_is_read_also_where_the_archive_does_not_say_so() -> None:
    name = "Übersicht.txt"
    content = bytearray(package({name: "x"}))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags + 1] &= ~0x08
    assert texts(read(bytes(content), "a.zip"))[0] == name


def test_the_place_is_told_down_to_the_part_of_the_file_within() -> None:
    told: list[str] = []
    parse(package({"x.csv": "a,b\n1,2\n"}), "a.zip", None, told.append)
    assert told == ["file 1", "x.csv", "x.csv, row 1"]
