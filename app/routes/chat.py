"""`POST /v1/chat/completions`: OpenAI's shape, with citations."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from opentelemetry import trace
from starlette.responses import Response
from starlette.types import Receive

from app import quality, semconv, telemetry
from app.assignment import Assigned, Conversation
from app.context import citation
from app.deadline import within
from app.metrics import Metrics
from app.outcomes import Facts, facts_of
from app.routes import cited, replies
from app.routes.caller import Asked, Inquiry, caching, reach, reply
from app.routes.openai import ChatRequest, messages_of, refuse_unsupported
from app.routes.route import Route
from app.sse import DONE, STREAMED, Connected, EventStream, event, first_of
from app.types import Answer, Question, Sources, Support, Token
from app.watched import Watched, watched
from app.wiring import Services
from llm.errors import StreamBroken
from llm.types import Message
from retrieval.types import Hit

router = APIRouter(tags=["answers"], route_class=Route)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What every chunk of one response repeats."""

    release: str
    conversation: str
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": f"plumbline@{self.release}",
            "system_fingerprint": self.release,
            "choices": choices,
            **more,
        }

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(self.body("chat.completion.chunk", [choice], **more))

    def words(self, **more: Any) -> Callable[[str], bytes]:
        """Makes the chunk of a text. All but the text is the same in each of them, and is written once."""
        # Nothing after the text is an empty string.
        before, _, after = self.chunk({"content": ""}, **more).rpartition(b'""')
        return lambda text: before + orjson.dumps(text) + after


@router.post(
    "/v1/chat/completions",
    summary="Answer a question from the documents, with citations",
    response_model=replies.ChatCompletion,
    responses=STREAMED,
)
async def chat_completions(body: ChatRequest, request: Request, inquiry: Asked) -> Response:
    """OpenAI's chat request. The last message is the question; those before it are the conversation.

    The reply's `plumbline` object holds the citations, what they do for each sentence (`support`), the
    release that answered, what it had to do without and how long each stage took; with `stream` it is in
    the last chunk, and each sentence's `support` follows the sentence in a chunk without text.
    """
    asked = await _asked(body, inquiry)
    if not body.stream:
        return reply(await _completed(asked, inquiry, request.receive))
    events, metrics, deadline = asked.events(), inquiry.metrics, inquiry.deadline
    async with Connected(request.receive), within(deadline, "the answer"):
        first = await first_of(events)
    chunks = _chunks(asked, first, events, body.include_usage, metrics)
    return EventStream(chunks, deadline=deadline, failed=metrics.failure)


async def completion(body: ChatRequest, inquiry: Inquiry, receive: Receive) -> dict[str, Any]:
    """The whole answer, as it is told. Raises `ClientGone` when the caller hangs up meanwhile."""
    return await _completed(await _asked(body, inquiry), inquiry, receive)


async def _asked(body: ChatRequest, inquiry: Inquiry) -> _Asked:
    refuse_unsupported(body)
    parts = inquiry.parts
    messages = messages_of(body, parts.settings.question_limit)
    stops = body.stops
    extra = body.plumbline
    question = Question(
        messages=messages,
        where=await reach(
            parts,
            inquiry.caller,
            extra.names,
            extra.document_ids,
            extra.where("plumbline.filter"),
            place=f"plumbline.{extra.place}",
        ),
        deadline=inquiry.deadline,
        max_tokens=body.most_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        stop=stops,
    )
    assigned = await parts.assigner.assign(
        body.model,
        inquiry.caller,
        _belongs(extra.conversation, messages),
        lambda: parts.answers.neutral(question),
        lambda release: parts.answers.key(question, release),
    )
    if (cache := caching(assigned, extra.cache)) != question.cache:
        question = replace(question, cache=cache)
    return _Asked(parts, question, assigned, _conversation(extra.conversation))


async def _completed(asked: _Asked, inquiry: Inquiry, receive: Receive) -> dict[str, Any]:
    events = asked.events()
    async with Connected(receive), aclosing(events), within(inquiry.deadline, "the answer"):
        answer = await _answer(events)
    inquiry.metrics.answered("chat", answer)
    return _completion(asked.shape, answer, asked.sources)


def _belongs(given: str | None, messages: Sequence[Message]) -> Conversation:
    first = next(message.content for message in messages if message.role == "user")
    begun = any(message.role == "assistant" for message in messages)
    return Conversation(lambda: given or first, begun)


