"""Traffic that waits for nobody: conversations, half of their answers streamed, and what came of each."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

RELEASE = "x-plumbline-release"
AGAIN = 4
"""Every so many requests one belongs to a conversation that began before."""
PATIENCE = aiohttp.ClientTimeout(total=90)
QUESTIONS = (
    "How many days of paid leave do I get?",
    "When is the gateway rotated to the reserve region?",
    "Who approves a discount for a large customer?",
    "How long is the notice period for remote work abroad?",
    "What is told to customers during an outage?",
    "Which laptop does a new colleague get?",
    "How are expenses for a train ride paid back?",
    "What does the warranty of the sensor cover?",
)
Ended = Literal["whole", "error", "broken"]


def question(number: int) -> str:
    """One that was not asked before."""
    return f"{QUESTIONS[number % len(QUESTIONS)]} It is about case {number}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of a request. `sent` and `closed` are times of `time.time`; `status` is 0 without a reply;
    `code` names the error where the service told one, else what the client met. A stream is whole with its
    `[DONE]`; one that ends with neither that nor an error event is broken, and so is what has no reply."""

    conversation: str
    sent: float
    closed: float
    streamed: bool
    ended: Ended
    status: int = 0
    release: str = ""
    degraded: tuple[str, ...] = ()
    code: str = ""


@dataclass(slots=True)
class Traffic:
    """`rate` arrivals a second, exponentially spaced. `seen` has those that have ended, in that order."""

    url: str
    rate: float
    question: Callable[[int], str] = question
    name: str = "c"
    first: int = 0
    seen: list[Seen] = field(default_factory=list)
    sent: int = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Ask for as long as the block lasts; when it ends, every answer has."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._flow(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def ask(self, conversation: str, asked: str, *, streamed: bool = False) -> Seen:
        """One request, on a connection of its own."""
        async with aiohttp.ClientSession(timeout=PATIENCE) as client:
            return await self._ask(client, conversation, asked, streamed=streamed)

    async def _flow(self, stop: asyncio.Event) -> None:
        dice, clock = random.Random(17), asyncio.get_running_loop().time
        due = clock()
        async with (
            # A connection of its own for each: one that was kept may be closed just as it is used again.
            aiohttp.ClientSession(
                timeout=PATIENCE, connector=aiohttp.TCPConnector(limit=0, force_close=True)
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            while not stop.is_set():
                number, self.sent = self.first + self.sent, self.sent + 1
                group.create_task(self._one(client, number))
                due += dice.expovariate(self.rate)
                await asyncio.sleep(max(0.0, due - clock()))

    async def _one(self, client: aiohttp.ClientSession, number: int) -> None:
        """Of every `AGAIN` requests the last goes on with the conversation of the first, if that was answered
        by then."""
        begun = f"{self.name}{number - number % AGAIN}"
        again = number % AGAIN == AGAIN - 1 and any(one.conversation == begun for one in self.seen[-64:])
        conversation = begun if again else f"{self.name}{number}"
        asked = self.question(number)
        self.seen.append(await self._ask(client, conversation, asked, streamed=number % 2 == 0))

    async def _ask(
        self, client: aiohttp.ClientSession, conversation: str, asked: str, *, streamed: bool
    ) -> Seen:
        body = {
            "messages": [{"role": "user", "content": asked}],
            "stream": streamed,
            "plumbline": {"conversation": conversation},
        }
        sent, told = time.time(), dict[str, Any](ended="broken")
        try:
            async with client.post(f"{self.url}/v1/chat/completions", json=body) as reply:
                told |= {"status": reply.status, "release": reply.headers.get(RELEASE, "")}
                told |= _read(await reply.read(), streamed=streamed and reply.status == 200)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            told["code"] = repr(error)
        closed = time.time()
        return Seen(conversation=conversation, sent=sent, closed=closed, streamed=streamed, **told)


def _read(body: bytes, *, streamed: bool) -> dict[str, Any]:
    if not streamed:
        return _told([json.loads(body)], whole=True)
    lines = body.decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return _told(events, whole=any(line == "data: [DONE]" for line in lines))


def _told(events: list[dict[str, Any]], *, whole: bool) -> dict[str, Any]:
    for event in events:
        if "error" in event:
            return {"ended": "error", "code": event["error"]["code"]}
    degraded = [what for event in events for what in event.get("plumbline", {}).get("degraded", ())]
    return {"ended": "whole" if whole else "broken", "degraded": tuple(degraded)}
