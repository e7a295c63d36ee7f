"""The text of a document around a place in it, as a reader who follows a citation wants it.

Extracted text is kept nowhere but in the passages of the index, so it is put together from theirs: each says
which characters of the document it holds. Between two of them there is only white space, of which the length
is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingestion.errors import NotFound
from retrieval.search import Index
from retrieval.types import Chunk, Filter, Span

_WAYS = 32
"""Passages looked at in each step of a search for the one at a place: three steps for 20 000."""
_AT_ONCE = 16
_ROW = re.compile(r"\||[-*•] |\d{1,3}[.)] ")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """`text` is what `span` holds, `before` and `after` what stands around it. `chunk` is the passage that
    the place begins in."""

    chunk: Chunk
    span: Span
    before: str
    text: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`text` is what `span` holds of a document that is `length` characters long."""

    text: str
    title: str
    span: Span
    length: int


async def read(
    index: Index, where: Filter, document_id: str, span: Span, around: int, *, revision: int | None = None
) -> Excerpt:
    """What `span` holds, with so many characters on either side. `where` names this document alone.

    Raises `NotFound` for a document that `where` does not let through, one that has no such place, and one
    that was replaced since it had this `revision`.
    """
    held = await _held(index, where, document_id)
    if revision not in (None, held.revision):
        raise NotFound("passage", f"{revision}")
    chunks = await held.over(span.start - around, span.end + around)
    here = [chunk for chunk in chunks if chunk.span.start < span.end and span.start < chunk.span.end]
    if not here:
        raise NotFound("passage", f"{document_id} {span.start}-{span.end}")
    text, base = _stitched(chunks), chunks[0].span.start
    start, end = max(0, span.start - base), min(span.end - base, len(text))
    return Excerpt(
        chunk=here[0],
        span=Span(base + start, base + end),
        before=text[max(0, start - around) : start],
        text=text[start:end],
        after=text[end : end + around],
    )


async def page(index: Index, where: Filter, document_id: str, start: int, length: int) -> Page:
    """At most `length` characters from `start` on. `where` names this document alone. From the document's end
    on there are none. Raises `NotFound` for a document that `where` does not let through."""
    held = await _held(index, where, document_id)
    whole = await held.length()
    end = min(start + length, whole)
    if start >= end:
        return Page(text="", title="", span=Span(whole, whole), length=whole)
    chunks = await held.over(start, end)
    if not chunks:  # White space that a document begins with is in no passage.
        return Page(text="", title="", span=Span(start, end), length=whole)
    text, base = _stitched(chunks), chunks[0].span.start
    begin = max(start, base)
    return Page(
        text=text[begin - base : end - base], title=chunks[0].title, span=Span(begin, end), length=whole
    )


async def _held(index: Index, where: Filter, document_id: str) -> _Chunks:
    contents = await index.visibility.contents(index.generation, where, 1)
    if not contents:
        raise NotFound("document", document_id)
    [(_, visible, count)] = contents
    return _Chunks(index, where.tenant, document_id, visible, count)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The passages of one revision, which lie in the order of their numbers."""

    index: Index
    tenant: str
    document_id: str
    revision: int
    count: int

    async def length(self) -> int:
        """Characters of the text up to the end of its last passage."""
        if not self.count:
            return 0
        [last] = await self._read([self.count - 1])
        return last.span.end

    async def over(self, start: int, end: int) -> list[Chunk]:
        """Those that hold characters `start` to `end`, at most one before them."""
        found: list[Chunk] = []
        for at in range(await self._last_before(start), self.count, _AT_ONCE):
            read = await self._read(range(at, min(at + _AT_ONCE, self.count)))
            found += [chunk for chunk in read if chunk.span.start < end]
            if read[-1].span.end >= end:
                break
        return found

    async def _last_before(self, at: int) -> int:
        """The number of the last passage that begins at or before this character, 0 where none does."""
        low, high = 0, self.count
        while high - low > 1:
            tried = range(low + 1, high, max(1, (high - low) // _WAYS))
            starts = {chunk.ordinal: chunk.span.start for chunk in await self._read(tried)}
            low = max((number for number, start in starts.items() if start <= at), default=low)
            high = min((number for number, start in starts.items() if start > at), default=high)
        return low

    async def _read(self, ordinals: Sequence[int]) -> list[Chunk]:
        ids = [f"{self.revision}-{n}" for n in ordinals]
        chunks = await self.index.store.read(self.index.generation, self.tenant, ids)
        if len(chunks) < len(ids):  # It was replaced or deleted just now.
            raise NotFound("document", self.document_id)
        return sorted(chunks, key=lambda chunk: chunk.ordinal)


def _stitched(chunks: Iterable[Chunk]) -> str:
    """The text from the first to the last of these, character for character."""
    text, base = "", None
    for chunk in chunks:
        own = chunk.text[chunk.lead :]
        base = chunk.span.start if base is None else base
        gap = chunk.span.start - base - len(text)
        text += _blank(gap, own) + own[max(0, -gap) :]
    return text


def _blank(length: int, following: str) -> str:
    """White space of this length, as it most likely was."""
    if length == 1:
        return "\n" if _ROW.match(following) else " "
    return "\n\n".rjust(length) if length > 0 else ""
