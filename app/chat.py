"""The query path: a question in, sources, tokens and an answer out.

Read `ask` from top to bottom; it is the flow that the README draws. Everything that can fail before the
first token raises, with its own type; after it only `StreamBroken` and `SourceChanged` do.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from app import context, deadline
from app.answers import Answers, Kept, rights
from app.citations import Markers
from app.errors import SourceChanged
from app.rewrite import standalone
from app.serving import Current, Serving, Stages, degraded
from app.types import Answer, Event, Question, Sources, Token, Usage
from llm.prompts import NOT_FOUND, render_passages
from llm.types import Call, Delta, Sampling, Scope
from retrieval.search import search
from retrieval.types import Found, Hit, Visibility


class Chat:
    def __init__(self, current: Current, visibility: Visibility, answers: Answers, *, product: str) -> None:
        self._current = current
        self._visibility = visibility
        self._answers = answers
        self._product = product

    async def ask(self, question: Question) -> AsyncGenerator[Event, None]:
        serving, stages = self._current(), Stages()
        async with deadline.within(question.deadline, "the look-up of a kept answer"):
            with stages.measure("cache"):
                epoch = await self._visibility.epoch(question.where)
                key = self._answers.key(question, serving.release, epoch)
                kept = await self._kept(question, serving, key)
        if kept:
            yield Sources(kept.hits)
            yield Token(kept.answer.text)
            yield replace(kept.answer, stages=stages.seconds)
            return

        found, missing = await self._retrieve(question, serving, stages)
        hits = context.fit(found.hits, serving.release.body.context.max_characters)
        yield Sources(hits)

        markers, said, last = Markers(len(hits)), list[str](), Delta(text="", model="")
        async with aclosing(self._generate(question, serving, hits, stages)) as deltas:
            async for delta in deltas:
                last = delta
                if text := markers.feed(delta.text):
                    said.append(text)
                    yield Token(text)
        if text := markers.finish():
            said.append(text)
            yield Token(text)

        await self._still_visible(question, serving, hits)
        answer = Answer(
            text="".join(said),
            citations=tuple(context.citation(n, hits[n - 1].chunk) for n in sorted(markers.cited)),
            release=serving.release.id,
            degraded=degraded(missing, found.degraded, _model(last, serving), await self._cache(question)),
            stages=stages.seconds,
            usage=Usage(prompt_tokens=last.prompt_tokens or 0, output_tokens=last.output_tokens or 0),
            model=last.model,
            finish=last.finish or "stop",
            cached="output" if last.cached else None,
        )
        await self._keep(question, serving, key, epoch, Kept(hits=hits, answer=answer))
        yield answer

    async def _kept(self, question: Question, serving: Serving, key: str) -> Kept | None:
        """A cached answer all of whose sources can still be seen by this caller."""
        kept = await self._answers.get(key) if question.cache else None
        if kept and await self._visible(question, serving, kept.hits):
            return kept
        return None

    async def _retrieve(
        self, question: Question, serving: Serving, stages: Stages
    ) -> tuple[Found, tuple[str, ...]]:
        async with deadline.within(question.deadline, "retrieval"):
            with stages.measure("rewrite"):
                query, missing = await standalone(question, serving, self._product)
            with stages.measure("search"):
                found = await search(serving.index, query, question.where, serving.release.search)
        return found, missing

    async def _generate(
        self, question: Question, serving: Serving, hits: tuple[Hit, ...], stages: Stages
    ) -> AsyncGenerator[Delta, None]:
        if not hits:
            yield Delta(text=NOT_FOUND, model=serving.first_model, finish="stop")
            return
        begin, first = time.perf_counter(), True
        async with aclosing(serving.model.stream(self._call(question, serving, hits))) as deltas:
            async for delta in deltas:
                if first:
                    stages.add("first_token", time.perf_counter() - begin)
                    first = False
                yield delta
        stages.add("model", time.perf_counter() - begin)

    def _call(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> Call:
        release = serving.release
        chunks = [hit.chunk for hit in hits]
        prompt = release.answer.render(
            passages=render_passages(context.passages(chunks)), question=question.messages[-1].content
        )
        *history, last = prompt.messages
        return Call(
            prompt=replace(prompt, messages=(*history, *question.messages[:-1], last)),
            sampling=_sampling(question, release.sampling),
            scope=Scope(
                tenant=question.where.tenant,
                rights=rights(question.where),
                release=f"{release.fingerprint}/{self._product}",
                evidence=tuple(chunk.id for chunk in chunks),
                documents=tuple(sorted({chunk.document_id for chunk in chunks})),
            ),
            timeout=deadline.left(question.deadline),
            cache=question.cache,
        )

    async def _visible(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> bool:
        wanted = {(hit.chunk.document_id, hit.chunk.revision) for hit in hits}
        if not wanted:
            return True
        seen = await self._visibility.visible(serving.index.generation, question.where, wanted)
        return all(revision in seen for _, revision in wanted)

    async def _still_visible(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> None:
        if not await self._visible(question, serving, hits):
            raise SourceChanged(
                "A source of this answer was changed or deleted while it was being written. Ask again."
            )

    async def _cache(self, question: Question) -> tuple[str, ...]:
        return () if not question.cache or await self._answers.available() else ("cache",)

    async def _keep(self, question: Question, serving: Serving, key: str, epoch: str, kept: Kept) -> None:
        """Keep only complete, undegraded answers, and only if nothing changed since the first look."""
        answer = kept.answer
        if not question.cache or answer.degraded or answer.finish != "stop" or not kept.hits:
            return
        if await self._visibility.epoch(question.where) == epoch:
            await self._answers.put(key, kept, serving.release.body.cache.ttl_seconds)


def _model(last: Delta, serving: Serving) -> tuple[str, ...]:
    return () if last.model == serving.first_model else (f"model:{last.model}",)


def _sampling(question: Question, default: Sampling) -> Sampling:
    return Sampling(
        temperature=default.temperature if question.temperature is None else question.temperature,
        top_p=default.top_p if question.top_p is None else question.top_p,
        max_tokens=min(question.max_tokens or default.max_tokens, default.max_tokens),
        seed=default.seed if question.seed is None else question.seed,
        stop=question.stop,
    )