def _conversation(given: str | None) -> str:
    """The caller's id of the conversation, or a new one; noted on the request's span."""
    conversation = given or f"conv-{secrets.token_hex(16)}"
    trace.get_current_span().set_attribute(semconv.CONVERSATION, conversation)
    return conversation


@dataclass(slots=True)
class _Asked:
    """A question, in its turn if it must be worked out. `sources` are known with the first event."""

    parts: Services
    question: Question
    assigned: Assigned
    conversation: str
    name: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    sources: tuple[Hit, ...] = ()

    @property
    def shape(self) -> _Shape:
        return _Shape(self.assigned.serving.release.id, self.conversation, self.name)

    async def events(self) -> AsyncGenerator[Token | Support | Answer, None]:
        parts, question, assigned = self.parts, self.question, self.assigned
        tenant = question.where.tenant
        turn = partial(parts.admission.turn, tenant, question.deadline)
        telemetry.set_release(assigned.serving.release.id)
        with watched(
            parts.outcomes,
            assigned,
            kind="chat",
            tenant=tenant,
            answer=self.name,
            deadline=question.deadline,
        ) as watch:
            async with aclosing(parts.chat.ask(question, turn, assigned.serving)) as events:
                async for one in events:
                    if isinstance(one, Sources):
                        self.sources = one.hits
                        continue
                    if isinstance(one, Answer):
                        self._seen(one, watch)
                    yield one

    def _seen(self, answer: Answer, watch: Watched) -> None:
        """Tell the trace, and take the answer's measures where somebody wants them."""
        telemetry.tell_degraded(answer.degraded)
        asked, seconds = self.question.messages[-1].content, watch.seconds

        def facts() -> Facts:
            found = quality.of_answer(answer, question=asked, sources=len(self.sources))
            return facts_of(answer, found, seconds)

        if self.assigned.enrolled:
            watch.facts, watch.anew = facts(), answer.cached is None
        if self.assigned.serving.release.id == self.parts.release.champion().release.id:
            self.parts.shadow.offer(self.question, answer, facts, self.name)


async def _answer(events: AsyncGenerator[Token | Support | Answer, None]) -> Answer:
    async for one in events:
        if isinstance(one, Answer):
            return one
    raise StreamBroken("The answer ended before it was complete. Ask again.")


async def _chunks(
    asked: _Asked,
    first: Token | Support | Answer | None,
    events: AsyncGenerator[Token | Support | Answer, None],
    include_usage: bool,
    metrics: Metrics,
) -> AsyncGenerator[bytes, None]:
    shape = asked.shape
    more: dict[str, Any] = {"usage": None} if include_usage else {}
    words = shape.words(**more)
    async with aclosing(events):
        # It leaves with the first words: a write of its own would make them wait.
        role = shape.chunk({"role": "assistant", "content": ""}, **more)
        one: Token | Support | Answer | None = first
        while isinstance(one, Token | Support):
            if isinstance(one, Token):
                yield role + words(one.text)
            else:
                yield role + shape.chunk({}, plumbline={"support": cited.support_json(one)}, **more)
            role = b""
            one = await anext(events, None)
    if one is None:
        raise StreamBroken("The answer ended before it was complete. Ask again.")
    metrics.answered("chat", one)
    noted = {"annotations": cited.url_citations(one.text, one.citations)}
    yield role + shape.chunk(noted, one.finish, plumbline=_told(shape, one, asked.sources), **more)
    if include_usage:
        yield event(shape.body("chat.completion.chunk", [], usage=cited.usage_json(one.usage)))
    yield DONE


def _completion(shape: _Shape, answer: Answer, sources: Sequence[Hit]) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": cited.url_citations(answer.text, answer.citations),
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
    usage = cited.usage_json(answer.usage)
    return shape.body("chat.completion", [choice], usage=usage, plumbline=_told(shape, answer, sources))


def _told(shape: _Shape, answer: Answer, sources: Sequence[Hit]) -> dict[str, Any]:
    """`sources` are all passages that the model was given; `citations` those that the answer names."""
    told = cited.told(
        citations=answer.citations,
        release=answer.release,
        degraded=answer.degraded,
        stages=answer.stages,
        model=answer.model,
        support=answer.support,
    )
    given = [cited.citation_json(citation(n, hit.chunk)) for n, hit in enumerate(sources, start=1)]
    return {
        **told,
        "sources": given,
        "answered": answer.answered,
        "conversation": shape.conversation,
        "cached": answer.cached,
    }
