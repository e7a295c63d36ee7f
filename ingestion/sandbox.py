"""Parses files made by anyone in processes that can be killed without loss.

A file is read by a child of its own, forked from a nursery that has every reader loaded and so is ready in
milliseconds. Only plain text and Markdown, which our own code reads, may share one, and only within a tenant:
no file gets at another tenant's, whatever it does to its reader. The parent trusts nothing that a child says
but well-formed JSON.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingestion.errors import IngestionError, ParserUnavailable, Quarantined, UnsupportedType
from ingestion.parse import sniff
from ingestion.sandbox_pace import Limits, Pace
from ingestion.sandbox_process import Child, Ended, Nursery, start
from ingestion.sandbox_wire import MalformedAnswer
from ingestion.types import Containment, Parsed

logger = logging.getLogger(__name__)

READER = "ingestion.parse:parse"
SHARING = frozenset({"text", "markdown"})
SHARING_BYTES = 2**20
"""Formats, and the size of a file, whose child may read more of its tenant's."""
_MOST_IDLE = 4
_LOOK_EVERY, _TELL_EVERY = 0.25, 1.0
_LAST_MOMENT = 1.0
"""Seconds given to a child that went silent, to learn of what it died."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of a file in a child of its own: the wall time in seconds, and the most memory that the child
    held at a time, in bytes, the libraries that are there from the start included."""

    outcome: Parsed | IngestionError
    seconds: float
    peak: int


class Sandbox:
    """`timeout` in seconds of work for a whole document, of which its size says how many may go to one part;
    `memory` in bytes of address space for one child.

    `children` documents are parsed at once; more calls wait. `share` is the number of documents after which
    a child that may be shared is replaced. `reader` names the function that a child calls,
    `module:function`. Processes start when they are first needed, and belong to one event loop.
    """

    def __init__(
        self, timeout: float, memory: int, children: int = 1, *, share: int = 500, reader: str = READER
    ) -> None:
        self._timeout = timeout
        self._memory = memory
        self._children = children
        self._share = share
        self._reader = reader
        self._turns = asyncio.Semaphore(children)
        self._starting = asyncio.Lock()
        self._started: tuple[Nursery, Containment] | None = None
        self._idle: list[tuple[str, Child]] = []
        self._closed = False

    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        """The document's text and structure. Without a `tenant` the child is never shared. While it takes
        long, `told` is called with the part that is read.

        Raises `UnsupportedType`, `Quarantined` (the document's fault, `part` is where it stopped) or
        `ParserUnavailable` (ours).
        """
        owner = tenant if tenant is not None and _may_share(content, filename, media_type) else None
        outcome, _ = await self._in_turn(content, filename, media_type, owner, told)
        if isinstance(outcome, IngestionError):
            raise outcome
        return outcome

    async def read(self, content: bytes, filename: str | None, media_type: str | None) -> Reading:
        """As `parse` without a tenant, with what it took. Raises `ParserUnavailable`."""
        begun = time.monotonic()
        outcome, ended = await self._in_turn(content, filename, media_type, None)
        return Reading(outcome, time.monotonic() - begun, ended.peak if ended else 0)

    async def containment(self) -> Containment:
        """What children are kept from on this machine, by trying. Raises `ParserUnavailable`."""
        return (await self._nursery())[1]

    async def close(self) -> None:
        """End every process, and wait until none is left; calls under way fail with `ParserUnavailable`."""
        self._closed = True
        async with self._starting:
            if self._started is not None:
                await self._started[0].end()
        for _, child in self._idle:
            await child.end()
        self._idle.clear()
        for _ in range(self._children):
            await self._turns.acquire()
        for _ in range(self._children):
            self._turns.release()

    async def _in_turn(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        owner: str | None,
        told: Callable[[str], None] | None = None,
    ) -> tuple[Parsed | IngestionError, Ended | None]:
        """The outcome, and how the child ended unless it is kept. One that dies is given one more try:
        something else on the machine may have killed it."""
        async with self._turns:
            outcome, ended, again = await self._attempt(content, filename, media_type, owner, told)
            if again:
                outcome, ended, _ = await self._attempt(content, filename, media_type, owner, told)
            return outcome, ended

    async def _attempt(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        owner: str | None,
        told: Callable[[str], None] | None,
    ) -> tuple[Parsed | IngestionError, Ended | None, bool]:
        """The last says whether the child died for no reason that we know."""
        child = await self._child(owner)
        limits = Limits.of(len(content), self._timeout)
        try:
            answer = await _asked(child, limits, content, filename, media_type, told)
        except BaseException:
            await child.end()
            raise
        if owner is not None and answer is not None and self._is_fit(child, answer):
            await self._keep(owner, child)
            return answer, None, False
        ended = await child.end(grace=_LAST_MOMENT if answer is None else 0.0)
        self._refuse_when_closed()
        if answer is not None:
            return answer, ended, False
        outcome, again = self._died(child, ended, limits)
        return outcome, ended, again

    def _died(self, child: Child, ended: Ended, limits: Limits) -> tuple[Quarantined, bool]:
        """What ended it: a limit that the kernel enforces, memory (libraries abort when they get none), or
        a crash, which may have been no fault of the document's."""
        if ended.status == -signal.SIGXCPU:
            return Quarantined("timeout", limits.too_long(), child.part()), False
        if ended.status == Child.NO_MEMORY or ended.peak > self._memory // 2:
            message = "Reading the document takes more memory than allowed."
            return Quarantined("memory", message, child.part()), False
        return Quarantined("crashed", "Reading the document crashes its reader.", child.part()), True

    async def _child(self, owner: str | None) -> Child:
        """One that the owner has used before, or a new one."""
        for place, (whose, child) in enumerate(self._idle):
            if whose == owner:
                del self._idle[place]
                if child.alive:
                    return child
                await child.end()
                break
        nursery, _ = await self._nursery()
        try:
            return await nursery.fork()
        except ParserUnavailable:
            if nursery.alive:
                raise
        nursery, _ = await self._nursery()
        return await nursery.fork()

    def _is_fit(self, child: Child, answer: Parsed | IngestionError) -> bool:
        """Whether a child may read another of its owner's documents."""
        harmed = isinstance(answer, Quarantined) and answer.reason in ("timeout", "memory", "crashed")
        return not harmed and not self._closed and child.served < self._share

    async def _keep(self, owner: str, child: Child) -> None:
        self._idle.append((owner, child))
        if len(self._idle) > _MOST_IDLE:
            _, oldest = self._idle.pop(0)
            await oldest.end()

    async def _nursery(self) -> tuple[Nursery, Containment]:
        async with self._starting:
            self._refuse_when_closed()
            if self._started is None or not self._started[0].alive:
                if self._started is not None:
                    await self._started[0].end()
                self._started = await start(self._reader, self._memory, self._timeout)
                _warn(self._started[1])
            return self._started

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ParserUnavailable("The parser was closed.")


