"""Summaries: map over sections side by side, reduce, with citations that survive both steps.

A section is as many consecutive passages as a prompt takes and the model's window holds. A section's summary
cites its passages, and what is reduced is the sentences under the passages they cite. Outputs are kept by
what a section says, not by revision: after a document has changed, only the sections that changed are
summarized again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from app import context, deadline
from app.answers import rights
from app.context import TokensOf, untold
from app.coverage import coverage
from app.errors import NothingToSummarize, SourceChanged, TooMuchToSummarize
from app.ladder import Rung, rung_of, spared
from app.sections import Section, condensed, halved, length, numbered, paragraphs, sections, squeezed
from app.serving import Current, Serving, Stages, degraded
from app.speech import Speech
from app.support import Reading, checks
from app.types import Progress, Summary, SummaryEvent, SummaryRequest, Usage
from llm.errors import ContextTooLong
from llm.language import LANGUAGES, detect, not_found
from llm.prompts import render_passages
from llm.types import Call, Delta, Passage, Scope
from retrieval.errors import StoreUnavailable
from retrieval.search import LOST, search
from retrieval.types import Chunk, Filter, Store, Visibility

MOST_CHUNKS = 5_000
NEAREST = 100
"""Passages that are read of more than `MOST_CHUNKS` when there is a focus."""
LONGER = 1.2
"""How many times the words asked for a summary may have."""
SHORTER = 2
"""A section's summary has at most one in so many of its words: what does not shrink cannot be reduced."""
TOKENS_PER_WORD = 4
MOST_TOKENS = 4_096
LEAST_WORDS = 10


@dataclass(frozen=True, slots=True)
class _Read:
    """What is summarized: its passages, the (document, revision)s they are from, and what is missing."""

    chunks: tuple[Chunk, ...]
    revisions: frozenset[tuple[str, int]] = frozenset()
    missing: tuple[str, ...] = ()


