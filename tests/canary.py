"""Looks for planted text and vectors in every byte that an instance keeps.

Files are read as they lie on the disk. What is compressed in them is looked into as well: columns of Parquet
files are decoded; PostgreSQL's and Redis's compression leave eight literals in a row, so there every eight
characters of the text are looked for. Sockets are not files of text.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.types import Vector

LITERALS = 8
"""So many bytes in a row stay as they are in PostgreSQL's compression, more in Redis's."""
SHORTEST = 2 * LITERALS
COMPRESSED = ("base", "global", "redis")
"""Folders below which values may be compressed."""
SKIPPED = ("receipts", "cache")


@dataclass(frozen=True)
class Canary:
    """`word` is at least 16 letters that occur nowhere else; `vector` is that of its text."""

    word: str
    vector: Vector

    def forms(self) -> list[bytes]:
        """The word, and the vector in each way in which one is written."""
        single, half = (np.asarray(self.vector, kind).tobytes() for kind in ("<f4", "<f2"))
        return [self.word.encode(), single, half, b64encode(single), b64encode(half)]

    def pieces(self) -> list[bytes]:
        assert len(self.word) >= SHORTEST
        word = self.word.encode()
        return [word[i : i + LITERALS] for i in range(len(word) - LITERALS + 1)]


def found(folder: Path, canaries: dict[str, Canary]) -> dict[str, set[str]]:
    """In which folders below this one each canary is."""
    places: dict[str, set[str]] = {name: set() for name in canaries}
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if path.is_file() and within.parts[0] not in SKIPPED:
            contents = [path.name.encode(), *_contents(path)]
            for name, canary in canaries.items():
                wanted = canary.forms()
                if any(part in COMPRESSED for part in within.parts):
                    wanted += canary.pieces()
                if any(one in content for content in contents for one in wanted):
                    places[name].add(within.parts[0])
    return places


def _contents(path: Path) -> Iterator[bytes]:
    try:
        yield path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield from (_bytes(column) for column in table.columns)
    except FileNotFoundError:
        return  # Removed meanwhile.


def _bytes(column: pa.ChunkedArray) -> bytes:
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.combine_chunks().flatten().to_numpy(zero_copy_only=False)).tobytes()
    return "\n".join(map(str, column.to_pylist())).encode()
