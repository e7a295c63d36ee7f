"""Spans around the seams: the same Protocols, with a span for each call.

A span is started under the caller's and made current only while the wrapped call runs, never across a
`yield`: what iterates a stream may do so from another context.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager

from opentelemetry import context, propagate
from opentelemetry.trace import (
    ProxyTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    get_tracer_provider,
    set_span_in_context,
    use_span,
)
from opentelemetry.util.types import AttributeValue

from app import semconv as names
from ingestion.types import Attempt, Job
from llm.types import Call, ChatModel, Delta
from retrieval.types import (
    Chunk,
    Dense,
    EmbedderSpec,
    Encoder,
    Filter,
    Hit,
    IndexSpec,
    Matrix,
    Query,
    Row,
    Store,
    Vector,
)


class TracedModel:
    """`chat {model}` from the first request for a delta until the stream ends or is closed."""

    def __init__(self, model: ChatModel, tracer: Tracer, *, provider: str) -> None:
        self._model = model
        self._tracer = tracer
        self._provider = provider

    @property
    def name(self) -> str:
        return self._model.name

    def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        return self._model.stream(call) if _unrecorded(self._tracer) else self._traced(call)

    async def _traced(self, call: Call) -> AsyncGenerator[Delta, None]:
        span = self._tracer.start_span(
            f"{names.CHAT} {self.name}", kind=SpanKind.CLIENT, attributes=self._attributes(call)
        )
        here = set_span_in_context(span)
        begin, first, last = time.perf_counter(), True, None
        try:
            async with aclosing(self._model.stream(call)) as deltas:
                while (delta := await _next(deltas, here)) is not None:
                    if first:
                        span.set_attribute(names.FIRST_CHUNK, time.perf_counter() - begin)
                        first = False
                    last = delta
                    yield delta
        except Exception as error:
            _failed(span, error)
            raise
        finally:
            if last is not None:
                _told(span, last)
            span.end()

    def _attributes(self, call: Call) -> dict[str, AttributeValue]:
        return {
            names.OPERATION: names.CHAT,
            names.PROVIDER: self._provider,
            names.REQUEST_MODEL: self.name,
            names.REQUEST_TEMPERATURE: call.sampling.temperature,
            names.REQUEST_TOP_P: call.sampling.top_p,
            names.REQUEST_MAX_TOKENS: call.sampling.max_tokens,
            names.REQUEST_STREAM: True,
            names.PROMPT_NAME: call.prompt.name,
            names.PROMPT_VERSION: call.prompt.version,
            names.RELEASE: call.scope.release[:12],
        }


async def _next(deltas: AsyncGenerator[Delta, None], here: context.Context) -> Delta | None:
    token = context.attach(here)
    try:
        return await anext(deltas, None)
    finally:
        context.detach(token)


def _told(span: Span, last: Delta) -> None:
    told: dict[str, AttributeValue] = {names.RESPONSE_MODEL: last.model, names.CACHED: last.cached}
    if last.finish:
        told[names.RESPONSE_FINISH] = [last.finish]
    if last.prompt_tokens is not None:
        told[names.INPUT_TOKENS] = last.prompt_tokens
    if last.output_tokens is not None:
        told[names.OUTPUT_TOKENS] = last.output_tokens
    span.set_attributes(told)


def _failed(span: Span, error: Exception) -> None:
    """The type only: a message may quote a document."""
    span.set_attribute(names.ERROR_TYPE, type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR))


class TracedStore:
    """`retrieval {index}` around a search, `index {index}` around an upsert; the rest is passed on. `system`
    names the store's product."""

    def __init__(self, store: Store, tracer: Tracer, *, system: str | None = None) -> None:
        self._store = store
        self._tracer = tracer
        self._system: dict[str, AttributeValue] = {names.DB_SYSTEM: system} if system else {}

    async def prepare(self, generation: str, spec: IndexSpec) -> None:
        await self._store.prepare(generation, spec)

    async def upsert(self, generation: str, rows: Sequence[Row]) -> None:
        if _unrecorded(self._tracer):
            await self._store.upsert(generation, rows)
            return
        with self._span(f"index {generation}", {names.DATA_SOURCE: generation, names.ROWS: len(rows)}):
            await self._store.upsert(generation, rows)

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        if _unrecorded(self._tracer):
            return await self._store.search(generation, query, where, limit, exclude)
        told: dict[str, AttributeValue] = {
            names.OPERATION: names.RETRIEVAL,
            names.DATA_SOURCE: generation,
            names.ARM: "dense" if isinstance(query, Dense) else "keyword",
        }
        with self._span(f"{names.RETRIEVAL} {generation}", told) as span:
            hits = await self._store.search(generation, query, where, limit, exclude)
            span.set_attribute(names.HITS, len(hits))
            return hits

    async def read(self, generation: str, tenant: str, ids: Sequence[str]) -> list[Chunk]:
        return await self._store.read(generation, tenant, ids)

    async def vectors(self, generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        return await self._store.vectors(generation, tenant, ids)

    async def remove(self, generation: str, revisions: Collection[int]) -> None:
        await self._store.remove(generation, revisions)

    async def purge(self, generation: str) -> bool:
        return await self._store.purge(generation)

    async def drop(self, generation: str) -> None:
        await self._store.drop(generation)

    @contextmanager
    def _span(self, name: str, told: Mapping[str, AttributeValue]) -> Iterator[Span]:
        with _span(self._tracer, name, {**self._system, **told}, SpanKind.CLIENT) as span:
            yield span


class TracedEmbedder:
    """`embeddings {model}`. An `Encoder`."""

    def __init__(self, embedder: Encoder, tracer: Tracer) -> None:
        self._embedder = embedder
        self._tracer = tracer

    @property
    def spec(self) -> EmbedderSpec:
        return self._embedder.spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        if _unrecorded(self._tracer):
            return await self._embedder.embed(texts)
        spec = self._embedder.spec
        told: dict[str, AttributeValue] = {
            names.OPERATION: names.EMBEDDINGS,
            names.REQUEST_MODEL: spec.name,
            names.DIMENSIONS: spec.dimension,
            names.TEXTS: len(texts),
        }
        with _span(self._tracer, f"{names.EMBEDDINGS} {spec.name}", told, SpanKind.INTERNAL):
            return await self._embedder.embed(texts)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._embedder.token_spans(text)


class JobTraces:
    """Tells a worker's jobs as spans, under the trace of the request that handed the document in.

    The worker works on several jobs side by side and shares stages between them; it reports when a job is
    over, and the spans are written then, with the times at which things happened.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def finished(self, attempt: Attempt) -> None:
        job = attempt.job
        span = self._tracer.start_span(
            "process document",
            context=_context_of(job),
            kind=SpanKind.CONSUMER,
            start_time=_nanoseconds(attempt.started),
            attributes={
                names.JOB: job.id,
                names.JOB_OUTCOME: attempt.outcome,
                names.JOB_ATTEMPT: job.attempts,
                names.JOB_CHUNKS: attempt.chunks,
            },
        )
        if attempt.outcome in ("failed", "quarantined"):
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for stage, (start, end) in attempt.stages.items():
            child = self._tracer.start_span(stage, context=inside, start_time=_nanoseconds(start))
            child.end(_nanoseconds(end))
        span.end(_nanoseconds(attempt.ended))


def _context_of(job: Job) -> context.Context:
    carrier = {"traceparent": job.traceparent} if job.traceparent else {}
    return propagate.extract(carrier, context.Context())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _unrecorded(tracer: Tracer) -> bool:
    """Whether nothing here is recorded: the trace is not, so that its spans would not be either, or no traces
    leave this process at all. Starting such spans costs a tenth of a question."""
    span = get_current_span()
    if span.get_span_context().is_valid:
        return not span.is_recording()
    return isinstance(tracer, ProxyTracer) and isinstance(get_tracer_provider(), ProxyTracerProvider)


@contextmanager
def _span(tracer: Tracer, name: str, told: Mapping[str, AttributeValue], kind: SpanKind) -> Iterator[Span]:
    span = tracer.start_span(name, kind=kind, attributes=told)
    try:
        with use_span(span, record_exception=False, set_status_on_exception=False):
            yield span
    except Exception as error:
        _failed(span, error)
        raise
    finally:
        span.end()
