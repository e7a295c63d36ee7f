"""DOC files made here byte by byte, as nothing that writes them is at hand."""

from __future__ import annotations

import random
import struct

import pytest

from ingestion.errors import Quarantined, UnsupportedType
from tests.packages import outline, read

SECTOR, END, FREE, FAT = 512, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
TEXT_AT, PAPX_PAGE, STREAM = 0x400, 14, 8192


def container(streams: dict[str, bytes]) -> bytes:
    """A compound file: a sector of allocation, one of directory, then the streams."""
    chain, body, entries = [FAT, END], b"", [entry("Root Entry", 5, 1, END, 0)]
    for number, (name, data) in enumerate(streams.items(), 1):
        first, count = len(chain), STREAM // SECTOR
        chain += [*range(first + 1, first + count), END]
        body += data.ljust(STREAM, b"\0")
        right = number + 1 if number < len(streams) else FREE
        entries.append(entry(name, 2, FREE, first, STREAM, right))
    chain += [FREE] * (SECTOR // 4 - len(chain))
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H", 0x3E, 3, 0xFFFE, 9, 6)
    head += bytes(6) + struct.pack("<9I", 0, 1, 1, 0, 4096, END, 0, END, 0) + struct.pack("<I", 0)
    directory = b"".join(entries).ljust(SECTOR, b"\0")
    return head.ljust(SECTOR, b"\xff") + struct.pack("<128I", *chain) + directory + body


def entry(name: str, kind: int, child: int, first: int, size: int, right: int = FREE) -> bytes:
    encoded = name.encode("utf-16-le")
    return (
        encoded.ljust(64, b"\0")
        + struct.pack("<HBB3I", len(encoded) + 2, kind, 1, FREE, right, child)
        + bytes(36)
        + struct.pack("<IQ", first, size)
    )


def word(paragraphs: list[tuple[str, bytes]], notes: str = "", flags: int = 0, version: int = 0xC1) -> bytes:
    """Paragraphs with their marks, and each's style and changes as they are stored."""
    text = "".join(p for p, _ in paragraphs)
    whole = (text + notes).encode("cp1252")
    fib = bytearray(STREAM)
    struct.pack_into("<HH", fib, 0, 0xA5EC, version)
    struct.pack_into("<H", fib, 0x0A, flags)
    struct.pack_into("<7I", fib, 0x4C, len(text), len(notes), 0, 0, 0, 0, 0)
    fib[TEXT_AT : TEXT_AT + len(whole)] = whole
    starts, offset, page = [TEXT_AT], SECTOR - 2, bytearray(SECTOR)
    for n, (part, stored) in enumerate(paragraphs):
        starts.append(starts[-1] + len(part))
        data = b"\0" + bytes([(len(stored) + 1) // 2]) + stored
        offset = (offset - len(data)) // 2 * 2
        page[offset : offset + len(data)] = data
        page[4 * (len(paragraphs) + 1) + 13 * n] = offset // 2
    struct.pack_into(f"<{len(starts)}I", page, 0, *starts)
    page[-1] = len(paragraphs)
    fib[PAPX_PAGE * SECTOR : (PAPX_PAGE + 1) * SECTOR] = page
    places = struct.pack("<IIHIH", 0, len(whole), 0, TEXT_AT * 2 | 0x40000000, 0)
    clx = b"\x02" + struct.pack("<I", len(places)) + places
    bins = struct.pack("<3I", TEXT_AT, starts[-1], PAPX_PAGE)
    struct.pack_into("<II", fib, 0x1A2, 0, len(clx))
    struct.pack_into("<II", fib, 0x102, len(clx), len(bins))
    return container({"WordDocument": bytes(fib), "0Table": clx + bins})


def style(number: int = 0, *changes: tuple[int, int]) -> bytes:
    stored = struct.pack("<H", number)
    for code, value in changes:
        stored += struct.pack("<H", code) + (bytes([value]) if code >> 13 == 1 else struct.pack("<H", value))
    return stored


IN, ROW, LIST = (0x2416, 1), (0x2417, 1), (0x460B, 1)
GUIDE = [
    ("Guide\r", style(1)),
    ("See \x13 HYPERLINK \"x\" \x14the page\x15, caf\xe9\x0bor call.\r", style()),
    ("first\r", style(0, LIST)),
    ("second\r", style(0, LIST, (0x260A, 1))),
    ("Name\x07", style(0, IN)),
    ("Two\r", style(0, IN)),
    ("lines\x07", style(0, IN)),
    ("\x07", style(0, IN, ROW)),
    ("a\x07", style(0, IN)),
    ("\x07", style(0, IN)),
    ("\x07", style(0, IN, ROW)),
    ("End.\r", style()),
]  # fmt: skip


def test_headings_lists_tables_and_notes_are_read_and_the_instructions_of_fields_are_not() -> None:
    parsed = read(word(GUIDE, notes="A note.\r"), "a.doc")
    assert parsed.title == "Guide"
    assert outline(parsed) == [
        ("heading", 1, "Guide"),
        ("paragraph", 0, "See the page, café\nor call."),
        ("list", 0, "- first\n  - second"),
        ("table", 0, "| Name | Two lines |\n| --- | --- |\n| a |  |"),
        ("paragraph", 0, "End."),
        ("paragraph", 0, "A note."),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (word(GUIDE, flags=0x0100), "encrypted"),
        (word(GUIDE, version=0x65), "damaged"),
        (word([("\r", style())]), "empty"),
        (word(GUIDE)[: 4 * SECTOR], "damaged"),
    ],
    ids=["password", "word 95", "empty", "truncated"],
)
def test_what_cannot_be_read_is_told_with_its_reason(content: bytes, reason: str) -> None:
    marked = content + "WordDocument".encode("utf-16-le")
    with pytest.raises(Quarantined) as caught:
        read(marked, "a.doc")
    assert caught.value.reason == reason


def test_a_file_with_any_byte_changed_ends_in_text_or_a_typed_reason() -> None:
    content, chance = word(GUIDE), random.Random(5)
    ends: set[str] = set()
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(8):
            at = chance.choice((chance.randrange(SECTOR, 3 * SECTOR), chance.randrange(len(changed))))
            changed[at] = chance.randrange(256)
        try:
            ends.add("text" if read(bytes(changed), "a.doc").blocks else "nothing")
        except Quarantined as error:
            ends.add(error.reason)
        except UnsupportedType:
            ends.add("unsupported_type")
    assert "text" in ends
    assert ends <= {"text", "damaged", "encrypted", "empty", "too_large", "unsupported_type"}
