"""The words of the service: who asks, what is asked, what flows back.

May import the words of the folders below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm.types import Caching, Message
from retrieval.types import Filter, Hit, Span

Scope = Literal["read", "write", "admin", "operate", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling. `groups` None means every group (scope `admin`, or the local user); `scopes` are all
    that the caller has, those included in others, too."""

    tenant: str
    groups: frozenset[str] | None
    scopes: frozenset[Scope]
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A chat request after the edge: history first, the question last. `where` already carries tenant
    and rights. `deadline` is a time on the event loop's clock."""

    messages: tuple[Message, ...]
    where: Filter
    deadline: float
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    cache: Caching = "use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A source that the answer names as `[number]`. `text` is the whole passage."""

    number: int
    document_id: str
    chunk_id: str
    title: str
    heading: str
    page: int | None
    span: Span
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Sources:
    """What was retrieved and given to the model, in prompt order: number 1 is `hits[0]`."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Token:
    text: str


Verdict = Literal["supported", "weak", "unsupported", "uncited"]
Reason = Literal[
    "quoted", "words", "meaning", "number", "denial", "direction", "name", "unlike", "no citation"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpan:
    """Characters `start` to `end` of the document's extracted text."""

    document_id: str
    chunk_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What the sources that a sentence cites do for it. `sentence` counts from 1; `start` and `end` are
    characters of the answer; `score` in [0, 1] estimates how likely they bear it out; `spans` are the
    sentences that do, if any."""

    sentence: int
    start: int
    end: int
    citations: tuple[int, ...]
    verdict: Verdict
    score: float
    reason: Reason
    spans: tuple[SourceSpan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The last event of a stream. `text` is everything the tokens said; `citations` are the sources it
    named, by number; `support` has a verdict for each sentence that could be checked; `answered` is False
    when it says that the documents do not hold it; `stages` maps a stage to its seconds; `model` is the one
    that answered; `epoch` is that of the collections it was made from, None if it rose meanwhile."""

    text: str
    citations: tuple[Citation, ...]
    release: str
    degraded: tuple[str, ...]
    stages: Mapping[str, float]
    usage: Usage
    model: str
    finish: Literal["stop", "length"]
    support: tuple[Support, ...] = ()
    answered: bool = True
    cached: Literal["answer", "output"] | None = None
    epoch: str | None = None


Event = Sources | Token | Support | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRequest:
    """What to summarize: a `text`, the documents of `document_ids`, or everything in `where`.

    `focus` is a question to answer along the way; `max_words` bounds the summary; `language` is the code of
    the one to write in, None that of the passages.
    """

    where: Filter
    deadline: float
    text: str | None = None
    document_ids: tuple[str, ...] = ()
    focus: str | None = None
    max_words: int = 200
    language: str | None = None
    cache: Caching = "use"


@dataclass(frozen=True, slots=True)
class Progress:
    """Sections read so far, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`coverage` in [0, 1] is the share of the text that the summary speaks of (`app.coverage`),
    `sections_cited` the share of sections that it cites."""

    text: str
    citations: tuple[Citation, ...]
    support: tuple[Support, ...]
    coverage: float
    sections_cited: float
    release: str
    degraded: tuple[str, ...]
    stages: Mapping[str, float]
    usage: Usage
    model: str


SummaryEvent = Progress | Token | Support | Summary
