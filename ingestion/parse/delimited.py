"""CSV and TSV: one table, its first row the header. What separates the cells is found by trying.

A row may have more or fewer cells than the others; a quoted cell may go over lines; a quotation mark that is
never closed is taken as itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from ingestion.parse.builder import MAX_CHARACTERS, Builder, clean
from ingestion.parse.formats import charset, extension
from ingestion.parse.text import decode
from ingestion.parse.within import Within
from ingestion.types import Parsed

_SEPARATORS = ",;\t|"
_SAMPLE_ROWS = 200
_SAMPLE_CHARACTERS = 64 * 1024
_DECLARED = re.compile(r"\Asep=(.)\r?\n", re.IGNORECASE)
_NUMBER = re.compile(r"[-+(]?[^\w\s]?\s?\d[\d.,' ]*%?\)?")
_TOLD_ROWS = 10_000


class _Reader(Protocol):
    """What `csv.reader` gives."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


def read(content: bytes, within: Within) -> Parsed:
    text = clean(decode(content, charset(within.media_type)))
    declared = _DECLARED.match(text)
    if declared:
        separator, text = declared[1], text[declared.end() :]
    elif extension(within.filename) in (".tsv", ".tab") and "\t" in text:
        separator = "\t"
    else:
        separator = _separator(text)
    builder = Builder()
    builder.table(_told(_rows(text, separator), within))
    return builder.build(None)


def _told(rows: Iterator[list[str]], within: Within) -> Iterator[list[str]]:
    for at, row in enumerate(rows):
        if at % _TOLD_ROWS == 0:
            within.progress(f"row {at + 1}")
        yield row


def _separator(text: str) -> str:
    """The one that makes the most even rows of the most plausible cells; a comma when none makes columns."""
    best = max(_SEPARATORS, key=lambda separator: _evenness(text, separator))
    return best if _evenness(text, best) > 0 else ","


def _evenness(text: str, separator: str) -> float:
    """From 0 to 1: the share of rows with the commonest number of cells (the first row counts for more, as
    it names the columns) times the share of cells that hold no other separator, unless in a number."""
    sample = text[:_SAMPLE_CHARACTERS]
    rows = [row for row in islice(_reader(sample, separator), _SAMPLE_ROWS) if row]
    if len(rows) > 1 and len(sample) < len(text):
        rows.pop()  # It may be cut.
    if not rows:
        return 0
    (width, count), *_ = Counter(map(len, rows)).most_common(1)
    if max(width, len(rows[0])) < 2:
        return 0
    others = set(_SEPARATORS) - {separator}
    cells = [cell for row in rows for cell in row]
    plausible = sum(not (others & set(cell)) or bool(_NUMBER.fullmatch(cell.strip())) for cell in cells)
    named = 1.0 if len(rows[0]) == width else 0.8
    return count / len(rows) * named * plausible / len(cells)


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return _reader(text, separator, quoted=not _is_open(text, separator))


def _reader(text: str, separator: str, *, quoted: bool = True) -> _Reader:
    csv.field_size_limit(MAX_CHARACTERS)
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        skipinitialspace=f'{separator} "' in text[:_SAMPLE_CHARACTERS],
    )


def _is_open(text: str, separator: str) -> bool:
    """Whether a quotation mark opens a cell that the file never closes."""
    if text.count('"') % 2 == 0:
        return False
    start = last = 0
    reader = _reader(text, separator)
    for _ in reader:
        start, last = last, reader.line_num
    record = islice(io.StringIO(text, newline=""), start, None)
    try:
        for _ in csv.reader(record, delimiter=separator, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False
