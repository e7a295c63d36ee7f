"""The traced seams behave as what they wrap, and tell of it."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from app.settings import SettingsError
from app.telemetry import FewASecond, start
from app.tracing import TracedModel, TracedStore
from llm.errors import StreamBroken
from llm.scripted import Script, Scripted
from llm.types import Call, Message, Prompt, Sampling, Scope
from retrieval.errors import StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter, Hit, Keyword, Query

CALL = Call(
    prompt=Prompt("answer", "abc", (Message("user", "private words"),)),
    sampling=Sampling(),
    scope=Scope(tenant="t", rights="r", release="0123456789abcdef", evidence=()),
    timeout=5,
)


class Spans:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    def only(self) -> ReadableSpan:
        [span] = self._exporter.get_finished_spans()
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def test_a_stream_is_one_span_with_its_counts_and_none_of_its_words(spans: Spans) -> None:
    model = TracedModel(Scripted(Script(pieces=("a", "b"))), spans.tracer, provider="test")
    assert "".join([delta.text async for delta in model.stream(CALL)]) == "ab"

    span = spans.only()
    assert span.name == "chat scripted"
    told = dict(span.attributes or {})
    assert told["gen_ai.usage.output_tokens"] == 2
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["plumbline.release"] == "0123456789ab"
    assert "private" not in str(span.to_json())


async def test_the_span_is_not_current_while_the_caller_has_the_turn(spans: Spans) -> None:
    model = TracedModel(Scripted(Script(pieces=("a", "b"))), spans.tracer, provider="test")
    async for _ in model.stream(CALL):
        assert not get_current_span().get_span_context().is_valid


async def test_a_broken_stream_breaks_and_its_span_says_so(spans: Spans) -> None:
    broken = Scripted(Script(pieces=("a",), error=StreamBroken("private words")))
    with pytest.raises(StreamBroken):
        [delta async for delta in TracedModel(broken, spans.tracer, provider="test").stream(CALL)]
    span = spans.only()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "StreamBroken"
    assert "private" not in str(span.to_json())


async def test_a_stream_that_is_closed_early_closes_the_model_and_ends_the_span(spans: Spans) -> None:
    model = Scripted(Script(pieces=("a", "b", "c")))
    async with aclosing(TracedModel(model, spans.tracer, provider="test").stream(CALL)) as deltas:
        await anext(deltas)
    assert model.running == 0
    assert spans.only().end_time is not None


class Down(MemoryStore):
    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        raise StoreUnavailable("out")


async def test_a_search_that_fails_raises_the_same_and_its_span_says_so(spans: Spans) -> None:
    store = TracedStore(Down(), spans.tracer, system="milvus")
    with pytest.raises(StoreUnavailable):
        await store.search("g", Keyword("owl"), Filter(tenant="t", groups=None), 3, frozenset())
    span = spans.only()
    assert span.name == "retrieval g"
    assert (span.attributes or {})["db.system.name"] == "milvus"
    assert span.status.status_code is StatusCode.ERROR


def test_an_exporter_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="zipkin"):
        start("plumbline", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_nothing_is_sent_where_nobody_asked_for_it() -> None:
    start("plumbline", {})()
    start("plumbline", {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})()


def test_a_few_traces_a_second_are_recorded_and_of_more_a_share_by_their_ids() -> None:
    now = 0.0
    sampler = FewASecond(most=2, share=0.25, clock=lambda: now)

    def recorded(trace_id: int) -> bool:
        return sampler.should_sample(None, trace_id, "asked").decision is Decision.RECORD_AND_SAMPLE

    low, high = 1, 2**64 - 1
    assert [recorded(high) for _ in range(4)] == [True, True, False, False]
    assert recorded(low)
    now = 0.5
    assert [recorded(high) for _ in range(2)] == [True, False]
    now = 100.0
    assert [recorded(high) for _ in range(3)] == [True, True, False]


def test_whoever_asks_decides_about_the_trace_that_they_began() -> None:
    sampler = ParentBased(FewASecond(most=0, share=0.0))
    for flags in (TraceFlags.SAMPLED, TraceFlags.DEFAULT):
        caller = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(flags))
        context = set_span_in_context(NonRecordingSpan(caller))
        decision = sampler.should_sample(context, 1, "asked").decision
        assert (decision is Decision.RECORD_AND_SAMPLE) == bool(flags)