async def _asked(
    child: Child,
    limits: Limits,
    content: bytes,
    filename: str | None,
    media_type: str | None,
    told: Callable[[str], None] | None,
) -> Parsed | IngestionError | None:
    """The child's answer, or that it took too long; None when it gave none. Meanwhile `told` is called now
    and then with the part that the child reads."""
    asking = asyncio.create_task(child.ask(content, filename, media_type))
    pace, tell_at = Pace(child.process, limits), time.monotonic() + _TELL_EVERY
    try:
        while not (await asyncio.wait({asking}, timeout=_LOOK_EVERY))[0]:
            part = child.part()
            if over := pace.over(part):
                return Quarantined("timeout", over, part)
            if told and part and time.monotonic() >= tell_at:
                told(part)
                tell_at += _TELL_EVERY
        return asking.result()
    except (OSError, EOFError, MalformedAnswer):
        return None
    finally:
        asking.cancel()
        await asyncio.wait({asking})


def _may_share(content: bytes, filename: str | None, media_type: str | None) -> bool:
    try:
        return len(content) <= SHARING_BYTES and sniff(content, filename, media_type) in SHARING
    except UnsupportedType:
        return False


def _warn(holds: Containment) -> None:
    lacking = [
        name
        for name, held in (
            ("the network", holds.network),
            ("other files", holds.files),
            ("starting processes", holds.processes),
        )
        if not held
    ]
    if lacking:
        logger.warning("this machine does not keep parsing processes from %s", ", ".join(lacking))
