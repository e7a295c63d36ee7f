"""The registry of releases, and the pointer that says which one serves.

The pointer lives in PostgreSQL; every process looks at it twice a second. A process that cannot read it, or
is not yet able to serve the release it names, goes on with the last champion it saw: losing the database,
or loading an embedder, must not change what is served. `promotion` moves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import ModelUnknown, ReleaseConflict, ReleaseUnknown, RequestInvalid
from app.release import DEFAULT_RELEASE, Release, load_release, parse_release, with_model
from app.settings import Settings
from app.tables import audit, pointers, releases, transaction

log = logging.getLogger(__name__)

POLL = 0.5
CHAMPION = "champion"
MODEL = "plumbline"
"""What callers name as their model: the champion. `plumbline@<release>` names one release."""
_SHORTEST_PREFIX = 4
_FIRST_CHAMPION = 6_203_114_377
ReleaseState = Literal["draft", "champion", "retired"]


@dataclass(frozen=True, slots=True)
class Champion:
    """The release that serves. `state` is `bootstrap` until a champion passed an evaluation."""

    release: Release
    state: Literal["bootstrap", "champion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A release as the registry knows it. `evidence` is the verdict of its evaluation, None without one."""

    id: str
    name: str
    state: ReleaseState
    bootstrap: bool
    evidence: Mapping[str, Any] | None
    created_at: datetime
    release: Release


Prepare = Callable[[Release], Awaitable[None]]


async def _at_once(release: Release) -> None:
    """Nothing to prepare."""


def first_release(settings: Settings) -> Release:
    """The release that a new instance starts with."""
    release = load_release(settings.release or DEFAULT_RELEASE)
    return with_model(release, settings.model) if settings.model else release


class Registry:
    """Call `start` once, then keep `following` open for as long as `champion` is asked."""

    def __init__(self, engine: AsyncEngine, *, poll: float = POLL) -> None:
        self._engine = engine
        self._poll = poll
        self._champion: Champion | None = None
        self._prepare: Prepare = _at_once
        self._looking = asyncio.Lock()

    def champion(self) -> Champion:
        """The release that serves, as of the last look at the pointer."""
        if self._champion is None:
            raise RuntimeError("Registry.start has not been awaited.")
        return self._champion

    async def require_serving(self, model: str) -> None:
        """Raise `ModelUnknown` unless this model name (`plumbline`, `plumbline@<release>`) serves now."""
        name, at, reference = model.partition("@")
        if name != MODEL:
            raise ModelUnknown(f"The model {model!r} does not exist. /v1/models lists those that do.")
        served = self.champion().release
        if not at or reference == served.name or _begins(served.id, reference):
            return
        try:
            found = await self.show(reference)
        except ReleaseUnknown as error:
            raise ModelUnknown(str(error)) from None
        raise ModelUnknown(f"Release {found.id} does not serve: it is {found.state}. {served.id} serves.")

    async def start(self, first: Release) -> None:
        """Read the champion; where there is none yet, `first` becomes it, as `bootstrap`."""
        async with transaction(self._engine) as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_FIRST_CHAMPION)))
            if await _pointer(connection) is None:
                await _register(connection, first, bootstrap=True)
                await connection.execute(insert(pointers).values(name=CHAMPION, release_id=first.id))
                await _set_state(connection, first.id, "champion")
                await note(connection, "service", "release.bootstrap", first.id, {})
        await self.refresh()

    async def refresh(self) -> None:
        """Look at the pointer now. One look ends before the next begins, so that none brings back what an
        earlier one saw."""
        async with self._looking:
            async with transaction(self._engine) as connection:
                row = (
                    await connection.execute(
                        select(releases)
                        .join(pointers, pointers.c.release_id == releases.c.id)
                        .where(pointers.c.name == CHAMPION)
                    )
                ).one()
            state: Literal["bootstrap", "champion"] = "bootstrap" if row.bootstrap else "champion"
            served = self._champion
            if served is None or (served.release.id, served.state) != (row.id, state):
                release = parse_release(row.canonical)
                await self._prepare(release)
                self._champion = Champion(release, state)

    @asynccontextmanager
    async def following(self, prepare: Prepare | None = None) -> AsyncIterator[None]:
        """Look at the pointer every `poll` seconds for as long as the block lasts. A new champion is
        prepared before it counts as the one that serves."""
        self._prepare = prepare or _at_once
        task = asyncio.create_task(self._follow(), name="follow champion")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        readable = True
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever is wrong there, the last champion serves
                if readable:
                    log.warning("The champion cannot be read or served; the last one goes on: %s", error)
                readable = False
            else:
                readable = True

    async def add(self, release: Release, *, who: str = "command line") -> Registered:
        """Register as a draft. Adding the same release again changes nothing."""
        async with transaction(self._engine) as connection:
            if await _register(connection, release, bootstrap=False):
                await note(connection, who, "release.add", release.id, {"name": release.name})
            return await find(connection, release.id)

    async def list(self) -> list[Registered]:
        """Every release, the newest first."""
        newest_first = select(releases).order_by(releases.c.created_at.desc(), releases.c.id)
        async with transaction(self._engine) as connection:
            return [_registered(row) for row in await connection.execute(newest_first)]

    async def show(self, reference: str) -> Registered:
        """By id, by a prefix of it that only one has, or by name."""
        async with transaction(self._engine) as connection:
            return await find(connection, reference)

    async def judge(
        self, reference: str, evidence: Mapping[str, Any], *, passed: bool, who: str = "command line"
    ) -> Registered:
        """Keep the verdict of an evaluation; only a passed one lets a release be promoted."""
        verdict = {**evidence, "passed": passed}
        async with transaction(self._engine) as connection:
            found = await find(connection, reference)
            values: dict[str, Any] = {"evidence": verdict}
            if passed:
                values["bootstrap"] = False
            await connection.execute(update(releases).where(releases.c.id == found.id).values(values))
            await note(connection, who, "release.judge", found.id, verdict)
            return await find(connection, found.id)

    async def served(self) -> Registered:
        """The champion as the database has it now. Raises `ReleaseConflict` where there is none yet."""
        async with transaction(self._engine) as connection:
            return await find(connection, await _champion_id(connection))

    async def before(self) -> Registered | None:
        """The release that a rollback would bring back."""
        async with transaction(self._engine) as connection:
            earlier = await _before(connection, await _champion_id(connection))
            return await find(connection, earlier) if earlier else None

    async def seen(self) -> None:
        """Serve a change made here at once, where this process serves at all."""
        if self._champion is not None:
            await self.refresh()


