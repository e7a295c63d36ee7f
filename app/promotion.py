"""Moving the pointer: which release may serve next, and its index with it, in one transaction."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import releases
from app.errors import ReleaseConflict
from app.indexes import Indexes
from app.releases import Prepare, Registered, Registry
from app.tables import transaction
from app.trials import Trial, Trials, hold, keep_indexes


class Promotions:
    """`prepare` makes a release ready to serve in this process, or raises why it cannot."""

    def __init__(
        self, engine: AsyncEngine, registry: Registry, indexes: Indexes, trials: Trials, prepare: Prepare
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._indexes = indexes
        self._trials = trials
        self._prepare = prepare

    async def promote(
        self,
        reference: str,
        *,
        force: bool = False,
        allow_missing: bool = False,
        reason: str = "",
        who: str = "command line",
        trial: Trial | None = None,
    ) -> Registered:
        """Make it the champion. Without a passed evaluation it takes `force` and a reason, both audited. An
        index of its own must be complete and sound: `IndexNotReady`; `allow_missing` lets documents go
        that could not be put into it. Where a `trial` is what speaks for it, that must still run, and against
        the champion: `ReleaseConflict`."""
        served, found = await self._registry.served(), await self._registry.show(reference)
        if found.id == served.id:
            return found
        releases.require_evaluated(found, force=force, reason=reason)
        await self._indexes.require(found.release, served.release, allow_missing=allow_missing)
        await self._prepare(found.release)
        async with transaction(self._engine) as connection:
            await releases.require_champion(connection, trial.control if trial else served.id)
            await hold(connection, found.id, trial)
            found = await releases.find(connection, found.id)
            await releases.admit(connection, found, force=force, reason=reason)
            await self._switch(connection, found, served, allow_missing=allow_missing)
            evidence = {
                "from": served.id,
                "force": force,
                "allow_missing": allow_missing,
                "reason": reason,
                "verdict": found.evidence,
            }
            old, why = await releases.find(connection, served.id), reason or f"Promoted by the {who}."
            await releases.move(connection, old, found, "soaking", why)
            await releases.note(connection, who, "release.promote", found.id, evidence)
            promoted = await releases.find(connection, found.id)
        await self._registry.seen()
        await self._end_trials(promoted, who)
        return promoted

    async def rollback(self, *, reason: str = "", who: str = "command line") -> Registered:
        """Make the champion before this one champion again. Nothing is re-ingested: its index has been
        written all along."""
        served, earlier = await self._registry.served(), await self._registry.before()
        if earlier is None:
            raise ReleaseConflict(f"Release {served.id} is the first champion: there is none before it.")
        await self._indexes.require(earlier.release, served.release, allow_missing=False)
        await self._prepare(earlier.release)
        async with transaction(self._engine) as connection:
            await releases.require_champion(connection, served.id)
            await hold(connection, earlier.id)
            await self._switch(connection, earlier, served, allow_missing=False)
            old, why = await releases.find(connection, served.id), reason or f"Rolled back to by the {who}."
            await releases.move(connection, old, earlier, "retired", why)
            evidence = {"from": served.id, "reason": reason}
            await releases.note(connection, who, "release.rollback", earlier.id, evidence)
            restored = await releases.find(connection, earlier.id)
        await self._registry.seen()
        await self._end_trials(restored, who)
        return restored

    async def _switch(
        self, connection: AsyncConnection, new: Registered, old: Registered, *, allow_missing: bool
    ) -> None:
        """Let the index follow the pointer. Which others take traffic is decided with it: no trial has one to
        let go of any more."""
        if await self._indexes.switch(connection, new.release, old.release, allow_missing=allow_missing):
            await keep_indexes(connection)

    async def _end_trials(self, new: Registered, who: str) -> None:
        """End those that ran against the champion before this one. Nothing was routed to them any more since
        the pointer has moved, and whoever watches would end them too."""
        for trial in await self._trials.running():
            if trial.control != new.id:
                why = {"why": f"Release {new.id} became champion."}
                await self._trials.end(trial, "stopped", why, who=who)
