"""`POST /v1/summarize`: a summary of a text, of documents, of collections or about a question, with
citations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response
from starlette.types import Receive

from app import quality, telemetry
from app.assignment import Assigned, Conversation, digest
from app.deadline import within
from app.errors import RequestInvalid
from app.metrics import Metrics
from app.outcomes import Facts, facts_of
from app.releases import MODEL
from app.routes import cited, replies
from app.routes.bodies import CollectionName, DocumentId, Flag, Strict, Text, Whole, such_as
from app.routes.caller import Asked, Inquiry, caching, named_at, reach, reply
from app.routes.route import Route
from app.sse import DONE, STREAMED, Connected, EventStream, event, first_of
from app.types import Progress, Summary, SummaryEvent, SummaryRequest, Support, Token
from app.watched import watched
from app.wiring import Services
from llm.errors import StreamBroken

LONGEST_TEXT = 2_000_000
Heard = Callable[[float, float], Awaitable[None]]
"""Told how many sections are done, of how many."""
router = APIRouter(tags=["answers"], route_class=Route)


async def _unheard(done: float, total: float) -> None:
    pass


class SummarizeRequest(Strict):
    """Exactly one of `text`, `document_ids`, `collection` and `collections`; or a `focus` alone, for
    everything readable."""

    model_config = such_as(
        {"collection": "default", "focus": "What changes for new employees?", "max_words": 100},
        {"text": "Plumbline answers questions from documents. It says where each sentence is from."},
    )

    model: str = Field(MODEL, min_length=1, max_length=200, description="`plumbline@<release>` for one.")
    text: Text | None = Field(None, min_length=1, max_length=LONGEST_TEXT)
    document_ids: list[DocumentId] | None = Field(None, min_length=1, max_length=200)
    collection: CollectionName | None = None
    collections: list[CollectionName] | None = Field(None, min_length=1, max_length=50)
    focus: Text | None = Field(None, max_length=8_000, description="A question to answer along the way.")
    max_words: Annotated[Whole, Field(ge=10, le=2_000)] = 200
    language: Literal["en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da"] | None = Field(
        None, description="The language to write in; by default that of the text."
    )
    stream: Flag = False
    cache: Flag = True

    @property
    def named(self) -> int:
        """How many ways are used of saying what to summarize."""
        ways = (self.text, self.document_ids, self.collection, self.collections)
        return sum(one is not None for one in ways)

    @property
    def names(self) -> list[str]:
        return [self.collection] if self.collection is not None else self.collections or []

    @property
    def place(self) -> str:
        """Where its collections are named."""
        return "collection" if self.collection is not None else "collections[]"


@router.post(
    "/v1/summarize",
    summary="Summarize texts, documents, collections or what is said of a question",
    response_model=replies.SummaryReply,
    responses=STREAMED,
)
async def summarize(body: SummarizeRequest, request: Request, inquiry: Asked) -> Response:
    """With `stream`, `summary.progress`, `summary.delta` and `summary.support` come before the `summary`."""
    if not body.stream:
        return reply(await summary_of(body, inquiry, request.receive))
    events, metrics, deadline = await _asked(body, inquiry), inquiry.metrics, inquiry.deadline
    async with Connected(request.receive), within(deadline, "the answer"):
        first = await first_of(events)
    return EventStream(_told(first, events, metrics), deadline=deadline, failed=metrics.failure)


async def summary_of(
    body: SummarizeRequest, inquiry: Inquiry, receive: Receive, heard: Heard = _unheard
) -> dict[str, Any]:
    """The whole summary, as it is told. Raises `ClientGone` when the caller hangs up meanwhile."""
    events = await _asked(body, inquiry)
    async with Connected(receive), aclosing(events), within(inquiry.deadline, "the answer"):
        summary = await _summary(events, heard)
    inquiry.metrics.answered("summary", summary)
    return _summary_json(summary)


async def _asked(body: SummarizeRequest, inquiry: Inquiry) -> AsyncGenerator[SummaryEvent, None]:
    parts, caller = inquiry.parts, inquiry.caller
    if body.named > 1 or not (body.named or (body.focus or "").strip()):
        raise RequestInvalid(
            "Name exactly one of `text`, `document_ids`, `collection` and `collections`, or a `focus` alone.",
            "text",
        )
    stated = body.document_ids or []
    ids = tuple(dict.fromkeys(stated))
    with named_at("document_ids[]", stated):
        for document_id in ids:
            await parts.intake.get(caller.tenant, caller.groups, document_id)

    def named() -> str:
        return digest("summary", caller.tenant, body.model_dump_json())

    assigned = await parts.assigner.assign(body.model, caller, Conversation(named), named)
    wanted = SummaryRequest(
        where=await reach(parts, caller, body.names, ids, place=body.place),
        deadline=inquiry.deadline,
        text=body.text,
        document_ids=ids,
        focus=body.focus,
        max_words=body.max_words,
        language=body.language,
        cache=caching(assigned, body.cache),
    )
    return _events(parts, wanted, assigned)


async def _events(
    parts: Services, wanted: SummaryRequest, assigned: Assigned
) -> AsyncGenerator[SummaryEvent, None]:
    tenant, release, name = wanted.where.tenant, assigned.serving.release, telemetry.request_id()
    telemetry.set_release(release.id)
    with watched(
        parts.outcomes, assigned, kind="summary", tenant=tenant, answer=name, deadline=wanted.deadline
    ) as watch:
        async with parts.admission.turn(tenant, wanted.deadline) as place:
            summarizing = parts.summarizer.summarize(wanted, place.pressure, assigned.serving)
            async with aclosing(summarizing) as events:
                async for one in events:
                    if isinstance(one, Summary):
                        telemetry.tell_degraded(one.degraded)
                        facts = partial(_facts, one, wanted, watch.seconds)
                        if assigned.enrolled:
                            watch.facts = facts()
                        if release.id == parts.release.champion().release.id:
                            parts.shadow.offer(wanted, one, facts, name)
                    yield one


def _facts(summary: Summary, wanted: SummaryRequest, seconds: float) -> Facts:
    return facts_of(summary, quality.of_summary(summary, language=wanted.language), seconds)


async def _summary(events: AsyncGenerator[SummaryEvent, None], heard: Heard) -> Summary:
    before, last = 0, Progress(0, 0)
    async for one in events:
        if isinstance(one, Summary):
            return one
        if isinstance(one, Progress):
            if one.done <= last.done:  # Another round, over what came of the one before.
                before += last.total
            last = one
            await heard(before + one.done, before + one.total)
    raise StreamBroken("The summary ended before it was complete. Ask again.")


async def _told(
    first: SummaryEvent | None, events: AsyncGenerator[SummaryEvent, None], metrics: Metrics
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        one: SummaryEvent | None = first
        while one is not None and not isinstance(one, Summary):
            yield event(_step_json(one))
            one = await anext(events, None)
    if one is None:
        raise StreamBroken("The summary ended before it was complete. Ask again.")
    metrics.answered("summary", one)
    yield event(_summary_json(one))
    yield DONE


def _step_json(step: Progress | Token | Support) -> dict[str, Any]:
    if isinstance(step, Support):
        return {"object": "summary.support", "support": cited.support_json(step)}
    if isinstance(step, Progress):
        return {"object": "summary.progress", "done": step.done, "total": step.total}
    return {"object": "summary.delta", "delta": step.text}


def _summary_json(summary: Summary) -> dict[str, Any]:
    return {
        "object": "summary",
        "text": summary.text,
        "coverage": summary.coverage,
        "sections_cited": summary.sections_cited,
        "usage": cited.usage_json(summary.usage),
        **cited.told(
            citations=summary.citations,
            release=summary.release,
            degraded=summary.degraded,
            stages=summary.stages,
            model=summary.model,
            support=summary.support,
        ),
    }
