"""Trials of a release beside the champion: a shadow, which mirrors answers, and a canary, which gives some.

A trial that was started has no share yet: whoever watches it gives it one, as a lease that has to be renewed.
So nothing is routed to a release that nobody watches, and a watcher that dies takes it off the traffic.
Every start and end is audited, with what it was decided on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, Text, cast, delete, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import releases, tables
from app.errors import ReleaseConflict
from app.indexes import Indexes
from app.releases import Registered, Registry
from app.tables import feedback, outcomes, pairs, pointers, transaction, trials

LEASE = 5.0
"""Seconds for which a share holds without being renewed."""
SOAK = 3_600.0
"""Seconds for which a former champion keeps the conversations that began with it."""
KEPT_DAYS = 30
TrialKind = Literal["shadow", "canary"]
TrialState = Literal["running", "passed", "failed", "stopped", "promoted", "rolled_back"]
_ENDED_AS: Mapping[TrialState, releases.ReleaseState] = {"failed": "retired", "rolled_back": "retired"}
"""What the release is afterwards; else what it was before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`plan` is its watcher's to read; `step` counts its steps from 0. `share` is that of the conversations
    (canary) or of the answers (shadow); `live` says whether its lease holds. `evidence` is what its watcher
    last saw, `decision` why it ended."""

    id: str
    kind: TrialKind
    release: str
    control: str
    state: TrialState
    plan: Mapping[str, Any]
    step: int
    share: float
    live: bool
    evidence: Mapping[str, Any]
    decision: Mapping[str, Any] | None
    who: str
    started_at: datetime
    step_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one request in a canary: `unit` names its conversation, `propensity` is the chance that
    this conversation had of going to the candidate, `facts` are measures of the answer by name. Only a
    `counted` one is evidence."""

    id: int
    candidate: bool
    counted: bool
    kind: str
    tenant: str
    unit: str
    propensity: float
    facts: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The champion's answer and the shadow's to the same question."""

    id: int
    counted: bool
    kind: str
    tenant: str
    champion: Mapping[str, Any]
    candidate: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Requests that the release on trial answered. `parts` has them by kind and tenant, the most first:
    `{"kind", "tenant", "requests"}`, a tenant by its hash alone."""

    requests: int
    conversations: int
    tenants: int
    faults: int
    degraded: int
    first_at: datetime | None
    last_at: datetime | None
    first: str | None
    last: str | None
    parts: Sequence[Mapping[str, Any]]


