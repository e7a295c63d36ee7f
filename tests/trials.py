"""Releases on trial at a whole instance, as their owners see them: over HTTP, and added to its ledger."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import instance
from app.database import open_engine
from app.release import DEFAULT_RELEASE, ModelRef, Release, load_release
from app.releases import Registry
from eval.rules import DEFAULT_RULES, load_rules
from tests.live import Instance

Told = Mapping[str, Any]
PROMPT = {"warm_up_seconds": 0.0, "settle_seconds": 0.5}
"""What a canary that is over within a minute waits for."""


def write_rules(folder: Path, **changes: float) -> Path:
    """The rules that ship, but for these values."""
    rules = DEFAULT_RULES.read_text()
    for name, value in changes.items():
        rules, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", rules, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"{name} is in the rules {found} times")
    written = folder / "rules.toml"
    written.write_text(rules)
    load_rules(written)
    return written


def release(name: str, *models: str, **sampling: float) -> Release:
    """The release that ships, under another name, with these models and this sampling."""
    base = load_release(DEFAULT_RELEASE)
    changes: dict[str, Any] = {"name": name, "models": [ModelRef(name=model) for model in models]}
    if sampling:
        changes["sampling"] = base.body.sampling.model_copy(update=sampling)
    return replace(base, body=base.body.model_copy(update=changes))


@dataclass(frozen=True, slots=True)
class Desk:
    """From where releases are tried. `engine` is the instance's own ledger."""

    one: Instance
    http: httpx.AsyncClient
    engine: AsyncEngine

    async def add(self, added: Release) -> str:
        """Registered, and its evaluation passed; its id."""
        registry = Registry(self.engine)
        await registry.add(added)
        await registry.judge(added.id, {}, passed=True)
        return added.id

    async def standing(self) -> Told:
        return await self._get("/v1/releases/standing")

    async def champion(self) -> str:
        return str((await self.standing())["champion"]["id"])

    async def start(self, kind: str, reference: str, **plan: Any) -> None:
        reply = await self.http.post(f"/v1/releases/{reference}/{kind}", json=plan)
        assert reply.status_code == 201, reply.text

    async def promote(self, reference: str) -> None:
        body = {"force": True, "reason": "This run begins with it."}
        (await self.http.post(f"/v1/releases/{reference}/promote", json=body)).raise_for_status()

    async def trial(self, reference: str) -> Told:
        """The release's latest."""
        latest: Told = (await self._get(f"/v1/releases/{reference}/trials"))["trials"][-1]
        return latest

    async def until(self, reference: str, true: Callable[[Told], bool], seconds: float, *, what: str) -> Told:
        """The release's trial once this is true of it."""
        end = time.monotonic() + seconds
        while not true(found := await self.trial(reference)):
            shown = {name: value for name, value in found.items() if name != "evidence"}
            assert time.monotonic() < end, f"not {what} within {seconds} s: {shown} {found['evidence']}"
            await asyncio.sleep(0.1)
        return found

    async def rows(self, statement: str, **values: Any) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            return (await connection.execute(text(statement), values)).all()

    async def end(self) -> None:
        """Stop whatever trial runs."""
        for trial in (await self.standing())["trials"]:
            await self.http.post(f"/v1/releases/{trial['release']}/stop", json={"reason": "It is over."})

    @asynccontextmanager
    async def held(self, reference: str) -> AsyncIterator[AsyncConnection]:
        """Keep everybody from changing the release's trial until the block ends."""
        async with self.engine.connect() as connection:
            lock = "SELECT id FROM trials WHERE release_id = :id AND ended_at IS NULL FOR UPDATE"
            await connection.execute(text(lock), {"id": reference})
            yield connection

    async def _get(self, path: str) -> Told:
        reply = await self.http.get(path)
        reply.raise_for_status()
        told: Told = reply.json()
        return told


@asynccontextmanager
async def desk(one: Instance) -> AsyncIterator[Desk]:
    running = instance.running(one.data)
    assert running is not None
    engine = open_engine(running.database_url, pool_size=3)
    try:
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as http:
            yield Desk(one, http, engine)
    finally:
        await engine.dispose()
