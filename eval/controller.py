"""The controller: watches the trials that run, and decides.

Read `tick` from top to bottom. Everything it knows is in the ledger, so it may be killed at any moment: what
it last granted runs out by itself, and another one goes on from the same outcomes. One works at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import telemetry
from app.errors import AppError
from app.pulse import beating
from app.settings import Settings
from app.standalone import CONTROLLER_READY
from app.supervisor import signals
from app.tables import WAIT, transaction
from app.trials import Outcome, Pair, Trial
from app.wiring import Control, open_control
from eval.arrivals import LONGEST, Arrivals
from eval.canary import CanaryWatch
from eval.rules import CanaryRules, Rules, ShadowRules
from eval.shadowing import ShadowWatch
from eval.types import RulesInvalid
from ingestion.errors import LedgerUnavailable
from ingestion.transaction import session
from retrieval.errors import RetrievalError

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at the outcomes,"""
IDLE = 1.0
"""and between looks whether there is a trial."""
LATE = timedelta(seconds=2 * WAIT)
"""For so long outcomes are read again: they are not numbered in the order in which they become visible, but
no transaction that writes some lasts longer."""
AT_ONCE = 20_000
PATIENCE = 10.0
"""Seconds after a promotion that was refused before it is tried again."""
MOST_POINTS = 200
SILENCE = 10.0
"""Seconds after which another controller takes the place of one that is not heard from."""
_LOCK = 4_771_902_318
_MINUTE = timedelta(minutes=1)
R = TypeVar("R", Outcome, Pair)


@dataclass(slots=True)
class _Followed:
    """A trial, how far its rows were read, and what they showed. `complete` is the number up to which no row
    appears any more; `path` has its e-values over time."""

    watch: CanaryWatch | ShadowWatch
    arrivals: Arrivals = field(default_factory=Arrivals)
    read: set[int] = field(default_factory=set)
    complete: int = 0
    looked_at: datetime | None = None
    refused_at: datetime | None = None
    refusal: str = ""
    path: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    async def fresh(self, rows: Callable[[int], Awaitable[Sequence[R]]], now: datetime) -> list[R]:
        """What was not read before; `rows` gives those after a number, the lowest first."""
        unread: list[R] = []
        some: Sequence[R] = await rows(self.complete)
        while some:
            unread += [row for row in some if row.id not in self.read]
            self.complete = max([self.complete, *(row.id for row in some if row.at <= now - LATE)])
            some = await rows(some[-1].id)
        self.read = {number for number in self.read if number > self.complete}
        self.read.update(row.id for row in unread if row.id > self.complete)
        return unread


async def control(settings: Settings, rules: Rules) -> None:
    """The life of a controller process: watch until SIGINT or SIGTERM."""
    telemetry.log_to_stderr(settings.log_level)
    flush = telemetry.start("plumbline-controller", os.environ)
    stop = asyncio.Event()
    try:
        with signals(stop, asyncio.Event()):
            async with beating(settings.pulse), open_control(settings) as opened:
                log.info(CONTROLLER_READY)
                await Controller(opened, rules).run(stop)
    finally:
        await asyncio.to_thread(flush)


