"""Parses files made by anyone in processes that can be killed without loss.

A child lives for many documents, so that a small text costs a message and no start; it is replaced when it
is killed, when it used much memory and after a number of documents. The parent trusts nothing it says but
well-formed JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from ingestion.errors import IngestionError, ParserUnavailable, Quarantined
from ingestion.sandbox_process import Child, start
from ingestion.sandbox_wire import MalformedAnswer
from ingestion.types import Parsed

READER = "ingestion.parse:parse"


class Sandbox:
    """`timeout` in seconds of wall time for one document, `memory` in bytes of address space for one child.

    `children` documents are parsed at once; more calls wait. `recycle` is the number of documents after
    which a child is replaced. `reader` names the function that the child calls, `module:function`.
    Children start when they are first needed, and belong to one event loop.
    """

    def __init__(
        self, timeout: float, memory: int, children: int = 1, *, recycle: int = 5_000, reader: str = READER
    ) -> None:
        self._timeout = timeout
        self._memory = memory
        self._children = children
        self._recycle = recycle
        self._reader = reader
        self._turns = asyncio.Semaphore(children)
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._closed = False

    async def parse(self, content: bytes, filename: str | None, media_type: str | None) -> Parsed:
        """The document's text and structure.

        Raises `UnsupportedType`, `Quarantined` (the document's fault, `part` is where it stopped) or
        `ParserUnavailable` (ours). A child that dies gets one more try in a fresh one: something else on
        the machine may have killed it.
        """
        async with self._turns:
            answer, died = await self._attempt(content, filename, media_type)
            if died:
                answer, _ = await self._attempt(content, filename, media_type)
        if isinstance(answer, IngestionError):
            raise answer
        return answer

    async def close(self) -> None:
        """End every child, and wait until none is left; calls under way fail with `ParserUnavailable`."""
        self._closed = True
        for child in (*self._idle, *self._busy):
            await child.end()
        self._idle.clear()
        for _ in range(self._children):
            await self._turns.acquire()
        for _ in range(self._children):
            self._turns.release()

    async def _attempt(
        self, content: bytes, filename: str | None, media_type: str | None
    ) -> tuple[Parsed | IngestionError, bool]:
        """The answer, and whether the child died of it for no reason that we know."""
        async with self._child() as child:
            try:
                async with asyncio.timeout(self._timeout):
                    return await child.ask(content, filename, media_type), False
            except TimeoutError:
                return self._too_slow(child), False
            except (OSError, EOFError, MalformedAnswer):
                await child.end(grace=1.0)
        self._refuse_when_closed()
        return self._died(child)

    def _too_slow(self, child: Child) -> Quarantined:
        child.tired = True
        message = f"Reading the document takes longer than {self._timeout:g} seconds."
        return Quarantined("timeout", message, child.part())

    def _died(self, child: Child) -> tuple[Quarantined, bool]:
        """What ended it: a limit that the kernel enforces, memory (libraries abort when they get none), or
        a crash."""
        if child.status == -signal.SIGXCPU:
            return self._too_slow(child), False
        if child.status == Child.NO_MEMORY or child.peak > self._memory // 2:
            message = "Reading the document takes more memory than allowed."
            return Quarantined("memory", message, child.part()), False
        return Quarantined("crashed", "Reading the document crashes its reader.", child.part()), True

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[Child]:
        """A living child, kept for the next call unless it ended or is used up, or the call was cancelled."""
        child = await self._living()
        self._busy.add(child)
        try:
            self._refuse_when_closed()  # It may have been closed while the child started.
            yield child
        except BaseException:
            child.tired = True
            raise
        finally:
            self._busy.discard(child)
            if self._closed or child.tired or child.served >= self._recycle:
                await child.end()
            if child.alive:
                self._idle.append(child)

    async def _living(self) -> Child:
        self._refuse_when_closed()
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            await child.end()
        return await start(self._reader, self._memory, self._timeout)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ParserUnavailable("The parser was closed.")
