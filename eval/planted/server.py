"""A model server for planted faults: it answers by the prompt, like the built-in model, and then goes wrong
as the model's name says.

    python -m uvicorn --factory eval.planted.server:served --port 9000

`handbook?fault=corrupt&share=0.01` damages one answer in a hundred (`eval.planted.faults`), `pace=0.4` waits
so many seconds before each answer, `status=500` answers with that status, of a `share` of the questions. It
does as a system message says that wants German. Without `stream` it is a judge, whose verdicts agree with
everything; with `PLANTED_JUDGE_CALLS` in the environment the process dies after so many of them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from eval.planted.faults import FAULTS, drawn, example, german
from llm.extractive import Extractive, guessed
from llm.prompts import parse_passages
from llm.types import Call, Delta, Message, Prompt, Sampling, Scope

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
JUDGE_CALLS = "PLANTED_JUDGE_CALLS"
IN_GERMAN = "Always answer in German."


@dataclass(slots=True)
class PlantedServer:
    """The ASGI application. `calls` is how many verdicts it still gives, None for any number."""

    calls: int | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/v1/models":
            await _reply(send, 200, {"object": "list", "data": []})
        elif scope["path"] != "/v1/chat/completions":
            await _reply(send, 404, {"error": {"message": f"There is no {scope['path']}."}})
        else:
            body = orjson.loads(await _read(receive))
            await (self._answer(body, send) if body.get("stream") else self._judge(body, send))

    async def _answer(self, body: dict[str, Any], send: Send) -> None:
        script = dict(parse_qsl(body["model"].partition("?")[2]))
        messages = tuple(Message(one["role"], one["content"]) for one in body["messages"])
        harmed = drawn(messages[-1].content, float(script.get("share", 1)))
        await asyncio.sleep(float(script.get("pace", 0)))
        if harmed and "status" in script:
            await _reply(send, int(script["status"]), {"error": {"message": "The engine is dead."}})
            return
        text, last = await _said(messages, int(body.get("max_tokens") or 512))
        passages = sorted(one.number for one in parse_passages(messages[-1].content))
        if any(IN_GERMAN in message.content for message in messages if message.role == "system"):
            text = german(text, passages)
        if harmed and "fault" in script:
            text = FAULTS[script["fault"]](text, passages)
        await _stream(send, body["model"], text, last)

    async def _judge(self, body: dict[str, Any], send: Send) -> None:
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        verdict = example(body["response_format"]["json_schema"]["schema"])
        message = {"role": "assistant", "content": orjson.dumps(verdict).decode()}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await _reply(send, 200, {"object": "chat.completion", "model": body["model"], "choices": [choice]})


def served() -> PlantedServer:
    """For a web server's process."""
    calls = os.environ.get(JUDGE_CALLS)
    return PlantedServer(int(calls) if calls else None)


async def _said(messages: tuple[Message, ...], tokens: int) -> tuple[str, Delta]:
    """What the built-in model says, and how it ended."""
    call = Call(
        prompt=Prompt(guessed(messages), "", messages),
        sampling=Sampling(max_tokens=tokens),
        scope=Scope(tenant="", rights="", release="", evidence=()),
        timeout=60,
    )
    async with aclosing(Extractive().stream(call)) as stream:
        deltas = [delta async for delta in stream]
    return "".join(delta.text for delta in deltas), deltas[-1]


async def _stream(send: Send, model: str, text: str, last: Delta) -> None:
    await _start(send, 200, b"text/event-stream")
    for word in re.findall(r"\S+\s*|\s+", text):
        await _event(send, _chunk(model, {"content": word}))
    await _event(send, _chunk(model, {}, last.finish))
    usage = {"prompt_tokens": last.prompt_tokens, "completion_tokens": last.output_tokens}
    await _event(send, orjson.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage}))
    await _event(send, b"[DONE]")
    await send({"type": "http.response.body", "body": b""})


def _chunk(model: str, delta: Mapping[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return orjson.dumps(
        {"id": "planted", "object": "chat.completion.chunk", "created": 0, "model": model}
        | {"choices": [choice]}
    )


async def _event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


async def _reply(send: Send, status: int, body: Mapping[str, Any]) -> None:
    await _start(send, status, b"application/json")
    await send({"type": "http.response.body", "body": orjson.dumps(body)})


async def _start(send: Send, status: int, form: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", form)]})


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
