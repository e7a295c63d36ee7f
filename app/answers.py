"""L1: finished answers, served again only where nothing that went into them has changed.

The key holds tenant, rights, release, product version, every request field that reaches the model, the
normalised question, the history and the filter. The epoch of the filter's collections lies in the value: a
flip, delete or rights change raises it, and whoever reads a value asks the ledger for the epoch and for the
visible revisions in one question, and serves it only when both are as they were.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson

from app.context import citation
from app.release import Release
from app.types import Answer, Citation, Question, SourceSpan, Support, Usage
from llm.types import Outputs
from retrieval.conditions import canonical
from retrieval.types import Chunk, Filter, Hit, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A cached answer with the sources that it was made from, and the epoch of their collections then."""

    hits: tuple[Hit, ...]
    answer: Answer
    epoch: str


def rights(where: Filter) -> str:
    """A digest of the caller's groups; the same for the same rights in any order."""
    return _digest(where.groups)


@lru_cache(maxsize=1024)
def _digest(groups: frozenset[str] | None) -> str:
    named = "*" if groups is None else "\n".join(sorted(groups))
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def normalised(text: str) -> str:
    """Unicode NFC and no outer white space; nothing else, since case and wording can change an answer."""
    return unicodedata.normalize("NFC", text).strip()


class Answers:
    def __init__(self, outputs: Outputs, *, product: str) -> None:
        self._outputs = outputs
        self._product = product

    def key(self, question: Question, release: Release) -> str:
        return self._key(question, release.fingerprint)

    def neutral(self, question: Question) -> str:
        """The same for the same question, whichever release answers it."""
        return self._key(question, "")

    def _key(self, question: Question, fingerprint: str) -> str:
        where = question.where
        parts: list[Any] = [
            self._product,
            fingerprint,
            where.tenant,
            rights(where),
            sorted(where.collections),
            sorted(where.document_ids),
            canonical(where.where),
            [[m.role, normalised(m.content)] for m in question.messages],
            [question.max_tokens, question.temperature, question.top_p, question.seed],
            list(question.stop),
        ]
        return "answer:" + hashlib.sha256(orjson.dumps(parts)).hexdigest()

    async def get(self, key: str) -> Kept | None:
        value = await self._outputs.get(key)
        return None if value is None else _load(value)

    async def put(self, key: str, kept: Kept, ttl: float) -> None:
        documents = {f"{h.chunk.tenant}/{h.chunk.document_id}" for h in kept.hits}
        await self._outputs.put(key, _dump(kept), ttl, sorted(documents))

    async def available(self) -> bool:
        return await self._outputs.available()


def _dump(kept: Kept) -> bytes:
    answer = replace(kept.answer, citations=())
    return orjson.dumps(
        {
            "answer": answer,
            "cited": [c.number for c in kept.answer.citations],
            "hits": [{"score": h.score, "chunk": h.chunk} for h in kept.hits],
            "epoch": kept.epoch,
        },
        default=sorted,
    )


def _load(value: bytes) -> Kept:
    raw = orjson.loads(value)
    hits = tuple(Hit(_chunk(h["chunk"]), h["score"]) for h in raw["hits"])
    answer = raw["answer"]
    restored = Answer(
        **{
            **answer,
            "citations": _citations(hits, raw["cited"]),
            "degraded": tuple(answer["degraded"]),
            "usage": Usage(**answer["usage"]),
            "support": tuple(map(_support, answer["support"])),
            "cached": "answer",
        }
    )
    return Kept(hits=hits, answer=restored, epoch=raw["epoch"])


def _support(raw: dict[str, Any]) -> Support:
    spans = tuple(SourceSpan(**span) for span in raw["spans"])
    return Support(**{**raw, "citations": tuple(raw["citations"]), "spans": spans})


def _chunk(raw: dict[str, Any]) -> Chunk:
    raw["groups"] = frozenset(raw["groups"])
    raw["span"] = Span(**raw["span"])
    return Chunk(**raw)


def _citations(hits: Sequence[Hit], numbers: Sequence[int]) -> tuple[Citation, ...]:
    return tuple(citation(n, hits[n - 1].chunk) for n in numbers)
