"""A chat completions server whose model is its own name: how fast it answers, and how it fails.

    PACED_SLOTS=16 python -m uvicorn --factory eval.bench.paced:served --port 9000

The model `paced?first=0.2&rate=50&length=40` sends its first token after 0.2 s, then 50 a second, 40 in all.
Further fields: `status` (answer with this HTTP status), `retry` (its Retry-After), `after` (go wrong after so
many tokens) with `wrong` = `die` (drop the connection), `error` (an error event), `end` (end without a
finish), `hang` (send nothing more); `finish` (its finish reason); `bytes=1` (every byte on its own);
`refuse=cache_salt` (400 for this field; several with commas); `think=5` (so many words first, unless the
request turns thinking off) in the field `reasoning`, or as `aloud` says: in `tags`, in `opened` ones, of
which the first is in the prompt, or `endless`, without the last; `always=1` (it thinks all the same). The
model `echo-extractive` answers by the prompt, with the built-in model. With `slots`, so many answers are
written at once and the others wait. `GET /state` tells how many streams are open, `GET /requests` all bodies
so far, `GET /metrics` what runs and waits, by vLLM's names.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from llm.extractive import Extractive, guessed
from llm.types import Call, Message, Prompt, Sampling, Scope

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ECHO = "echo-extractive"
UNBOUNDED = 1 << 30


class Died(Exception):
    """Raised into the web server, which then drops the connection."""


@dataclass(slots=True)
class PacedServer:
    """The ASGI application. `running` is the number of open streams, `waiting` those of them without a slot,
    `requests` all bodies so far, `headers` those of the last request, `clients` the ports of all callers."""

    slots: int = UNBOUNDED
    running: int = 0
    waiting: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    clients: set[int] = field(default_factory=set)
    _free: asyncio.Semaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/v1/chat/completions":
            await self._complete(scope, receive, send)
        elif scope["path"] == "/v1/models":
            await _json(send, 200, {"object": "list", "data": [{"id": ECHO, "object": "model"}]})
        elif scope["path"] == "/requests":
            await _json(send, 200, self.requests)
        elif scope["path"] == "/metrics":
            await _text(send, self._gauges())
        elif scope["path"] == "/state":
            await _json(send, 200, {"running": self.running, "requests": len(self.requests)})
        else:
            await _json(send, 404, {"error": {"message": f"There is no {scope['path']}."}})

    async def _complete(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = orjson.loads(await _body(receive))
        self.requests.append(body)
        self.clients.add(scope["client"][1])
        self.headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        script = dict(parse_qsl(body["model"].partition("?")[2]))
        if unknown := [name for name in script.get("refuse", "").split(",") if name in body]:
            instead = " Use 'max_completion_tokens' instead." if "max_tokens" in unknown else ""
            await _json(send, 400, {"error": {"message": f"Unsupported: {unknown}.{instead}"}})
        elif "status" in script:
            headers = [(b"retry-after", script["retry"].encode())] if "retry" in script else []
            await _json(send, int(script["status"]), {"error": {"message": "As you asked."}}, headers)
        else:
            await self._while_connected(receive, self._in_turn(self._answer(body, script, send)))

    def _gauges(self) -> str:
        counts = {"running": self.running - self.waiting, "waiting": self.waiting}
        return "".join(f'vllm:num_requests_{name}{{engine="0"}} {n}.0\n' for name, n in counts.items())

    async def _in_turn(self, answer: Coroutine[Any, Any, None]) -> None:
        """Answer when there is a slot."""
        self.waiting += 1
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            answer.close()
            raise
        finally:
            self.waiting -= 1
        try:
            await answer
        finally:
            self._free.release()

    async def _while_connected(self, receive: Receive, answer: Awaitable[None]) -> None:
        """Answer until the end or until the client goes away."""
        self.running += 1
        answering, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            self.running -= 1

    async def _answer(self, body: dict[str, Any], script: dict[str, str], send: Send) -> None:
        if not body.get("stream"):
            await self._whole(body, script, send)
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sent = 0
        await _event(send, script, _chunk(body, {"role": "assistant", "content": ""}))
        for thought in _thoughts(body, script):
            await _event(send, script, _chunk(body, thought))
        async with aclosing(_tokens(body, script)) as tokens:
            async for token in tokens:
                if sent == int(script.get("after", -1)):
                    await _go_wrong(send, script)
                    return
                await _event(send, script, _chunk(body, {"content": token}))
                sent += 1
        if sent == int(script.get("after", -1)):
            await _go_wrong(send, script)
            return
        await _event(send, script, _chunk(body, {}, script.get("finish", "stop")))
        usage = {"prompt_tokens": _asked(body), "completion_tokens": sent}
        told = {"object": "chat.completion.chunk", "choices": [], "usage": usage}
        await _event(send, script, orjson.dumps(told))
        await _event(send, script, b"[DONE]")
        await send({"type": "http.response.body", "body": b""})

    async def _whole(self, body: dict[str, Any], script: dict[str, str], send: Send) -> None:
        async with aclosing(_tokens(body, script)) as tokens:
            said = [token async for token in tokens]
        message = {"role": "assistant", "content": "".join(said)}
        choice = {"index": 0, "message": message, "finish_reason": script.get("finish", "stop")}
        usage = {"prompt_tokens": _asked(body), "completion_tokens": len(said)}
        await _json(
            send,
            200,
            {"id": "paced", "object": "chat.completion", "model": body["model"], "created": int(time.time())}
            | {"choices": [choice], "usage": usage},
        )


def _thoughts(body: dict[str, Any], script: dict[str, str]) -> list[dict[str, str]]:
    """Deltas of what it thinks first."""
    wanted = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
    count = int(script.get("think", 0)) if wanted or "always" in script else 0
    words = [f"thought{n} " for n in range(count)]
    aloud = script.get("aloud")
    if not words or aloud is None:
        return [{"reasoning": word} for word in words]
    begin = ["<think>", "\n"] if aloud == "tags" else []
    end = [] if aloud == "endless" else ["</think>", "\n\n"]
    return [{"content": piece} for piece in (*begin, *words, *end)]


async def _tokens(body: dict[str, Any], script: dict[str, str]) -> AsyncGenerator[str, None]:
    if body["model"] == ECHO:
        async with aclosing(_echo(body)) as pieces:
            async for piece in pieces:
                yield piece
        return
    most = body.get("max_tokens") or body.get("max_completion_tokens") or UNBOUNDED
    length = min(int(script.get("length", 8)), int(most))
    clock = asyncio.get_running_loop().time
    # By the clock: one that is late does not make all that follow late.
    due, pause = clock() + float(script.get("first", 0)), 1 / float(script.get("rate", 1000))
    for n in range(length):
        await asyncio.sleep(max(0.0, due - clock()))
        yield f"word{n} "
        due += pause


async def _echo(body: dict[str, Any]) -> AsyncGenerator[str, None]:
    messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
    call = Call(
        prompt=Prompt(guessed(messages), "", messages),
        sampling=Sampling(max_tokens=body.get("max_tokens") or 512),
        scope=Scope(tenant="", rights="", release="", evidence=()),
        timeout=60,
    )
    async with aclosing(Extractive().stream(call)) as deltas:
        async for delta in deltas:
            for word in re.findall(r"\S+\s*|\s+", delta.text):
                yield word


async def _go_wrong(send: Send, script: dict[str, str]) -> None:
    wrong = script.get("wrong", "die")
    if wrong == "die":
        raise Died
    if wrong == "hang":
        await asyncio.Event().wait()
    if wrong == "error":
        await _event(send, script, orjson.dumps({"error": {"message": "The engine is dead.", "code": 500}}))
    await send({"type": "http.response.body", "body": b""})


async def _event(send: Send, script: dict[str, str], data: bytes) -> None:
    event = b"data: " + data + b"\n\n"
    size = 1 if "bytes" in script else len(event)
    for at in range(0, len(event), size):
        await send({"type": "http.response.body", "body": event[at : at + size], "more_body": True})
        if "bytes" in script:
            await asyncio.sleep(0)


def _chunk(body: dict[str, Any], delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "paced", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    return orjson.dumps({**head, "choices": [choice]})


def _asked(body: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _text(send: Send, text: str) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _json(send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    content = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": content})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})


def served() -> PacedServer:
    """For a web server's process: as many slots as `PACED_SLOTS` says."""
    return PacedServer(slots=int(os.environ.get("PACED_SLOTS", UNBOUNDED)))
