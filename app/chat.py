"""The query path: a question in, sources, tokens and an answer out.

Read `ask` from top to bottom; it is the flow that the README draws. Everything that can fail before the
first token raises, with its own type; after it only `StreamBroken` and `SourceChanged` do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from app import context, deadline, searchonly
from app.admission import TakeTurn, unhurried
from app.answers import Answers, Kept, rights
from app.context import TokensOf, untold
from app.epochs import Epochs
from app.errors import SourceChanged
from app.flights import Flights
from app.ladder import Rung, rung_of, spared
from app.rerankers import rerank_seconds
from app.rewrite import standalone
from app.serving import Current, Serving, Stages, degraded
from app.speech import Speech
from app.support import Reading, checks
from app.types import Answer, Event, Question, Sources, Token, Usage
from llm.errors import ModelUnavailable
from llm.language import declined, not_found
from llm.prompts import render_passages
from llm.types import Call, Delta, Prompt, Sampling, Scope
from retrieval.beside import aside, beside
from retrieval.search import LOST, search
from retrieval.types import Chunk, Found, Hit, Look, Visibility

FRESH = 0.05
"""Seconds for which a look at the sources holds before the final event."""


class Chat:
    def __init__(
        self,
        current: Current,
        visibility: Visibility,
        answers: Answers,
        *,
        product: str,
        tokens: TokensOf = untold,
    ) -> None:
        self._current = current
        self._tokens = tokens
        self._visibility = visibility
        self._answers = answers
        self._epochs = Epochs()
        self._flights = Flights()
        self._reading = Reading()
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._product = product

    async def ask(
        self, question: Question, turn: TakeTurn = unhurried, serving: Serving | None = None
    ) -> AsyncGenerator[Event, None]:
        """`turn` is taken, and may be refused, only when the answer has to be worked out. `serving` is the
        release that answers, by default the champion."""
        serving, stages = serving or self._current(), Stages()
        key = self._answers.key(question, serving.release)
        async with deadline.within(question.deadline, "the look-up of a kept answer"):
            with stages.measure("cache"):
                kept = await self._kept(question, serving, key)
        if kept:
            yield Sources(kept.hits)
            yield Token(kept.answer.text)
            yield replace(kept.answer, stages=stages.seconds)
            return

        with self._flights.flight(key if question.cache == "use" else None):
            async with turn() as place:
                rung = rung_of(serving.release, place.pressure)
                async with aclosing(self._answered(question, serving, stages, key, rung)) as events:
                    async for event in events:
                        yield event

    async def _answered(
        self, question: Question, serving: Serving, stages: Stages, key: str, rung: Rung
    ) -> AsyncGenerator[Event, None]:
        """An answer worked out anew."""
        epoch = await self._epoch(question, stages)
        found, missing = await self._retrieve(question, serving, stages, rung)
        searched = LOST not in found.degraded
        if not searched:  # What comes of it is kept nowhere.
            question = replace(question, cache="off")
        nothing = not_found(question.messages[-1].content, searched=searched)
        hits = await self._passages(question, serving, found.hits, rung, nothing)
        yield Sources(hits)

        last, said = Delta(text="", model=""), self._speech(question, serving, hits)
        async with said, aclosing(self._generate(question, serving, hits, stages, rung, nothing)) as deltas:
            async for delta in deltas:
                last = delta
                for event in said.hear(delta.text):
                    yield event
            # Before the last check begins, which then runs while the ledger looks.
            begun = time.monotonic()
            async with beside(self._still_visible(question, serving, hits)) as looking:
                for event in said.finish():
                    yield event
                with stages.measure("support"):
                    late = await said.checked(question.deadline)
                for verdict in late:
                    yield verdict
                with stages.measure("check"):
                    seen = await looking
                    if time.monotonic() - begun > FRESH:
                        seen = await self._still_visible(question, serving, hits)
            unchanged = seen == epoch
        answer = Answer(
            text=said.text,
            citations=tuple(context.citation(n, hits[n - 1].chunk) for n in said.cited),
            release=serving.release.id,
            degraded=degraded(
                missing,
                found.degraded,
                serving.other_model(last.model),
                said.degraded,
                await self._cache(question),
            ),
            stages=stages.seconds,
            usage=Usage(prompt_tokens=last.prompt_tokens or 0, output_tokens=last.output_tokens or 0),
            model=last.model,
            finish=last.finish or "stop",
            support=said.support,
            answered=bool(said.cited) or not declined(said.text),
            cached="output" if last.cached else None,
            epoch=epoch if unchanged else None,
        )
        if unchanged:
            self._keep_soon(question, serving, key, Kept(hits=hits, answer=answer, epoch=epoch))
        yield answer

    async def _epoch(self, question: Question, stages: Stages) -> str:
        """An epoch of the question's collections that was seen before anything is looked for in them."""
        seen = self._epochs.recent(question.where)
        if seen is None:
            async with deadline.within(question.deadline, "the look at the collections"):
                with stages.measure("cache"):
                    seen = await self._visibility.epoch(question.where)
            self._epochs.see(question.where, seen)
        return seen

    async def _kept(self, question: Question, serving: Serving, key: str) -> Kept | None:
        """A kept answer that may be served; if another caller is working it out, the one that they leave.
        When there is none, nothing is awaited before it is said so: of those who ask at once, one begins."""
        if question.cache != "use":
            return None
        kept = await self._valid(question, serving, key)
        if kept is None and (flight := self._flights.under_way(key)):
            with suppress(TimeoutError):
                await asyncio.wait_for(flight.wait(), deadline.left(question.deadline) / 2)
            kept = await self._valid(question, serving, key)
        return kept

    async def _valid(self, question: Question, serving: Serving, key: str) -> Kept | None:
        """The kept answer on which nothing has changed and all of whose sources this caller can still see."""
        if key in self._keeping:
            await asyncio.shield(self._keeping[key])
        kept = await self._answers.get(key)
        if kept is None:
            return None
        look = await self._look(question, serving, kept.hits)
        return kept if look.epoch == kept.epoch and look.ages.keys() >= _revisions(kept.hits) else None

    async def _retrieve(
        self, question: Question, serving: Serving, stages: Stages, rung: Rung
    ) -> tuple[Found, tuple[str, ...]]:
        async with deadline.within(question.deadline, "retrieval"):
            with stages.measure("rewrite"):
                spare = spared(serving.release, rung)
                query, missing = await standalone(question, serving, self._product, spare)
            with stages.measure("search"):
                seconds = rerank_seconds(serving.release, question.deadline, rung)
                params = serving.release.search
                found = await search(
                    serving.index,
                    query,
                    question.where,
                    params,
                    limit=context.depth(params),
                    rerank_seconds=seconds,
                )
        return context.in_force(found, query, serving.release.body.context, params.limit), missing

    async def _passages(
        self, question: Question, serving: Serving, found: Sequence[Hit], rung: Rung, nothing: str
    ) -> tuple[Hit, ...]:
        """Those that the prompt takes, in its order. What spares the release's first model needs no look at
        its window."""
        release = serving.release
        best = context.chosen(found, release.body.context, release.body.search.limit)
        tokens = self._tokens(release)
        if tokens and not spared(release, rung):
            rest = self._prompt(question, serving, (), nothing).messages
            answer = _sampling(question, release.sampling).max_tokens
            async with deadline.within(question.deadline, "the count of tokens"):
                best = await context.fitting(best, tokens, rest, answer)
        return context.ordered(best, release.body.context)

    def _speech(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> Speech:
        part, chunks = serving.release.body.answer, [hit.chunk for hit in hits]
        asked, tenant = question.messages[-1].content, question.where.tenant
        return Speech(len(hits), part, checks(self._reading, chunks, serving, question=asked, tenant=tenant))

    async def _generate(
        self,
        question: Question,
        serving: Serving,
        hits: tuple[Hit, ...],
        stages: Stages,
        rung: Rung,
        nothing: str,
    ) -> AsyncGenerator[Delta, None]:
        """What the model says; the best passages alone when no model of the chain can begin, or may.
        `nothing` is what it says when they do not answer."""
        asked = question.messages[-1].content
        if not hits:
            yield Delta(text=nothing, model=serving.first_model, finish="stop")
            return
        if rung == Rung.SEARCH_ONLY:
            yield Delta(text=searchonly.listed(asked, hits), model=searchonly.NAME, finish="stop")
            return
        begin, started = time.perf_counter(), False
        try:
            call = self._call(question, serving, hits, rung, nothing)
            async with aclosing(serving.model.stream(call)) as deltas:
                async for delta in deltas:
                    if not started:
                        stages.add("first_token", time.perf_counter() - begin)
                    started = True
                    yield delta
        except ModelUnavailable:
            if started:
                raise
            deadline.left(question.deadline)
            yield Delta(text=searchonly.listed(asked, hits), model=searchonly.NAME, finish="stop")
        stages.add("model", time.perf_counter() - begin)

    def _prompt(self, question: Question, serving: Serving, chunks: Sequence[Chunk], nothing: str) -> Prompt:
        asked = question.messages[-1].content
        prompt = serving.release.answer.render(
            passages=render_passages(context.passages(chunks)), question=asked, not_found=nothing
        )
        if len(question.messages) == 1:
            return prompt
        *history, last = prompt.messages
        return replace(prompt, messages=(*history, *question.messages[:-1], last))

    def _call(
        self, question: Question, serving: Serving, hits: tuple[Hit, ...], rung: Rung, nothing: str
    ) -> Call:
        release = serving.release
        chunks = [hit.chunk for hit in hits]
        return Call(
            prompt=self._prompt(question, serving, chunks, nothing),
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
            spare=spared(release, rung),
        )

    async def _look(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> Look:
        wanted = {(hit.chunk.document_id, hit.chunk.revision) for hit in hits}
        look = await self._visibility.look(serving.index.generation, question.where, wanted)
        self._epochs.see(question.where, look.epoch)
        return look

    async def _still_visible(self, question: Question, serving: Serving, hits: tuple[Hit, ...]) -> str:
        """The epoch now, if every source can still be seen."""
        look = await self._look(question, serving, hits)
        if not look.ages.keys() >= _revisions(hits):
            raise SourceChanged(
                "A source of this answer was changed or deleted while it was being written. Ask again."
            )
        return look.epoch

    async def _cache(self, question: Question) -> tuple[str, ...]:
        return () if question.cache == "off" or await self._answers.available() else ("cache",)

    def _keep_soon(self, question: Question, serving: Serving, key: str, kept: Kept) -> None:
        """Keep only complete, undegraded answers. The answer does not wait for it; who looks for it does."""
        answer = kept.answer
        if question.cache != "off" and not answer.degraded and answer.finish == "stop" and kept.hits:
            put = aside(self._answers.put(key, kept, serving.release.body.cache.ttl_seconds))
            self._keeping[key] = put
            put.add_done_callback(partial(self._put, key))

    def _put(self, key: str, put: asyncio.Task[None]) -> None:
        # A later answer to the same question may be on its way by now.
        if self._keeping.get(key) is put:
            del self._keeping[key]


def _revisions(hits: tuple[Hit, ...]) -> frozenset[int]:
    return frozenset(hit.chunk.revision for hit in hits)


def _sampling(question: Question, default: Sampling) -> Sampling:
    most = min(question.max_tokens or default.max_tokens, default.max_tokens)
    return Sampling(
        temperature=default.temperature if question.temperature is None else question.temperature,
        top_p=default.top_p if question.top_p is None else question.top_p,
        max_tokens=most,
        min_tokens=min(default.min_tokens, most),
        seed=default.seed if question.seed is None else question.seed,
        stop=question.stop,
        thinking=default.thinking,
    )
