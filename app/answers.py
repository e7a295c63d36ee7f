"""L1: finished answers, served again only where nothing that went into them has changed.

The key holds tenant, rights, release, product version, every request field that reaches the model, the
normalised question, the history, the filter and the epoch of its collections. A flip, delete or rights
change raises the epoch, so an old answer is simply never asked for again. A hit is still checked against
the visible revisions before it is served.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from app.context import citation
from app.release import Release
from app.types import Answer, Citation, Question, Usage
from llm.types import Outputs
from retrieval.types import Chunk, Filter, Hit, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A cached answer with the sources that it was made from."""

    hits: tuple[Hit, ...]
    answer: Answer


def rights(where: Filter) -> str:
    """A digest of the caller's groups; the same for the same rights in any order."""
    groups = "*" if where.groups is None else "\n".join(sorted(where.groups))
    return hashlib.sha256(groups.encode()).hexdigest()[:16]


def normalised(text: str) -> str:
    """Unicode NFC and no outer white space; nothing else, since case and wording can change an answer."""
    return unicodedata.normalize("NFC", text).strip()


class Answers:
    def __init__(self, outputs: Outputs, *, product: str) -> None:
        self._outputs = outputs
        self._product = product

    def key(self, question: Question, release: Release, epoch: str) -> str:
        where = question.where
        parts: list[Any] = [
            self._product,
            release.fingerprint,
            where.tenant,
            rights(where),
            epoch,
            sorted(where.collections),
            sorted(where.document_ids),
            sorted([w.field, sorted(map(repr, w.values))] for w in where.where),
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
            "answer": asdict(answer),
            "cited": [c.number for c in kept.answer.citations],
            "hits": [{"score": h.score, "chunk": _plain(h.chunk)} for h in kept.hits],
        }
    )


def _plain(chunk: Chunk) -> dict[str, Any]:
    return {**asdict(chunk), "groups": sorted(chunk.groups)}


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
            "cached": "answer",
        }
    )
    return Kept(hits=hits, answer=restored)


def _chunk(raw: dict[str, Any]) -> Chunk:
    return Chunk(**{**raw, "groups": frozenset(raw["groups"]), "span": Span(**raw["span"])})


def _citations(hits: Sequence[Hit], numbers: Sequence[int]) -> tuple[Citation, ...]:
    return tuple(citation(n, hits[n - 1].chunk) for n in numbers)
