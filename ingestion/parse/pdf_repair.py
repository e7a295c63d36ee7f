"""A second chance for a PDF whose table of objects or tree of pages is lost, as in a file cut short.

The objects are found by their marks, and those that are pages are hung into a new tree at the end of the
file. Objects packed into streams stay lost: a file that needs those cannot be repaired here.
"""

from __future__ import annotations

import re

_OBJECT = re.compile(rb"(?<![0-9])([0-9]{1,8})[ \r\n\t]+([0-9]{1,5})[ \r\n\t]+obj\b")
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_DICTIONARY = 4_096
_MAX_OBJECTS = 500_000


def repaired(content: bytes) -> bytes | None:
    """The same file with a table of its objects and a flat tree of its pages; None where no page is found."""
    objects: dict[int, tuple[int, int]] = {}
    pages: dict[int, int] = {}
    found = list(_OBJECT.finditer(content))
    if len(found) > _MAX_OBJECTS:
        return None
    for at, mark in enumerate(found):
        number, generation = int(mark[1]), int(mark[2])
        objects[number] = (mark.start(), generation)
        end = found[at + 1].start() if at + 1 < len(found) else len(content)
        if _PAGE.search(content, mark.end(), min(end, mark.end() + _DICTIONARY)):
            pages[number] = generation
        else:
            pages.pop(number, None)
    return _with_tree(content, objects, pages) if pages else None


def _with_tree(content: bytes, objects: dict[int, tuple[int, int]], pages: dict[int, int]) -> bytes:
    tree = max(objects) + 1
    kids = b" ".join(b"%d %d R" % page for page in sorted(pages.items()))
    parts = [
        b"\n%d 0 obj <</Type/Pages/Count %d/Kids[%s]>> endobj\n" % (tree, len(pages), kids),
        b"%d 0 obj <</Type/Catalog/Pages %d 0 R>> endobj\n" % (tree + 1, tree),
    ]
    at = len(content)
    for number, part in enumerate(parts, start=tree):
        objects[number] = (at + part.index(b"%d" % number), 0)
        at += len(part)
    table = b"".join(b"%d 1\n%010d %05d n \n" % (number, *place) for number, place in sorted(objects.items()))
    trailer = b"trailer <</Size %d/Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (tree + 2, tree + 1, at)
    return b"".join((content, *parts, b"xref\n0 1\n0000000000 65535 f \n", table, trailer))
