"""Summaries: map over sections side by side, reduce, with citations that survive both steps.

A section is as many consecutive passages as a prompt takes. A section's summary cites its passages, and
what is reduced is the sentences under the passages they cite. Outputs are kept by what a section says, not
by revision: after a document has changed, only the sections that changed are summarized again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from app import context, deadline
from app.answers import rights
from app.coverage import coverage
from app.errors import NothingToSummarize, SourceChanged, TooMuchToSummarize
from app.sections import Section, condensed, numbered, paragraphs, sections, squeezed
from app.serving import Current, Serving, Stages, degraded
from app.speech import Speech
from app.support import Reading, checks
from app.types import Progress, Summary, SummaryEvent, SummaryRequest, Usage
from llm.language import LANGUAGES, detect
from llm.prompts import render_passages
from llm.types import Call, Delta, Passage, Scope
from retrieval.types import Chunk, Filter, Store, Visibility

MOST_CHUNKS = 5_000
LONGER = 1.2
"""How many times the words asked for a summary may have."""


@dataclass(slots=True)
class _Run:
    """What one request has gathered so far. Passages are numbered over all of `chunks`, from 1."""

    request: SummaryRequest
    serving: Serving
    chunks: tuple[Chunk, ...]
    models: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def budget(self) -> int:
        return self.serving.release.body.context.max_characters

    def sources(self, section: Section) -> list[Chunk]:
        return [self.chunks[passage.number - 1] for passage in section]

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
        self._reading = Reading()
        self._product = product
        self._concurrency = concurrency

    async def summarize(self, request: SummaryRequest) -> AsyncGenerator[SummaryEvent, None]:
        stages, serving = Stages(), self._current()
        async with deadline.within(request.deadline, "reading the documents"):
            with stages.measure("read"):
                chunks = await self._chunks(request, serving)
        run = _Run(request=request, serving=serving, chunks=chunks)
        first = groups = sections(context.passages(chunks), run.budget)
        with stages.measure("map"):
            while len(groups) > 1:
                shorter: list[Passage] = []
                async with aclosing(self._map(run, groups)) as parts:
                    async for done, part in parts:
                        yield Progress(done, len(groups))
                        shorter.extend(part)
                shorter.sort(key=lambda passage: passage.number)
                smaller = sections(shorter, run.budget)
                groups = smaller if len(smaller) < len(groups) else [squeezed(shorter, run.budget)]
        last = groups[0] if groups else ()
        said = self._speech(run, last)
        async with said:
            with stages.measure("reduce"):
                async with aclosing(self._stream(run, last)) as deltas:
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
        texts = [chunk.text for chunk in run.chunks]
        sentences = [said.text[one.start : one.end] for one in said.claims]
        return Summary(
            text=said.text,
            citations=tuple(context.citation(n, sources[n - 1]) for n in said.cited),
            support=said.support,
            coverage=await asyncio.to_thread(coverage, texts, sentences),
            sections_cited=_sections_cited(first, cited),
            release=run.serving.release.id,
            degraded=degraded(_models(run), said.degraded, _language(run.request, said.text)),
            stages=stages.seconds,
            usage=Usage(prompt_tokens=run.prompt_tokens, output_tokens=run.output_tokens),
            model=run.models[-1],
        )

    async def _chunks(self, request: SummaryRequest, serving: Serving) -> tuple[Chunk, ...]:
        if request.text is not None:
            chunks = paragraphs(request.text, request.where.tenant)
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
        self, run: _Run, groups: Sequence[Section]
    ) -> AsyncGenerator[tuple[int, list[Passage]], None]:
        """Summaries of the sections as they are done, as passages under the numbers they cite."""
        turn = asyncio.Semaphore(self._concurrency)

        async def one(group: Section) -> list[Passage]:
            async with turn, aclosing(self._stream(run, group)) as deltas:
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

    async def _stream(self, run: _Run, group: Section) -> AsyncGenerator[Delta, None]:
        last: Delta | None = None
        try:
            async with aclosing(run.serving.model.stream(self._call(run, group))) as deltas:
                async for delta in deltas:
                    last = delta
                    yield delta
        finally:
            if last is not None:
                run.count(last)

    def _call(self, run: _Run, group: Section) -> Call:
        request, release, sources = run.request, run.serving.release, run.sources(group)
        language = LANGUAGES[request.language].name if request.language else ""
        prompt = release.summarize.render(
            passages=render_passages(numbered(group)),
            max_words=str(request.max_words),
            focus=request.focus or "",
            language=language,
        )
        return Call(
            prompt=prompt,
            sampling=replace(release.sampling, max_tokens=min(4 * request.max_words, 4_096)),
            scope=Scope(
                tenant=request.where.tenant,
                rights=rights(request.where),
                release=f"{release.fingerprint}/{self._product}",
                evidence=tuple(f"{chunk.document_id}/{chunk.content_hash}" for chunk in sources),
                documents=tuple(sorted({chunk.document_id for chunk in sources} - {""})),
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


def _models(run: _Run) -> tuple[str, ...]:
    first = run.serving.first_model
    return tuple(f"model:{name}" for name in dict.fromkeys(run.models) if name != first)


def _language(request: SummaryRequest, text: str) -> tuple[str, ...]:
    """Whether the summary is in another language than was asked for: a model may not be able to translate."""
    return () if request.language is None or detect(text) in (None, request.language) else ("language",)


def _sections_cited(first: Sequence[Section], cited: set[int]) -> float:
    told = sum(any(passage.number in cited for passage in section) for section in first)
    return round(told / len(first), 4) if first else 0.0
