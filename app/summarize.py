"""Summaries: map over sections side by side, reduce, with citations that survive both steps.

A section is as many consecutive passages as a prompt takes. Every passage keeps its number through all
steps: a section's summary cites it, and what is reduced is the sentences under the numbers they cite.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from app import context, deadline
from app.answers import rights
from app.citations import Markers
from app.errors import NothingToSummarize, SourceChanged, TooMuchToSummarize
from app.serving import Current, Serving, Stages, degraded
from app.types import Progress, Summary, SummaryEvent, SummaryRequest, Token, Usage
from llm.prompts import render_passages
from llm.types import Call, Delta, Passage, Scope
from retrieval.types import Chunk, Filter, Span, Store, Visibility

MOST_CHUNKS = 5_000
_CITED = re.compile(r"(.+?)((?:\s*\[\d{1,4}\])+)[.!?]?", re.DOTALL)
_SENTENCE = re.compile(r"\S.{0,1200}?(?=(?<=[.!?])\s|\n\s*\n|\Z)|\S.{0,1199}", re.DOTALL)
PASSAGE = 1_200
"""Characters of a passage of text handed in with the request, at most."""


@dataclass(slots=True)
class _Run:
    """What one request has gathered so far."""

    request: SummaryRequest
    serving: Serving
    chunks: tuple[Chunk, ...]
    models: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0

    def count(self, last: Delta) -> None:
        self.models.append(last.model)
        self.prompt_tokens += last.prompt_tokens or 0
        self.output_tokens += last.output_tokens or 0


class Summarizer:
    """`concurrency` bounds how many sections of one request are with the model at once."""

    def __init__(
        self, current: Current, visibility: Visibility, store: Store, *, product: str, concurrency: int = 8
    ) -> None:
        self._current = current
        self._visibility = visibility
        self._store = store
        self._product = product
        self._concurrency = concurrency

    async def summarize(self, request: SummaryRequest) -> AsyncGenerator[SummaryEvent, None]:
        stages, serving = Stages(), self._current()
        async with deadline.within(request.deadline, "reading the documents"):
            with stages.measure("read"):
                chunks = await self._chunks(request, serving)
        run = _Run(request=request, serving=serving, chunks=chunks)
        passages = context.passages(chunks)
        sections = groups = _sections(passages, serving.release.body.context.max_characters)
        with stages.measure("map"):
            while len(groups) > 1:
                condensed: list[Passage] = []
                async with aclosing(self._map(run, groups)) as parts:
                    async for done, part in parts:
                        yield Progress(done, len(groups))
                        condensed.extend(part)
                condensed.sort(key=lambda passage: passage.number)
                smaller = _sections(condensed, _budget(serving))
                groups = smaller if len(smaller) < len(groups) else [_squeezed(condensed, _budget(serving))]
        markers, said = Markers(len(passages)), list[str]()
        with stages.measure("reduce"):
            async with aclosing(self._stream(run, groups[0] if groups else ())) as deltas:
                async for delta in deltas:
                    if text := markers.feed(delta.text):
                        said.append(text)
                        yield Token(text)
        if text := markers.finish():
            said.append(text)
            yield Token(text)
        await self._still_visible(run)
        yield Summary(
            text="".join(said),
            citations=tuple(context.citation(n, chunks[n - 1]) for n in sorted(markers.cited)),
            coverage=_coverage(sections, markers.cited),
            release=serving.release.id,
            degraded=degraded(_models(run)),
            stages=stages.seconds,
            usage=Usage(prompt_tokens=run.prompt_tokens, output_tokens=run.output_tokens),
            model=run.models[-1],
        )

    async def _chunks(self, request: SummaryRequest, serving: Serving) -> tuple[Chunk, ...]:
        if request.text is not None:
            chunks = _paragraphs(request.text, request.where.tenant)
        else:
            chunks = await self._read(serving, replace(request.where, document_ids=request.document_ids))
        if not chunks:
            raise NothingToSummarize("There is no text to summarize in what the request names.")
        return chunks

    async def _read(self, serving: Serving, where: Filter) -> tuple[Chunk, ...]:
        generation = serving.index.generation
        contents = await self._visibility.contents(generation, where, MOST_CHUNKS + 1)
        if sum(count for _, _, count in contents) > MOST_CHUNKS:
            raise TooMuchToSummarize(
                f"More than {MOST_CHUNKS} passages are too many for one summary. Name fewer documents."
            )
        ids = [f"{revision}-{n}" for _, revision, count in contents for n in range(count)]
        return tuple(await self._store.read(generation, where.tenant, ids))

    async def _map(
        self, run: _Run, groups: Sequence[Sequence[Passage]]
    ) -> AsyncGenerator[tuple[int, list[Passage]], None]:
        """Summaries of the sections as they are done, as passages under the numbers they cite."""
        turn = asyncio.Semaphore(self._concurrency)

        async def one(group: Sequence[Passage]) -> list[Passage]:
            async with turn, aclosing(self._stream(run, group)) as deltas:
                text = "".join([delta.text async for delta in deltas])
            return _cited(text, {p.number: p for p in group})

        tasks = [asyncio.create_task(one(group)) for group in groups]
        try:
            for done, finished in enumerate(asyncio.as_completed(tasks), start=1):
                yield done, await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, run: _Run, group: Sequence[Passage]) -> AsyncGenerator[Delta, None]:
        last: Delta | None = None
        async with aclosing(run.serving.model.stream(self._call(run, group))) as deltas:
            async for delta in deltas:
                last = delta
                yield delta
        if last is not None:
            run.count(last)

    def _call(self, run: _Run, group: Sequence[Passage]) -> Call:
        request, release = run.request, run.serving.release
        prompt = release.summarize.render(
            passages=render_passages(group), max_words=str(request.max_words), focus=request.focus or ""
        )
        return Call(
            prompt=prompt,
            sampling=replace(release.sampling, max_tokens=min(4 * request.max_words, 4_096)),
            scope=Scope(
                tenant=request.where.tenant,
                rights=rights(request.where),
                release=f"{release.fingerprint}/{self._product}",
                evidence=tuple(run.chunks[p.number - 1].id for p in group),
                documents=tuple(sorted({run.chunks[p.number - 1].document_id for p in group} - {""})),
            ),
            timeout=deadline.left(request.deadline),
            cache=request.cache,
        )

    async def _still_visible(self, run: _Run) -> None:
        wanted = {(c.document_id, c.revision) for c in run.chunks if c.revision}
        if not wanted:
            return
        generation = run.serving.index.generation
        seen = await self._visibility.visible(generation, run.request.where, wanted)
        if any(revision not in seen for _, revision in wanted):
            raise SourceChanged("A document was changed or deleted while it was being summarized. Ask again.")


def _budget(serving: Serving) -> int:
    return serving.release.body.context.max_characters


def _models(run: _Run) -> tuple[str, ...]:
    first = run.serving.first_model
    return tuple(f"model:{name}" for name in dict.fromkeys(run.models) if name != first)


def _sections(passages: Sequence[Passage], budget: int) -> list[tuple[Passage, ...]]:
    """Consecutive passages in groups whose text fits the budget, each of at least one."""
    groups: list[list[Passage]] = []
    used = 0
    for passage in passages:
        if not groups or used + len(passage.text) > budget:
            groups.append([])
            used = 0
        groups[-1].append(passage)
        used += len(passage.text)
    return [tuple(group) for group in groups]


def _cited(text: str, group: dict[int, Passage]) -> list[Passage]:
    """The sentences of a section's summary, under the first number that each cites."""
    found: dict[int, Passage] = {}
    for sentence, marks in _CITED.findall(text):
        numbers = [n for n in map(int, re.findall(r"\d+", marks)) if n in group]
        if numbers:
            known = found.get(numbers[0], replace(group[numbers[0]], text=""))
            found[numbers[0]] = replace(known, text=f"{known.text} {sentence.strip(' .')}.".strip())
    if not found and text.strip():
        first = min(group)
        found[first] = replace(group[first], text=text.strip())
    return list(found.values())