@dataclass(slots=True)
class _Run:
    """What one request has gathered so far. Passages are numbered over all of
    `read.chunks`, from 1."""

    request: SummaryRequest
    serving: Serving
    read: _Read
    rung: Rung
    window: int | None
    missing: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def budget(self) -> int:
        return self.serving.release.body.context.max_characters

    @property
    def nothing(self) -> str:
        """What says that there is nothing about the focus, in the language asked for or that of the focus;
        or that it was not looked for as it should be."""
        return not_found(self.request.focus or "", self.request.language, searched=self.searched)

    @property
    def searched(self) -> bool:
        return LOST not in self.read.missing

    def sources(self, section: Section) -> list[Chunk]:
        return [self.read.chunks[passage.number - 1] for passage in section]

    def tokens(self, words: int) -> int:
        """Of an answer with so many words, at most; prompts have half of the window at least."""
        return min(TOKENS_PER_WORD * words, MOST_TOKENS, self.window // 2 if self.window else MOST_TOKENS)

    def count(self, last: Delta) -> None:
        self.models.append(last.model)
        self.prompt_tokens += last.prompt_tokens or 0
        self.output_tokens += last.output_tokens or 0


class Summarizer:
    """`concurrency` bounds how many sections of one request are with the model at once; `tokens` tells
    whether a section fits."""

    def __init__(
        self,
        current: Current,
        visibility: Visibility,
        store: Store,
        *,
        product: str,
        tokens: TokensOf = untold,
        concurrency: int = 8,
    ) -> None:
        self._current = current
        self._visibility = visibility
        self._store = store
        self._reading = Reading()
        self._product = product
        self._tokens = tokens
        self._concurrency = concurrency

    async def summarize(
        self, request: SummaryRequest, pressure: float = 0.0, serving: Serving | None = None
    ) -> AsyncGenerator[SummaryEvent, None]:
        """`pressure` is the share of the queue that is taken: under load smaller models summarize, at last
        the built-in one. `serving` is the release that summarizes, by default the champion."""
        stages, serving = Stages(), serving or self._current()
        async with deadline.within(request.deadline, "reading the documents"):
            with stages.measure("read"):
                run = await self._run(request, serving, pressure)
                first = groups = await self._cut(run, context.passages(run.read.chunks))
        with stages.measure("map"):
            while len(groups) > 1:
                shorter: list[Passage] = []
                async with aclosing(self._map(run, groups)) as parts:
                    async for done, part in parts:
                        yield Progress(done, len(groups))
                        shorter.extend(part)
                shorter.sort(key=lambda passage: passage.number)
                async with deadline.within(request.deadline, "the summary"):
                    groups = await self._regrouped(run, shorter, len(groups))
        last = groups[0] if groups else ()
        said = self._speech(run, last)
        async with said:
            with stages.measure("reduce"):
                async with aclosing(self._stream(run, last, request.max_words)) as deltas:
                    async for delta in deltas:
                        for event in said.hear(delta.text):
                            yield event
                        if said.reached(request.max_words, LONGER):
                            break
            for event in said.finish():
                yield event
            with stages.measure("support"):
                late = await said.checked(request.deadline)
            for event in late:
                yield event
        await self._still_visible(run)
        yield await self._summary(run, said, first, last, stages)

    async def _run(self, request: SummaryRequest, serving: Serving, pressure: float) -> _Run:
        tokens = self._tokens(serving.release)
        return _Run(
            request=request,
            serving=serving,
            read=await self._reading_of(request, serving),
            rung=rung_of(serving.release, pressure),
            window=await tokens.window() if tokens else None,
        )

    async def _cut(self, run: _Run, passages: Sequence[Passage]) -> list[Section]:
        """Sections that fit the release's budget and the window of its first model."""
        turn = asyncio.Semaphore(self._concurrency)
        parts = [self._fitting(run, section, turn) for section in sections(passages, run.budget)]
        return [section for part in await asyncio.gather(*parts) for section in part]

    async def _fitting(self, run: _Run, section: Section, turn: asyncio.Semaphore) -> list[Section]:
        """The section, in parts where the whole does not fit."""
        async with turn:
            halves = None if await self._fits(run, section) else halved(section)
        if halves is None:
            return [section]
        return [part for half in halves for part in await self._fitting(run, half, turn)]

    async def _fits(self, run: _Run, section: Section) -> bool:
        tokens = self._tokens(run.serving.release)
        try:
            if tokens is not None:
                await tokens.require(self._call(run, section, run.request.max_words))
        except ContextTooLong:
            return False
        return True

    async def _regrouped(self, run: _Run, shorter: Sequence[Passage], before: int) -> list[Section]:
        """The summaries of sections in fewer sections; in one, cut short, when there are no fewer."""
        smaller = await self._cut(run, shorter)
        if len(smaller) < before:
            return smaller
        run.missing.append("sections")
        budget = run.budget
        while not await self._fits(run, section := squeezed(shorter, budget)) and len(section) > 1:
            budget //= 2
        return [section]

    def _speech(self, run: _Run, section: Section) -> Speech:
        part, request = run.serving.release.body.answer, run.request
        about = checks(
            self._reading,
            run.sources(section),
            run.serving,
            question=request.focus or "",
            tenant=request.where.tenant,
        )
        return Speech(len(section), part, about)

    async def _summary(
        self, run: _Run, said: Speech, first: Sequence[Section], last: Section, stages: Stages
    ) -> Summary:
        sources = run.sources(last)
        cited = {last[n - 1].number for n in said.cited}
        texts = [chunk.text for chunk in run.read.chunks]
        sentences = [said.text[one.start : one.end] for one in said.claims]
        return Summary(
            text=said.text,
            citations=tuple(context.citation(n, sources[n - 1]) for n in said.cited),
            support=said.support,
            coverage=await asyncio.to_thread(coverage, texts, sentences),
            sections_cited=_sections_cited(first, cited),
            release=run.serving.release.id,
            degraded=degraded(
                run.read.missing,
                tuple(run.missing),
                _models(run),
                said.degraded,
                _language(run.request, said.text),
            ),
            stages=stages.seconds,
            usage=Usage(prompt_tokens=run.prompt_tokens, output_tokens=run.output_tokens),
            model=run.models[-1],
        )

    async def _reading_of(self, request: SummaryRequest, serving: Serving) -> _Read:
        if request.text is not None:
            read = _Read(await asyncio.to_thread(paragraphs, request.text, request.where.tenant))
        else:
            read = await self._read(
                request, serving, replace(request.where, document_ids=request.document_ids)
            )
        if not read.chunks and LOST in read.missing:
            raise StoreUnavailable("The index has lost the passages of what the request names.")
        if not read.chunks:
            raise NothingToSummarize("There is no text to summarize in what the request names.")
        return read

    async def _read(self, request: SummaryRequest, serving: Serving, where: Filter) -> _Read:
        generation = serving.index.generation
        contents = await self._visibility.contents(generation, where, MOST_CHUNKS + 1)
        if sum(count for _, _, count in contents) > MOST_CHUNKS:
            return await self._nearest(request, serving, where)
        ids = [f"{revision}-{n}" for _, revision, count in contents for n in range(count)]
        chunks = tuple(await self._store.read(generation, where.tenant, ids))
        revisions = frozenset((document, revision) for document, revision, _ in contents)
        missing = ("visibility",) if len(chunks) < len(ids) else ()
        return _Read(chunks, revisions, missing + ((LOST,) if serving.index.lost() else ()))

    async def _nearest(self, request: SummaryRequest, serving: Serving, where: Filter) -> _Read:
        """Of more than can be read, the passages that are nearest to the focus."""
        if not request.focus:
            raise TooMuchToSummarize(
                f"More than {MOST_CHUNKS} passages are too many for one summary. Name fewer documents, or a "
                "focus: then the passages nearest to it are summarized."
            )
        params = serving.release.search
        found = await search(serving.index, request.focus, where, params, limit=NEAREST, rerank_seconds=0.0)
        chunks = sorted((hit.chunk for hit in found.hits), key=lambda one: (one.document_id, one.ordinal))
        missing = tuple(name for name in found.degraded if name != "rerank")
        return _Read(tuple(chunks), frozenset((c.document_id, c.revision) for c in chunks), missing)

    async def _map(
        self, run: _Run, groups: Sequence[Section]
    ) -> AsyncGenerator[tuple[int, list[Passage]], None]:
        """Summaries of the sections as they are done, as passages under the numbers they cite."""
        turn = asyncio.Semaphore(self._concurrency)

        async def one(group: Section) -> list[Passage]:
            words = max(LEAST_WORDS, min(run.request.max_words, length(group) // SHORTER))
            async with turn, aclosing(self._stream(run, group, words)) as deltas:
                text = "".join([delta.text async for delta in deltas])
            return condensed(text, tuple(group))

        tasks = [asyncio.create_task(one(group)) for group in groups]
        try:
            for done, finished in enumerate(asyncio.as_completed(tasks), start=1):
                yield done, await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, run: _Run, group: Section, words: int) -> AsyncGenerator[Delta, None]:
        if not group:
            run.models.append(run.serving.first_model)
            yield Delta(text=run.nothing, model=run.serving.first_model, finish="stop")
            return
        last: Delta | None = None
        try:
            async with aclosing(run.serving.model.stream(self._call(run, group, words))) as deltas:
                async for delta in deltas:
                    last = delta
                    yield delta
        finally:
            if last is not None:
                run.count(last)

    def _call(self, run: _Run, group: Section, words: int) -> Call:
        request, release, sources = run.request, run.serving.release, run.sources(group)
        language = LANGUAGES[request.language].name if request.language else ""
        prompt = release.summarize.render(
            passages=render_passages(numbered(group)),
            max_words=str(words),
            focus=request.focus or "",
            language=language,
            not_found=run.nothing,
        )
        return Call(
            prompt=prompt,
            sampling=replace(release.sampling, max_tokens=run.tokens(words)),
            scope=Scope(
                tenant=request.where.tenant,
                rights=rights(request.where),
                release=f"{release.fingerprint}/{self._product}",
                evidence=tuple(f"{chunk.document_id}/{chunk.content_hash}" for chunk in sources),
                documents=tuple(sorted({chunk.document_id for chunk in sources} - {""})),
            ),
            timeout=deadline.left(request.deadline),
            cache=request.cache if run.searched else "off",
            spare=spared(release, run.rung),
        )

    async def _still_visible(self, run: _Run) -> None:
        wanted = run.read.revisions
        if not wanted:
            return
        generation = run.serving.index.generation
        seen = await self._visibility.visible(generation, run.request.where, wanted)
        if any(revision not in seen for _, revision in wanted):
            raise SourceChanged("A document was changed or deleted while it was being summarized. Ask again.")


def _models(run: _Run) -> tuple[str, ...]:
    first = run.serving.first_model
    return tuple(f"model:{name}" for name in dict.fromkeys(run.models) if name != first)


def _language(request: SummaryRequest, text: str) -> tuple[str, ...]:
    """Whether the summary is in another language than was asked for: a model may not be able to translate."""
    return () if request.language is None or detect(text) in (None, request.language) else ("language",)


def _sections_cited(first: Sequence[Section], cited: set[int]) -> float:
    told = sum(any(passage.number in cited for passage in section) for section in first)
    return round(told / len(first), 4) if first else 0.0