class Trials:
    def __init__(self, engine: AsyncEngine, registry: Registry, indexes: Indexes) -> None:
        self._engine = engine
        self._registry = registry
        self._indexes = indexes

    async def start(
        self,
        kind: TrialKind,
        reference: str,
        plan: Mapping[str, Any],
        *,
        force: bool = False,
        reason: str = "",
        who: str = "command line",
    ) -> Trial:
        """Begin a trial against the champion. Without a passed evaluation it takes `force` and a reason.
        Raises `ReleaseConflict` while another of its kind runs, and `IndexNotReady`."""
        served, found = await self._registry.served(), await self._registry.show(reference)
        if found.id == served.id:
            raise ReleaseConflict(f"Release {found.id} is the champion: there is nothing to try.")
        releases.require_evaluated(found, force=force, reason=reason)
        await self._indexes.require(found.release, served.release, allow_missing=False)
        try:
            async with transaction(self._engine) as connection:
                started = await self._begin(
                    connection, kind, served, found.id, dict(plan), force=force, reason=reason, who=who
                )
        except IntegrityError:
            raise ReleaseConflict(await self._taken(kind)) from None
        await self._registry.seen()
        return started

    async def _taken(self, kind: TrialKind) -> str:
        """Why no trial of this kind can start."""
        other = next((one.release for one in await self.running() if one.kind == kind), None)
        which = f": that of release {other}. End it with `plumbline release stop {other}`" if other else ""
        return f"Another {kind} runs{which}."

    async def _begin(
        self,
        connection: AsyncConnection,
        kind: TrialKind,
        served: Registered,
        release_id: str,
        plan: dict[str, Any],
        *,
        force: bool,
        reason: str,
        who: str,
    ) -> Trial:
        await releases.require_champion(connection, served.id)
        found = await releases.find(connection, release_id)
        await releases.admit(connection, found, force=force, reason=reason)
        await releases.set_state(connection, found, kind)
        plan["index"] = await self._indexes.generation(found.release)
        if kind == "canary":
            plan["generation"] = await self._indexes.admit(connection, found.release, served.release)
        values = {"kind": kind, "release_id": found.id, "control_id": served.id, "plan": plan, "who": who}
        trial_id = await connection.scalar(insert(trials).values(**values).returning(trials.c.id))
        noted = {"trial": str(trial_id), "against": served.id, "plan": plan, "force": force, "reason": reason}
        await releases.note(connection, who, f"release.{kind}", found.id, noted)
        return await _one(connection, str(trial_id))

    async def running(self) -> Sequence[Trial]:
        """Those that have not ended, the oldest first."""
        async with transaction(self._engine) as connection:
            rows = await connection.execute(_ALL.where(trials.c.ended_at.is_(None)))
            return [_trial(row) for row in rows]

    async def of(self, reference: str) -> Sequence[Trial]:
        """Those of a release, the oldest first."""
        async with transaction(self._engine) as connection:
            found = await releases.find(connection, reference)
            return [_trial(row) for row in await connection.execute(_ALL.where(_of(found.id)))]

    async def renew(
        self,
        trial: Trial,
        *,
        step: int,
        share: float,
        evidence: Mapping[str, Any],
        seconds: float = LEASE,
    ) -> bool:
        """Let it have this share for so long; whether it still runs, at the step at which it was read. Who
        read it before another controller took it on decides nothing any more."""
        values: dict[str, Any] = {
            "step": step,
            "share": share,
            "evidence": dict(evidence),
            "lease_until": func.clock_timestamp() + text("make_interval(secs => :seconds)"),
        }
        if step != trial.step:
            values["step_at"] = func.now()
        as_read = (trials.c.id == trial.id, trials.c.ended_at.is_(None), trials.c.step == trial.step)
        statement = update(trials).where(*as_read).values(values)
        async with transaction(self._engine) as connection:
            renewed = await connection.execute(statement.returning(trials.c.id), {"seconds": seconds})
            moved = renewed.first() is not None
            if moved and step != trial.step:
                noted = {"trial": trial.id, "step": step, "share": share, "evidence": dict(evidence)}
                await releases.note(connection, "controller", "release.step", trial.release, noted)
        return moved

    async def end(
        self,
        trial: Trial,
        state: TrialState,
        decision: Mapping[str, Any],
        *,
        who: str = "controller",
    ) -> bool:
        """End it and take its release off the traffic, in one transaction that asks for nothing else; whether
        it still ran. A release that did harm must pass an evaluation again."""
        async with transaction(self._engine) as connection:
            if trial.plan.get("generation"):
                # As whoever moves the pointer does: first the pointer, then trials, then indexes.
                await releases.hold_champion(connection)
            values = {
                "state": state,
                "share": 0.0,
                "lease_until": None,
                "decision": dict(decision),
                "ended_at": func.now(),
            }
            still = trials.c.ended_at.is_(None)
            ended = await connection.execute(
                update(trials).where(trials.c.id == trial.id, still).values(values).returning(trials.c.plan)
            )
            row = ended.one_or_none()
            if row is None:
                return False
            await self._rest(connection, trial, state, decision)
            if row.plan.get("generation"):
                await self._let_go(connection, row.plan["generation"])
            what = "release.rollback" if state == "rolled_back" else f"release.{trial.kind}.{state}"
            noted = {"trial": trial.id, "decision": dict(decision)}
            await releases.note(connection, who, what, trial.release, noted)
        await self._registry.seen()
        return True

    async def _rest(
        self, connection: AsyncConnection, trial: Trial, state: TrialState, decision: Mapping[str, Any]
    ) -> None:
        """What the release is now."""
        found = await releases.find(connection, trial.release)
        if found.state == trial.kind:
            rested: releases.ReleaseState = "evaluated" if found.evaluated else "draft"
            await releases.set_state(connection, found, _ENDED_AS.get(state, rested))
        if state in _ENDED_AS and found.evaluated:
            await releases.withdraw(connection, found, {"trial": trial.id, **decision})

    async def _let_go(self, connection: AsyncConnection, generation: str) -> None:
        """Of an index that takes traffic for a trial that has ended. Another trial that needs it has to let
        go of it in its turn."""
        shares = (trials.c.ended_at.is_(None), trials.c.plan["index"].astext == generation)
        plan = trials.c.plan.op("||")(cast({"generation": generation}, JSONB))
        handed = await connection.execute(
            update(trials).where(*shares).values(plan=plan).returning(trials.c.id)
        )
        if not handed.all():
            await self._indexes.dismiss(connection, generation)

    async def outcomes(self, trial_id: str, after: int = 0, limit: int = 20_000) -> Sequence[Outcome]:
        """Those recorded after the one with this number."""
        statement = (
            select(outcomes)
            .where(outcomes.c.trial == trial_id, outcomes.c.id > after)
            .order_by(outcomes.c.id)
            .limit(limit)
        )
        async with transaction(self._engine) as connection:
            return [_outcome(row) for row in await connection.execute(statement)]

    async def disliked(self, trial_id: str, since: datetime) -> Sequence[Outcome]:
        """Those whose readers said since then that the answer is bad."""
        said = (feedback.c.tenant == outcomes.c.tenant) & (feedback.c.answer == outcomes.c.answer)
        statement = (
            select(outcomes)
            .join(feedback, said)
            .where(outcomes.c.trial == trial_id, feedback.c.rating == "down", feedback.c.at >= since)
            .order_by(outcomes.c.id)
        )
        async with transaction(self._engine) as connection:
            return [_outcome(row) for row in await connection.execute(statement)]

    async def pairs(self, trial_id: str, after: int = 0, limit: int = 20_000) -> Sequence[Pair]:
        statement = (
            select(pairs)
            .where(pairs.c.trial == trial_id, pairs.c.id > after)
            .order_by(pairs.c.id)
            .limit(limit)
        )
        async with transaction(self._engine) as connection:
            return [_pair(row) for row in await connection.execute(statement)]

    async def affected(self, trial_id: str) -> Affected:
        async with transaction(self._engine) as connection:
            row = (await connection.execute(_AFFECTED, {"trial": trial_id})).one()
        return Affected(**row._mapping)

    async def forget(self, days: int = KEPT_DAYS) -> None:
        """Remove single outcomes and pairs of trials that ended long ago, and what readers said long ago of
        answers that belong to no trial that runs; what was decided on them stays."""
        long_ago = func.now() - text("make_interval(days => :days)")
        running = select(func.min(trials.c.started_at)).where(trials.c.ended_at.is_(None)).scalar_subquery()
        ended = select(trials.c.id).where(trials.c.ended_at < long_ago)
        async with transaction(self._engine) as connection:
            for table in (outcomes, pairs):
                await connection.execute(delete(table).where(table.c.trial.in_(ended)), {"days": days})
            unneeded = feedback.c.at < func.least(long_ago, func.coalesce(running, long_ago))
            await connection.execute(delete(feedback).where(unneeded), {"days": days})

    async def end_soaking(self, seconds: float = SOAK) -> None:
        """Retire a former champion that has had its time."""
        long_ago = func.now() - text("make_interval(secs => :seconds)")
        since = select(pointers.c.moved_at).where(pointers.c.name == releases.CHAMPION).scalar_subquery()
        statement = (
            update(tables.releases)
            .where(tables.releases.c.state == "soaking", since < long_ago)
            .values(state="retired")
        )
        async with transaction(self._engine) as connection:
            await connection.execute(statement, {"seconds": seconds})


