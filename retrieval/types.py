"""The words of search: what is stored, what is asked, what is found.

Imports nothing of the project. Ingestion writes `Row`s, the query path reads `Hit`s; both name a
*generation*, the hash of an `IndexSpec`, so that text embedded or analyzed in two ways never mixes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""Shape (dimension,), L2-normalised."""
Matrix = npt.NDArray[np.float32]
"""Shape (texts, dimension), rows L2-normalised."""

Scalar = str | int | float | bool
MetadataValue = Scalar | list[str]
Metadata = Mapping[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` (included) to `end` (excluded) of the document's extracted text, 0-based."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One passage of one revision of one document.

    `id` is `{revision}-{ordinal}`: revisions come from one global sequence, so it is unique over all
    tenants and never reused. `page` is 1-based, None where the format has no pages. `span` is its place in
    the document's text; before it, `text` may say the names of a table's columns again. `groups` empty
    means every member of the tenant may read it.
    """

    id: str
    tenant: str
    collection: str
    document_id: str
    revision: int
    ordinal: int
    content_hash: str
    title: str
    heading: str
    text: str
    page: int | None
    span: Span
    groups: frozenset[str]
    metadata: Metadata

    @property
    def lead(self) -> int:
        """Characters of `text` before what `span` holds of the document."""
        return max(0, len(self.text) - (self.span.end - self.span.start))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A chunk as a store holds it: with its vector and its analyzed terms (space-separated)."""

    chunk: Chunk
    vector: Vector
    terms: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value under `field` equals one of `values`, or is a list that holds one.

    Numbers are equal by value (1 and 1.0); true and false are no numbers; a string equals only itself."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The value under `field` lies between the bounds, of which there is at least one.

    Bounds are all numbers or all dates. Numbers are compared by value. A date is the text of an ISO 8601
    date (`2024-03-01`) or date-time (`2024-03-01T09:30:00+01:00`), in a document as in a bound, and means
    its first instant, in UTC where it names no offset, to the microsecond. Any other value, a list too, is
    in no range."""

    field: str
    gt: int | float | str | None = None
    gte: int | float | str | None = None
    lt: int | float | str | None = None
    lte: int | float | str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The document has a value under `field`, be it an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever the condition does not hold for, documents without its field included."""

    condition: Condition


Condition = OneOf | Range | Exists | And | Or | Not
"""What a document's metadata must be like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Whose text, and which of it. There is no default tenant and no default rights.

    `groups` None means unrestricted (administrators); otherwise a document is readable when it names
    no group or shares one. Empty `collections` and `document_ids` mean all.
    """

    tenant: str
    groups: frozenset[str] | None
    collections: tuple[str, ...] = ()
    document_ids: tuple[str, ...] = ()
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class Dense:
    """Nearest neighbours by cosine; scores in [-1, 1], higher is better."""

    vector: Vector


@dataclass(frozen=True, slots=True)
class Keyword:
    """BM25 over analyzed terms; scores above 0, higher is better (adapters correct a store's sign)."""

    terms: str


Query = Dense | Keyword


class Hit(NamedTuple):
    """A found passage. `vector` is its row's, which every store's search brings along; hits are equal without
    it. A tuple, since a search makes a hundred and a frozen dataclass takes three times as long."""

    chunk: Chunk
    score: float
    vector: Vector | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hit) and (self.chunk, self.score) == (other.chunk, other.score)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.chunk.id, self.score))

    def __repr__(self) -> str:
        return f"Hit(chunk={self.chunk!r}, score={self.score!r})"


hit_of: Callable[[tuple[Chunk, float, Vector | None]], Hit] = partial(tuple.__new__, Hit)
"""A `Hit` of its three parts, in half the time that its own constructor takes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first, and what it had to do without."""

    hits: tuple[Hit, ...]
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """Everything that decides what rows look like. Its hash names the generation.

    `embedder` is the artefact hash of the model's weights and tokenizer; `header_template` is put before
    the chunk's text when it is embedded and analyzed (fields `{title}` and `{heading}`); `document_prefix`
    before that when it is embedded. The chunks of a long document have up to `long_tokens`, neighbours
    sharing `long_overlap`; 0 is as in any other.
    """

    embedder: str
    dimension: int
    metric: Literal["cosine"] = "cosine"
    chunker: str
    chunk_tokens: int
    chunk_overlap: int
    header_template: str
    analyzer: str
    parser: str
    long_tokens: int = 0
    long_overlap: int = 0
    document_prefix: str = ""

    @property
    def fields(self) -> dict[str, str | int]:
        """What is hashed and stored. Without a prefix there is none, as in indexes from before there were
        any: they keep their names."""
        found: dict[str, str | int] = asdict(self)
        if not self.document_prefix:
            del found["document_prefix"]
        return found

    @property
    def generation(self) -> str:
        body = json.dumps(self.fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """How to search, from the release.

    `candidates` are taken from each arm; `dense_weight` in [0, 1] weighs min-max-normalised dense against
    keyword scores, and `foreign_weight` takes its place for a question in none of the embedder's `languages`
    (Snowball's names; none named means that it knows every language). The best `smoothing_depth` then lend
    each other score with weight `smoothing`, and the index's reranker puts the best `rerank` in order.
    """

    limit: int
    candidates: int
    dense_weight: float
    languages: tuple[str, ...] = ()
    foreign_weight: float = 0.0
    smoothing: float = 0.0
    smoothing_depth: int = 50
    rerank: int = 0


Side = Literal["query", "document"]
"""What a text is to an embedder: asked, or searched in."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What a model was trained to read before a question and before a document, such as `query: ` and
    `passage: `."""

    query: str = ""
    document: str = ""

    def of(self, side: Side | None) -> str:
        return "" if side is None else self.query if side == "query" else self.document


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSpec:
    """`artefact` is the SHA-256 over weights and tokenizer; `max_tokens` counts the special ones and those of
    a prefix too. Vectors of texts are the same only where all of it is."""

    name: str
    artefact: str
    dimension: int
    max_tokens: int
    prefixes: Prefixes = Prefixes()


class Encoder(Protocol):
    """An embedding model, which releases with prefixes of their own share: to it a text is a text."""

    @property
    def spec(self) -> EmbedderSpec:
        """Without prefixes."""
        ...

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """Embed texts in the given order. A text longer than the window raises `TextTooLong`."""
        ...

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones."""
        ...


class Embedder(Protocol):
    """A model as a release uses it: questions and documents may have prefixes."""

    @property
    def spec(self) -> EmbedderSpec: ...

    async def embed(self, texts: Sequence[str], side: Side | None) -> Matrix:
        """Embed texts in the given order, each behind the prefix of its side; None takes them as they are.
        One that is longer with it than the window raises `TextTooLong`."""
        ...

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones and without a prefix."""
        ...


class Reranker(Protocol):
    @property
    def name(self) -> str: ...

    async def rerank(self, query: str, texts: Sequence[str], seconds: float) -> Sequence[float]:
        """How well each text answers the query, in [0, 1] and in the given order.

        Raises `RerankerUnavailable` when the model is down or does not answer in so many seconds."""
        ...


class Analyzer(Protocol):
    @property
    def name(self) -> str: ...

    def terms(self, text: str) -> str:
        """Space-separated index terms of a document's text."""
        ...

    def question(self, text: str) -> str:
        """The terms to look for: a text that says the same in any language the analyzer knows shares them."""
        ...


class Store(Protocol):
    """Where rows live. The contract suite in `tests/contract` defines it; `stores/memory` is the oracle.

    Every call raises `StoreUnavailable` when the store cannot be reached in time. A search sees every row
    whose upsert returned before it began. Upsert, search and read of a generation that was not prepared, or
    was dropped, raise `StoreUnavailable`: an index that is gone is a fault, not an empty answer.
    """

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        """Create what the generation needs, if it is not there."""
        ...

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        """Write rows; a row with the same chunk id is replaced, so that a failed call can be repeated.

        Raises `RowInvalid`, and writes nothing, when the store cannot hold one of them."""
        ...

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        """The best `limit` rows that match the filter and are of no revision in `exclude`, best first, those
        of one score by their chunk ids; none for a limit of 0.

        A keyword search finds only rows that share a term with it. Raises `FilterInvalid` for what
        `stores.filters.check` refuses."""
        ...

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        """The tenant's chunks with these ids, in that order; unknown ids are left out."""
        ...

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of the tenant's rows with these chunk ids, by the content hash of each; unknown ids are
        left out."""
        ...

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        """Delete every row of these revisions. Removing what is not there is no error."""
        ...

    async def purge(self, generation: str) -> bool:
        """Take what was removed off the disk too; True when it is gone, False when the store collects it
        later by itself. Rows are found as before all the while. Of a generation that is not there, nothing
        is left."""
        ...

    async def drop(self, generation: str) -> None:
        """Delete the whole generation."""
        ...


class ServedStore(Store, Protocol):
    """A store behind a connection: what every adapter in `stores` is. It connects when it is first used, and
    again when the connection was lost."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when it does not answer now."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the ledger says at one moment: the epoch of a filter's collections, and which of the revisions
    that it was asked about are visible, each with the seconds since all its rows were in the store; infinity
    where that is long ago."""

    epoch: str
    ages: Mapping[int, float]


class Visibility(Protocol):
    """Who may see which revision now. The ledger implements it; stores are never trusted with this."""

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        """Of (document id, revision) pairs, the revisions that are visible in this generation to the
        filter's tenant and groups, and not deleted."""
        ...

    async def epoch(self, where: Filter) -> str:
        """A value that changes with every flip, delete and rights change in the filter's collections: while
        it is the same, what was visible is visible."""
        ...

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        """`epoch` and `visible` at once."""
        ...

    async def all_visible(self, generation: str, where: Filter, limit: int) -> tuple[str, Sequence[int]]:
        """`epoch`, and any `limit` of the revisions that are `visible` at it."""
        ...

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        """(document id, visible revision, its number of chunks) of every document that the filter's
        tenant, groups, collections and document ids let through, by id, at most `limit`."""
        ...