class Controller:
    def __init__(self, control: Control, rules: Rules) -> None:
        if rules.canary is None or rules.shadow is None:
            raise RulesInvalid("The rules have no [canary] or no [shadow]: trials cannot be watched.")
        self._control = control
        self._canary: CanaryRules = rules.canary
        self._shadow: ShadowRules = rules.shadow
        self._followed: dict[str, _Followed] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set. While the ledger is away nothing is decided, and shares run out."""
        while not stop.is_set():
            try:
                async with alone(self._control.engine, stop) as held:
                    await self._watch(stop, held)
            except (LedgerUnavailable, SQLAlchemyError, OSError) as error:
                log.warning("The ledger cannot be reached; trials run out meanwhile: %s", error)
                await _until(stop, 1.0)

    async def _watch(self, stop: asyncio.Event, held: AsyncConnection) -> None:
        swept = datetime.min.replace(tzinfo=UTC)
        while not stop.is_set():
            await held.scalar(select(1))  # Who has lost this connection is not alone any more.
            now = await self.tick()
            if now - swept > _MINUTE:
                await self._control.trials.end_soaking()
                await self._control.trials.forget()
                swept = now
            await _until(stop, TICK if self._followed else IDLE)

    async def tick(self) -> datetime:
        """One look at every trial; the ledger's time."""
        now = await self._now()
        running = await self._control.trials.running()
        for trial in running:
            try:
                await self._look(trial, now)
            except (LedgerUnavailable, SQLAlchemyError, OSError):
                raise
            except Exception as error:
                log.exception("The %s of release %s cannot be watched.", trial.kind, trial.release)
                ended = {"why": f"It cannot be watched: {type(error).__name__}: {error}"}
                await self._control.trials.end(trial, "stopped", ended)
        self._followed = {one.id: self._followed[one.id] for one in running if one.id in self._followed}
        return now

    async def _look(self, trial: Trial, now: datetime) -> None:
        champion = await self._control.registry.served()
        if trial.control != champion.id:
            ended = {"why": f"Release {champion.id} became champion meanwhile."}
            await self._control.trials.end(trial, "stopped", ended)
            return
        found = await self._control.registry.show(trial.release)
        if not found.evaluated and not found.forced:
            ended = {"why": "It has not passed its latest evaluation."}
            await self._control.trials.end(trial, "stopped", ended)
            return
        if trial.id not in self._followed:
            self._followed[trial.id] = self._begin(trial)
        followed = self._followed[trial.id]
        await self._read(trial, followed, now)
        if isinstance(followed.watch, CanaryWatch):
            await self._steer(trial, followed, followed.watch, now)
        else:
            await self._mirror(trial, followed, followed.watch, now)

    def _begin(self, trial: Trial) -> _Followed:
        if trial.kind == "canary":
            return _Followed(CanaryWatch(trial, self._canary))
        return _Followed(ShadowWatch(trial, self._shadow))

    async def _read(self, trial: Trial, followed: _Followed, now: datetime) -> None:
        """Whatever has come in since the last look, each row once."""
        trials, watch = self._control.trials, followed.watch
        if isinstance(watch, ShadowWatch):
            for pair in await followed.fresh(partial(trials.pairs, trial.id, limit=AT_ONCE), now):
                watch.observe(pair)
            return
        for fresh in await followed.fresh(partial(trials.outcomes, trial.id, limit=AT_ONCE), now):
            followed.arrivals.add(fresh)
        for outcome in followed.arrivals.due(now):
            watch.observe(outcome)
        # A reader may be sooner than the answer counts.
        since = (followed.looked_at or trial.started_at) - timedelta(seconds=LONGEST + 10)
        for outcome in await trials.disliked(trial.id, since):
            watch.dislike(outcome)
        watch.settle(now)
        followed.looked_at = now

    async def _steer(self, trial: Trial, followed: _Followed, watch: CanaryWatch, now: datetime) -> None:
        """Roll back, promote, or go on with the share of the step."""
        if watch.shown:
            await self._end(trial, followed, "rolled_back", _harm(watch))
            return
        step, last = min(trial.step, len(watch.steps) - 1), len(watch.steps) - 1
        rule = watch.steps[step]
        missing = rule.units - watch.settled_at(rule.share)
        left = rule.least_minutes * 60 - (now - trial.step_at).total_seconds()
        waiting, share = "", rule.share
        if watch.reached >= self._canary.exposure:
            waiting, share = f"The candidate has had its {self._canary.exposure} conversations.", 0.0
        elif missing > 0:
            waiting = self._missing(missing, rule.share, (watch.counts_from - now).total_seconds())
        elif left > 0:
            waiting = f"Waits {left:.0f} s more at {100 * rule.share:g}%."
        elif step < last:
            step += 1
            share = watch.steps[step].share
            waiting = (
                f"Waits for {watch.steps[step].units} conversations of the candidate at {100 * share:g}%."
            )
        elif not trial.plan.get("promote", True):
            waiting = "All steps are done; promote it, or stop the trial."
        elif await self._promoted(trial, followed, now):
            return
        else:
            waiting = followed.refusal
        await self._renew(trial, followed, step=step, share=share, waiting=waiting, now=now)

    def _missing(self, conversations: int, share: float, warm_up: float) -> str:
        """Why none may seem to come: `warm_up` is what is left of it, in seconds."""
        rules = self._canary
        early = f"; none counts in the first {rules.warm_up_seconds:g} s, {warm_up:.0f} s of them to go"
        return (
            f"Waits for {conversations} more conversations of the candidate at {100 * share:g}%, each done "
            f"{rules.settle_seconds:g} s after its last request{early if warm_up > 0 else ''}."
        )

    async def _mirror(self, trial: Trial, followed: _Followed, watch: ShadowWatch, now: datetime) -> None:
        if watch.shown:
            await self._end(trial, followed, "failed", _harm(watch))
        elif watch.pairs >= watch.wanted:
            await self._end(trial, followed, "passed", {"why": f"No harm in {watch.pairs} pairs."})
        else:
            share = float(trial.plan.get("share", 1.0))
            waiting = f"Waits for {watch.wanted - watch.pairs} more pairs of answers."
            await self._renew(trial, followed, step=0, share=share, waiting=waiting, now=now)

    async def _promoted(self, trial: Trial, followed: _Followed, now: datetime) -> bool:
        """Make the candidate champion; whether that went through."""
        if followed.refused_at and now - followed.refused_at < timedelta(seconds=PATIENCE):
            return False
        found = await self._control.registry.show(trial.release)
        reason = found.forced or f"No harm was shown in trial {trial.id}."
        try:
            await self._control.promotions.promote(
                found.id, force=bool(found.forced), reason=reason, who="controller", trial=trial
            )
        except (AppError, RetrievalError) as error:
            followed.refused_at, followed.refusal = now, f"Promotion was refused: {error}"
            log.warning("Release %s was not promoted: %s", found.id, error)
            return False
        log.info("Release %s was promoted: no harm was shown.", found.id)
        return True

    async def _end(self, trial: Trial, followed: _Followed, state: Any, decision: Mapping[str, Any]) -> None:
        await self._control.trials.end(trial, state, {**decision, "evidence": self._told(followed, trial)})
        log.warning("Release %s: %s was ended as %s. %s", trial.release, trial.kind, state, decision["why"])

    async def _renew(
        self, trial: Trial, followed: _Followed, *, step: int, share: float, waiting: str, now: datetime
    ) -> None:
        values = {one.metric: one.e_value for one in followed.watch.evidence}
        seconds = round((now - trial.started_at).total_seconds(), 1)
        if not followed.path or values != followed.path[-1][1]:
            followed.path.append((seconds, values))
            if len(followed.path) > MOST_POINTS:
                followed.path = [*followed.path[:-1:2], followed.path[-1]]
        told = {**self._told(followed, trial), "step": step, "share": share, "waiting_for": waiting}
        await self._control.trials.renew(trial, step=step, share=share, evidence=told)

    def _told(self, followed: _Followed, trial: Trial) -> dict[str, Any]:
        return {"step": trial.step, "share": trial.share, **followed.watch.told(), "path": followed.path}

    async def _now(self) -> datetime:
        async with transaction(self._control.engine) as connection:
            now: datetime = await connection.scalar(text("SELECT now()"))
        return now


@asynccontextmanager
async def alone(
    engine: AsyncEngine, stop: asyncio.Event, silence: float = SILENCE
) -> AsyncIterator[AsyncConnection]:
    """Be the one controller that works, for as long as this session of the ledger lasts: it must be heard
    from more often than every `silence` seconds. Where `stop` is set meanwhile, it is not waited for."""
    lock = select(func.pg_try_advisory_lock(_LOCK))
    async with session(engine, silence) as held:
        while not stop.is_set() and not await held.scalar(lock):
            await _until(stop, 1.0)
        yield held


def _harm(watch: CanaryWatch | ShadowWatch) -> dict[str, Any]:
    """Why a trial ends badly, in a sentence."""
    metric = watch.shown[0]
    [row] = [one for one in watch.told()["metrics"] if one["metric"] == metric]
    enough = f"an e-value of {row['highest']:.0f} where {row['threshold']:.0f} is enough"
    rates = [row["rate_candidate"], row["rate_control"]]
    of = " against ".join("nothing yet" if rate is None else f"{rate:.1%}" for rate in rates)
    why = f"{metric}: {of} with the champion, {enough}."
    return {"why": why, "metric": metric, "metrics": list(watch.shown)}


async def _until(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
