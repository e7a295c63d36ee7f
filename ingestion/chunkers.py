"""Chunkers, by the names that releases give them (`[index] chunker`).

What a chunker makes of a text never changes under the same name, because index generations are named after
it: another behaviour is another name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ingestion.chunk import chunk
from ingestion.tokens import TokenSpans
from ingestion.types import Parsed, Piece
from retrieval.types import IndexSpec

Chunker = Callable[[Parsed, IndexSpec, str, TokenSpans, int], list[Piece]]
"""Given a document, its index, its title, the embedder's tokens and how many of them it reads at once: the
passages in the order of the text. Each is an exact slice of it, behind the names of a table's columns where
these are said again; with prefix, header and special tokens it fits the window; together they hold every
token of the text."""

CHUNKERS: Mapping[str, Chunker] = MappingProxyType({"structure": chunk})