def _squeezed(passages: Sequence[Passage], budget: int) -> tuple[Passage, ...]:
    """For a model that does not shorten: an equal share of the budget for every passage."""
    share = max(80, budget // len(passages))
    return tuple(replace(passage, text=passage.text[:share]) for passage in passages)


def _coverage(sections: Sequence[Sequence[Passage]], cited: Sequence[int]) -> float:
    wanted = set(cited)
    covered = sum(any(p.number in wanted for p in section) for section in sections)
    return round(covered / len(sections), 4) if sections else 0.0


def _paragraphs(text: str, tenant: str) -> tuple[Chunk, ...]:
    """Text handed in with the request, as passages that belong to no document."""
    return tuple(
        Chunk(
            id=f"text-{ordinal}",
            tenant=tenant,
            collection="",
            document_id="",
            revision=0,
            ordinal=ordinal,
            content_hash="",
            title="Text",
            heading="",
            text=text[span.start : span.end],
            page=None,
            span=span,
            groups=frozenset(),
            metadata={},
        )
        for ordinal, span in enumerate(_packed(text))
    )


def _packed(text: str) -> list[Span]:
    """Sentences packed into spans of at most `PASSAGE` characters; a blank line ends a long enough one."""
    spans: list[Span] = []
    for match in _SENTENCE.finditer(text):
        last = spans[-1] if spans else None
        if last and match.end() - last.start <= PASSAGE and not _breaks(text, last, match.start()):
            spans[-1] = Span(last.start, match.end())
        else:
            spans.append(Span(match.start(), match.end()))
    return spans


def _breaks(text: str, last: Span, start: int) -> bool:
    return last.end - last.start > PASSAGE // 4 and text[last.end : start].count("\n") > 1
