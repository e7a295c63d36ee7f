"""The registry of releases, and the pointer that says which one serves.

The pointer lives in PostgreSQL; every process looks at it twice a second, and at the trials that run. A
process that cannot read it, or is not yet able to serve the release it names, goes on with the last champion
it saw: losing the database, or loading an embedder, must not change what is served. A trial gets no requests
once its lease is over. `promotion` moves the pointer, `trials` starts and ends trials.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import ModelUnknown, ReleaseConflict, ReleaseUnknown, RequestInvalid
from app.release import DEFAULT_RELEASE, Release, load_release, parse_release, with_model
from app.settings import Settings
from app.tables import audit, pointers, releases, transaction, trials

log = logging.getLogger(__name__)

POLL = 0.5
CHAMPION = "champion"
MODEL = "plumbline"
"""What callers name as their model: the champion. `plumbline@<release>` names one release."""
_SHORTEST_PREFIX = 4
_MOST_READ = 32
_FIRST_CHAMPION = 6_203_114_377
ReleaseState = Literal["draft", "evaluated", "shadow", "canary", "champion", "soaking", "retired"]
TRANSITIONS: Mapping[ReleaseState, frozenset[ReleaseState]] = {
    "draft": frozenset({"evaluated", "shadow", "canary", "champion"}),
    "evaluated": frozenset({"draft", "shadow", "canary", "champion"}),
    "shadow": frozenset({"draft", "evaluated", "champion", "retired"}),
    "canary": frozenset({"draft", "evaluated", "champion", "retired"}),
    "champion": frozenset({"soaking", "retired"}),
    "soaking": frozenset({"champion", "retired"}),
    "retired": frozenset({"draft", "evaluated", "shadow", "canary", "champion"}),
}
"""What may follow what. From `draft` and `retired` to traffic only with a passed evaluation or by force."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The release that serves. `state` is `bootstrap` until a champion passed an evaluation; `forced` is the
    reason for which it serves without one."""

    release: Release
    state: Literal["bootstrap", "champion"]
    forced: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTrial:
    """A release in shadow or canary: its share of the conversations (of a shadow, of the answers that are
    mirrored), until a time of the monotonic clock. A process goes by the lease as it read it, whatever
    becomes of the database."""

    trial: str
    release: Release
    share: float
    until: float

    @property
    def live(self) -> bool:
        return time.monotonic() < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All releases that may get requests. `soaking` was champion before, and keeps the conversations that
    began with it."""

    champion: Champion
    canary: OnTrial | None = None
    shadow: OnTrial | None = None
    soaking: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A release as the registry knows it. `evidence` is the verdict of its evaluation, None without one;
    `forced` is why it got traffic without a passed one."""

    id: str
    name: str
    state: ReleaseState
    bootstrap: bool
    evidence: Mapping[str, Any] | None
    forced: str | None
    created_at: datetime
    release: Release

    @property
    def evaluated(self) -> bool:
        return bool(self.evidence and self.evidence.get("passed"))


Prepare = Callable[[Release], Coroutine[Any, Any, None]]

_STANDING = (
    select(
        releases.c.id,
        releases.c.canonical,
        releases.c.bootstrap,
        releases.c.forced,
        (releases.c.state == "soaking").label("soaking"),
        pointers.c.name.is_not(None).label("serves"),
        trials.c.id.label("trial"),
        trials.c.kind,
        trials.c.control_id,
        trials.c.share,
        func.extract("epoch", trials.c.lease_until - func.clock_timestamp()).label("left"),
    )
    .outerjoin(pointers, and_(pointers.c.release_id == releases.c.id, pointers.c.name == CHAMPION))
    .outerjoin(trials, and_(trials.c.release_id == releases.c.id, trials.c.ended_at.is_(None)))
    .where(or_(pointers.c.name.is_not(None), trials.c.id.is_not(None), releases.c.state == "soaking"))
)
"""Every release that may get requests, in one look: once for each trial that it is in."""


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
        self._standing: Standing | None = None
        self._prepare: Prepare = _at_once
        self._looking = asyncio.Lock()
        self._read: dict[str, Release] = {}
        self._warming: dict[str, asyncio.Task[None]] = {}
        self._unready: set[str] = set()

    def standing(self) -> Standing:
        """The releases that may get requests, as of the last look."""
        if self._standing is None:
            raise RuntimeError("Registry.start has not been awaited.")
        return self._standing

    def champion(self) -> Champion:
        """The release that serves, as of the last look at the pointer."""
        return self.standing().champion

    async def named(self, model: str) -> Release | None:
        """The release that a model's name means: `plumbline@<release>`; None for `plumbline`, which leaves it
        to us. Raises `ModelUnknown`."""
        name, at, reference = model.partition("@")
        if name != MODEL:
            raise ModelUnknown(f"The model {model!r} does not exist. /v1/models lists those that do.")
        if not at:
            return None
        standing = self.standing()
        served = standing.champion.release
        if reference == served.name or _begins(served.id, reference):
            return served
        try:
            return (await self.show(reference)).release
        except ReleaseUnknown as error:
            raise ModelUnknown(str(error)) from None

    async def start(self, first: Release) -> None:
        """Read the champion; where there is none yet, `first` becomes it, as `bootstrap`."""
        async with transaction(self._engine) as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_FIRST_CHAMPION)))
            if await connection.scalar(_POINTER) is None:
                await _register(connection, first, bootstrap=True)
                await connection.execute(insert(pointers).values(name=CHAMPION, release_id=first.id))
                await set_state(connection, await find(connection, first.id), "champion")
                await note(connection, "service", "release.bootstrap", first.id, {})
        await self.refresh()

    async def refresh(self) -> None:
        """Look at the pointer and the trials now. One look ends before the next begins, so that none brings
        back what an earlier one saw."""
        async with self._looking:
            begin = time.monotonic()
            async with transaction(self._engine) as connection:
                rows = (await connection.execute(_STANDING)).all()
            champion = await self._next(next(one for one in rows if one.serves))
            soaking = next((one for one in rows if one.soaking), None)
            on_trial = {
                one.kind: OnTrial(
                    trial=str(one.trial),
                    release=self._release(one),
                    share=one.share,
                    until=begin + float(one.left or 0.0),
                )
                for one in rows
                if one.trial and one.control_id == champion.release.id
            }
            self._standing = Standing(
                champion=champion,
                canary=on_trial.get("canary"),
                shadow=on_trial.get("shadow"),
                soaking=self._release(soaking) if soaking else None,
            )
            self._warm()

    async def _next(self, row: Row[Any]) -> Champion:
        """The champion that this row says, prepared if it is a new one."""
        state: Literal["bootstrap", "champion"] = "bootstrap" if row.bootstrap else "champion"
        served = self._standing.champion if self._standing else None
        if served and (served.release.id, served.state, served.forced) == (row.id, state, row.forced):
            return served
        release = self._release(row)
        await self._prepare(release)
        return Champion(release, state, row.forced)

    def _release(self, row: Any) -> Release:
        """Parsed once: the same row is read twice a second."""
        if row.id not in self._read:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[row.id] = parse_release(row.canonical)
        return self._read[row.id]

    def _warm(self) -> None:
        """Prepare what may get requests beside the champion, without holding up the next look. One that is
        ready is asked for again, so that it is not given up for others."""
        standing = self.standing()
        wanted = [standing.canary.release] if standing.canary else []
        wanted += [standing.soaking] if standing.soaking else []
        for release in wanted:
            task = self._warming.get(release.id)
            if task is None or task.done():
                self._warming[release.id] = asyncio.create_task(self._ready(release))
        for gone in self._warming.keys() - {release.id for release in wanted}:
            self._warming.pop(gone).cancel()

    async def _ready(self, release: Release) -> None:
        try:
            await self._prepare(release)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the champion serves
            if release.id not in self._unready:
                log.warning("Release %s cannot be made ready; it gets no requests: %s", release.id, error)
            self._unready.add(release.id)
        else:
            self._unready.discard(release.id)

    @asynccontextmanager
    async def following(self, prepare: Prepare | None = None) -> AsyncIterator[None]:
        """Look at the pointer every `poll` seconds for as long as the block lasts. A new champion is
        prepared before it counts as the one that serves."""
        self._prepare = prepare or _at_once
        task = asyncio.create_task(self._follow(), name="follow champion")
        try:
            yield
        finally:
            tasks = [task, *self._warming.values()]
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
        """Keep the verdict of an evaluation; only a passed one lets a release be promoted. Raises
        `ReleaseConflict` for one that passed against a `baseline` that does not serve, itself perhaps: it
        says nothing of whether the champion may be replaced."""
        verdict = {**evidence, "passed": passed}
        async with transaction(self._engine) as connection:
            found = await find(connection, reference)
            if passed:
                await _require_against_champion(connection, found, evidence.get("baseline"))
            values: dict[str, Any] = {"evidence": verdict}
            if passed:
                values |= {"bootstrap": False, "forced": None}
            await connection.execute(update(releases).where(releases.c.id == found.id).values(values))
            if found.state in ("draft", "evaluated", "retired"):
                await set_state(connection, found, "evaluated" if passed else "draft")
            await note(connection, who, "release.judge", found.id, verdict)
            return await find(connection, found.id)

    async def history(self, reference: str, limit: int = 200) -> Sequence[Mapping[str, Any]]:
        """What the audit says of a release, the oldest first."""
        async with transaction(self._engine) as connection:
            found = await find(connection, reference)
            newest = (
                select(audit.c.at, audit.c.who, audit.c.what, audit.c.evidence)
                .where(audit.c.subject == found.id)
                .order_by(audit.c.at.desc())
                .limit(limit)
            )
            rows = (await connection.execute(newest)).all()
        return [
            {"at": row.at, "who": row.who, "what": row.what, "evidence": row.evidence}
            for row in reversed(rows)
        ]

    async def served(self) -> Registered:
        """The champion as the database has it now. Raises `ReleaseConflict` where there is none yet."""
        async with transaction(self._engine) as connection:
            return await find(connection, await _served(connection))

    async def before(self) -> Registered | None:
        """The release that a rollback would bring back; None while the first champion serves."""
        async with transaction(self._engine) as connection:
            earlier = await _before(connection, await _served(connection))
            return await find(connection, earlier) if earlier else None

    async def seen(self) -> None:
        """Serve a change made here at once, where this process serves at all."""
        if self._standing is not None:
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
    """The newest of a name; an id before a name; a prefix must be of one release only. `champion` is the one
    that serves, unless a release has that name."""
    if "\x00" in reference:
        raise ReleaseUnknown(reference)
    exact = select(releases).where(or_(releases.c.id == reference, releases.c.name == reference))
    first = exact.order_by((releases.c.id == reference).desc(), releases.c.created_at.desc()).limit(1)
    row = (await connection.execute(first)).one_or_none()
    if row is not None:
        return _registered(row)
    if reference == CHAMPION:
        return await find(connection, await _served(connection))
    if len(reference) < _SHORTEST_PREFIX:
        raise ReleaseUnknown(reference)
    begins = select(releases).where(releases.c.id.startswith(reference, autoescape=True)).limit(2)
    rows = (await connection.execute(begins)).all()
    if len(rows) > 1:
        raise RequestInvalid(f"More than one release id begins with {reference!r}.", "release")
    if not rows:
        raise ReleaseUnknown(reference)
    return _registered(rows[0])


_POINTER = select(pointers.c.release_id).where(pointers.c.name == CHAMPION)


async def _served(connection: AsyncConnection, *, locked: bool = False) -> str:
    """The champion; `locked` against others who would move the pointer, until the transaction ends."""
    where = _POINTER.with_for_update() if locked else _POINTER
    served = cast("str | None", await connection.scalar(where))
    if served is None:
        raise ReleaseConflict("No release serves yet: start the service once.")
    return served


async def require_champion(connection: AsyncConnection, release_id: str) -> None:
    """Keep the pointer where it is until the transaction ends; raise `ReleaseConflict` if it has moved from
    this release."""
    served = await _served(connection, locked=True)
    if served != release_id:
        raise ReleaseConflict(f"Release {served} became champion meanwhile. Look again, and try again.")


async def _require_against_champion(
    connection: AsyncConnection, found: Registered, baseline: str | None
) -> None:
    """Of the champion itself a verdict says whether it works; without one there is nothing to replace."""
    served = await connection.scalar(_POINTER)
    if baseline is not None and served not in (None, found.id, baseline):
        raise ReleaseConflict(
            f"It was compared with release {baseline}, which does not serve: {served} does. "
            f"Evaluate {served} on the same data, and take that for the baseline of `plumbline eval gate`."
        )


async def hold_champion(connection: AsyncConnection) -> None:
    """Keep the pointer where it is until the transaction ends."""
    await _served(connection, locked=True)


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


async def move(
    connection: AsyncConnection, old: Registered, new: Registered, left: ReleaseState, why: str
) -> None:
    """Point at another release; the old one is then `soaking`, or `retired`, no other soaks any longer, and a
    trial of the new one has ended well, which is why."""
    await connection.execute(
        update(trials)
        .where(trials.c.ended_at.is_(None), trials.c.release_id == new.id)
        .values(state="promoted", decision={"why": why}, ended_at=func.now(), share=0.0, lease_until=None)
    )
    await connection.execute(
        update(pointers).where(pointers.c.name == CHAMPION).values(release_id=new.id, moved_at=func.now())
    )
    await connection.execute(update(releases).where(releases.c.state == "soaking").values(state="retired"))
    await set_state(connection, old, left)
    await set_state(connection, await find(connection, new.id), "champion")


async def set_state(connection: AsyncConnection, found: Registered, state: ReleaseState) -> None:
    """Raises `ReleaseConflict` for what `TRANSITIONS` does not allow."""
    if state != found.state and state not in TRANSITIONS[found.state]:
        raise ReleaseConflict(f"Release {found.id} is {found.state}; it cannot become {state}.")
    await connection.execute(update(releases).where(releases.c.id == found.id).values(state=state))


async def admit(connection: AsyncConnection, found: Registered, *, force: bool, reason: str) -> None:
    """Let a release take traffic: one that passed an evaluation, or by `force` with a reason, which is kept
    with it. Raises `ReleaseConflict` or `RequestInvalid`."""
    require_evaluated(found, force=force, reason=reason)
    if not found.evaluated:
        await connection.execute(
            update(releases).where(releases.c.id == found.id).values(forced=reason.strip())
        )


def require_evaluated(found: Registered, *, force: bool, reason: str) -> None:
    if found.evaluated:
        return
    if not force:
        raise ReleaseConflict(
            f"Release {found.id} has not passed an evaluation. Run `plumbline eval gate` and keep the "
            "verdict with `plumbline release judge`, or force it with --force and a --reason."
        )
    if not reason.strip():
        raise RequestInvalid("A release without a passed evaluation needs a reason.", "reason")


async def withdraw(connection: AsyncConnection, found: Registered, why: Mapping[str, Any]) -> None:
    """Let its passed evaluation count no longer."""
    evidence = {**(found.evidence or {}), "passed": False, "withdrawn": dict(why)}
    await connection.execute(update(releases).where(releases.c.id == found.id).values(evidence=evidence))


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
        forced=row.forced,
        created_at=row.created_at,
        release=parse_release(row.canonical),
    )