def _begins(release_id: str, reference: str) -> bool:
    return len(reference) >= _SHORTEST_PREFIX and release_id.startswith(reference)


async def _register(connection: AsyncConnection, release: Release, *, bootstrap: bool) -> bool:
    """Whether it was new."""
    added = await connection.execute(
        postgresql.insert(releases)
        .values(
            id=release.id,
            name=release.name,
            fingerprint=release.fingerprint,
            canonical=release.canonical(),
            state="draft",
            bootstrap=bootstrap,
        )
        .on_conflict_do_nothing()
        .returning(releases.c.id)
    )
    return added.first() is not None


async def find(connection: AsyncConnection, reference: str) -> Registered:
    """The newest of a name; an id before a name; a prefix must be of one release only."""
    if "\x00" in reference:
        raise ReleaseUnknown(reference)
    exact = select(releases).where(or_(releases.c.id == reference, releases.c.name == reference))
    first = exact.order_by((releases.c.id == reference).desc(), releases.c.created_at.desc()).limit(1)
    row = (await connection.execute(first)).one_or_none()
    if row is not None:
        return _registered(row)
    if len(reference) < _SHORTEST_PREFIX:
        raise ReleaseUnknown(reference)
    begins = select(releases).where(releases.c.id.startswith(reference, autoescape=True)).limit(2)
    rows = (await connection.execute(begins)).all()
    if len(rows) > 1:
        raise RequestInvalid(f"More than one release id begins with {reference!r}.", "release")
    if not rows:
        raise ReleaseUnknown(reference)
    return _registered(rows[0])


async def _pointer(connection: AsyncConnection) -> str | None:
    where = select(pointers.c.release_id).where(pointers.c.name == CHAMPION).with_for_update()
    return cast("str | None", (await connection.execute(where)).scalar_one_or_none())


async def _champion_id(connection: AsyncConnection) -> str:
    """The champion, with the pointer locked against others who would move it."""
    served = await _pointer(connection)
    if served is None:
        raise ReleaseConflict("No release serves yet: start the service once.")
    return served


async def require_champion(connection: AsyncConnection, release_id: str) -> None:
    """Keep the pointer where it is until the transaction ends; raise `ReleaseConflict` if it has moved from
    this release."""
    served = await _champion_id(connection)
    if served != release_id:
        raise ReleaseConflict(f"Release {served} became champion meanwhile. Look again, and try again.")


async def _before(connection: AsyncConnection, served: str) -> str | None:
    """The release that the latest move to the served one came from."""
    moves = (
        select(audit.c.evidence)
        .where(audit.c.subject == served, audit.c.what == "release.promote")
        .order_by(audit.c.at.desc())
        .limit(1)
    )
    evidence = (await connection.execute(moves)).scalar_one_or_none()
    return cast("str | None", evidence["from"]) if evidence else None


async def move(connection: AsyncConnection, old: str, new: str) -> None:
    """Point at another release."""
    await connection.execute(
        update(pointers).where(pointers.c.name == CHAMPION).values(release_id=new, moved_at=func.now())
    )
    await _set_state(connection, old, "retired")
    await _set_state(connection, new, "champion")


async def _set_state(connection: AsyncConnection, release_id: str, state: ReleaseState) -> None:
    await connection.execute(update(releases).where(releases.c.id == release_id).values(state=state))


async def note(
    connection: AsyncConnection, who: str, what: str, subject: str, evidence: Mapping[str, Any]
) -> None:
    await connection.execute(
        insert(audit).values(who=who, what=what, subject=subject, evidence=dict(evidence))
    )


def _registered(row: Row[Any]) -> Registered:
    return Registered(
        id=row.id,
        name=row.name,
        state=row.state,
        bootstrap=row.bootstrap,
        evidence=row.evidence,
        created_at=row.created_at,
        release=parse_release(row.canonical),
    )