_ALL: Select[Any] = select(
    trials, (func.coalesce(trials.c.lease_until, func.now()) > func.now()).label("live")
).order_by(trials.c.started_at, trials.c.id)
_AFFECTED = text(
    """
    SELECT count(*) AS requests, count(DISTINCT (tenant, unit)) AS conversations,
        count(DISTINCT tenant) AS tenants,
        count(*) FILTER (WHERE (facts->>'fault')::float > 0) AS faults,
        count(*) FILTER (WHERE (facts->>'degraded')::float > 0) AS degraded,
        min(at) AS first_at, max(at) AS last_at,
        (array_agg(answer ORDER BY id))[1] AS first, (array_agg(answer ORDER BY id DESC))[1] AS last,
        (
            SELECT coalesce(jsonb_agg(to_jsonb(part)), '[]') FROM (
                SELECT kind, left(encode(sha256(convert_to(tenant, 'UTF8')), 'hex'), 12) AS tenant,
                    count(*) AS requests
                FROM outcomes WHERE trial = CAST(:trial AS uuid) AND candidate
                GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 200
            ) AS part
        ) AS parts
    FROM outcomes WHERE trial = CAST(:trial AS uuid) AND candidate
    """
).columns(parts=JSONB)


async def hold(connection: AsyncConnection, release_id: str, trial: Trial | None = None) -> None:
    """Keep the trials of a release as they are until the transaction ends; raise `ReleaseConflict` if this
    one of them has ended."""
    running = select(trials.c.id).where(_of(release_id), trials.c.ended_at.is_(None)).with_for_update()
    held = (await connection.execute(running.order_by(trials.c.id))).scalars().all()
    if trial and trial.id not in held:
        raise ReleaseConflict(f"The {trial.kind} of release {release_id} was ended meanwhile.")


async def keep_indexes(connection: AsyncConnection) -> None:
    """No trial that runs lets go of an index at its end."""
    plan = trials.c.plan.op("-")(literal("generation", Text))
    await connection.execute(update(trials).where(trials.c.ended_at.is_(None)).values(plan=plan))


def _of(release_id: str) -> Any:
    return trials.c.release_id == release_id


async def _one(connection: AsyncConnection, trial_id: str) -> Trial:
    return _trial((await connection.execute(_ALL.where(trials.c.id == trial_id))).one())


def _trial(row: Row[Any]) -> Trial:
    return Trial(
        id=str(row.id),
        kind=row.kind,
        release=row.release_id,
        control=row.control_id,
        state=row.state,
        plan=row.plan,
        step=row.step,
        share=row.share,
        live=row.live,
        evidence=row.evidence,
        decision=row.decision,
        who=row.who,
        started_at=row.started_at,
        step_at=row.step_at,
        ended_at=row.ended_at,
    )


def _outcome(row: Row[Any]) -> Outcome:
    return Outcome(
        id=row.id,
        candidate=row.candidate,
        counted=row.counted,
        kind=row.kind,
        tenant=row.tenant,
        unit=row.unit,
        propensity=row.propensity,
        facts=row.facts,
        at=row.at,
    )


def _pair(row: Row[Any]) -> Pair:
    return Pair(
        id=row.id,
        counted=row.counted,
        kind=row.kind,
        tenant=row.tenant,
        champion=row.champion,
        candidate=row.candidate,
        at=row.at,
    )
