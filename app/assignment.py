"""Which release answers a request.

While a canary runs, each conversation is drawn once, by a hash of its name and the trial's: it goes to the
candidate with the share that the canary has at that moment, and stays there. What was drawn is kept in Redis;
without it the hash alone decides. Conversations that began before the canary stay with the champion. When a
release is rolled back, its conversations go to the champion.

What is counted as evidence must not depend on the release that was drawn: a request counts when neither
release has an answer in its cache and the same question was not asked before in this trial. It is then worked
out anew by whichever release it went to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.errors import ModelUnknown
from app.indexes import Indexes
from app.release import Release
from app.releases import OnTrial, Registry, Standing
from app.serving import Serving, Servings
from app.types import Principal
from llm.outputs import PREFIX as OUTPUT
from llm.pipe import Line, PipeBroken
from llm.types import Caching

KEPT = 7 * 86_400
"""Seconds that a conversation's release is remembered after its last message."""
ASKED = 86_400
"""Seconds that a trial remembers a question."""
PREFIX = "plumbline:assigned:"
_RECALL = """
local known = redis.call('GET', KEYS[1])
if known then redis.call('EXPIRE', KEYS[1], ARGV[2]) return known end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return false
"""
_FRESH = """
local seen = redis.call('SET', KEYS[1], '1', 'EX', ARGV[1], 'NX')
if not seen then return 0 end
for i = 2, #KEYS do if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end end
return 1
"""

CacheKeys = Callable[[Release], str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request belongs to. `name` gives the caller's name for it or, without one, what it asks first;
    `begun` says that this is not its first request."""

    name: Callable[[], str]
    begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A conversation's part in a canary."""

    trial: str
    unit: str
    candidate: bool
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """The release that answers. `enrolled` is None outside of a canary; `counted` says that the request is
    evidence; `caching` is what it may do with kept outputs, None for what its caller asked for."""

    serving: Serving
    enrolled: Enrolled | None = None
    counted: bool = False
    caching: Caching | None = None


class Assignments:
    """The releases of conversations, in Redis; every method raises `PipeBroken` when that is away."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def close(self) -> None:
        self._line.close()

    async def recall(self, key: str, drawn: str) -> str | None:
        """What is known of a conversation; where nothing is, `drawn` is from now on, unless it is empty."""
        known = await self._line.ask("EVAL", _RECALL, "1", PREFIX + key, drawn, str(KEPT))
        return known.decode() if known else None

    async def replace(self, key: str, drawn: str) -> None:
        await self._line.tell("SET", PREFIX + key, drawn, "EX", str(KEPT))

    async def fresh(self, trial: str, question: str, kept: Sequence[str]) -> bool:
        """Whether a question is asked for the first time in a trial, and none of these outputs is kept."""
        keys = (f"{PREFIX}{trial}:{question}", *(OUTPUT + key for key in kept))
        return bool(await self._line.ask("EVAL", _FRESH, str(len(keys)), *keys, str(ASKED)))


class Assigner:
    def __init__(
        self, registry: Registry, servings: Servings, assignments: Assignments, indexes: Indexes
    ) -> None:
        self._registry = registry
        self._servings = servings
        self._assignments = assignments
        self._indexes = indexes

    async def assign(
        self,
        model: str,
        caller: Principal,
        conversation: Conversation,
        question: Callable[[], str],
        kept: CacheKeys | None = None,
    ) -> Assigned:
        """The release for a request. `question` gives what is the same for the same question, whoever answers
        it; `kept` the key under which a release keeps its answer, None where none does. Raises `ModelUnknown`
        and `IndexNotReady`."""
        named = await self._registry.named(model)
        if named is not None:
            return await self._named(named, caller)
        standing = self._registry.standing()
        if standing.canary is None and standing.soaking is None:
            return Assigned(serving=self._servings.current())
        unit = digest(caller.tenant, caller.key_id or "", conversation.name())
        chosen, enrolled = await self._drawn(standing, unit, f"{caller.tenant}:{unit}", conversation.begun)
        serving = self._servings.ready(chosen) or self._servings.current()
        if enrolled is None or (standing.canary and self._servings.ready(standing.canary.release) is None):
            return Assigned(serving=serving)
        counted = await self._counted(standing, enrolled, question, kept)
        return Assigned(
            serving=serving, enrolled=enrolled, counted=counted, caching="fill" if counted else None
        )

    async def _named(self, release: Release, caller: Principal) -> Assigned:
        """A release asked for by name: one that serves, by anybody; any other for evaluation, past caches."""
        standing = self._registry.standing()
        serves = {standing.champion.release.id}
        serves |= {standing.canary.release.id} if standing.canary and standing.canary.live else set()
        serves |= {standing.soaking.id} if standing.soaking else set()
        if release.id in serves and (ready := self._servings.ready(release)):
            return Assigned(serving=ready)
        if "evaluate" not in caller.scopes:
            raise ModelUnknown(
                f"Release {release.id} does not serve; {standing.champion.release.id} serves. A key with the "
                "scope `evaluate` may ask any release."
            )
        await self._indexes.require(release, standing.champion.release, allow_missing=False)
        await self._servings.prepare(release)
        ready = self._servings.ready(release)
        if ready is None:
            raise ModelUnknown(f"Release {release.id} cannot be made ready now. Try again.")
        return Assigned(serving=ready, caching="off")

    async def _drawn(
        self, standing: Standing, unit: str, key: str, begun: bool
    ) -> tuple[Release, Enrolled | None]:
        """The conversation's release, and its part in the canary if it has one."""
        champion, canary = standing.champion.release, standing.canary
        live = canary if canary and canary.live else None
        drawn = _draw(live, unit) if live else None
        try:
            record = _record(champion, live, drawn) if live and not begun else ""
            known = await self._assignments.recall(key, record)
        except PipeBroken:
            # A conversation that was drawn before is drawn again: with the same share, alike.
            known, begun = None, False
        if known is not None:
            return await self._known(standing, unit, key, known)
        if live is None or drawn is None or begun:
            return champion, None
        return (live.release if drawn else champion), _enrolled(live, unit, drawn, live.share)

    async def _known(
        self, standing: Standing, unit: str, key: str, known: str
    ) -> tuple[Release, Enrolled | None]:
        """A conversation goes on as it began, unless its release was taken back."""
        release_id, trial, share = known.split("|")
        champion, canary = standing.champion.release, standing.canary
        if canary and canary.trial == trial:
            if not canary.live:
                return champion, None
            candidate = release_id == canary.release.id
            enrolled = _enrolled(canary, unit, candidate, float(share))
            return (canary.release if candidate else champion), enrolled
        if standing.soaking and standing.soaking.id == release_id:
            return standing.soaking, None
        if release_id != champion.id:
            await self._assignments.replace(key, f"{champion.id}||0")
        return champion, None

    async def _counted(
        self,
        standing: Standing,
        enrolled: Enrolled,
        question: Callable[[], str],
        kept: CacheKeys | None,
    ) -> bool:
        canary = standing.canary
        if canary is None:
            return False
        releases = (standing.champion.release, canary.release)
        keys = [kept(release) for release in releases] if kept else []
        try:
            return await self._assignments.fresh(enrolled.trial, question(), keys)
        except PipeBroken:
            return False


def _draw(canary: OnTrial, unit: str) -> bool:
    """Whether the conversation goes to the candidate: uniform over conversations, the same each time."""
    number = int.from_bytes(hashlib.sha256(f"{canary.trial}/{unit}".encode()).digest()[:8])
    return number < canary.share * 2**64


def _record(champion: Release, canary: OnTrial, drawn: bool | None) -> str:
    return f"{canary.release.id if drawn else champion.id}|{canary.trial}|{canary.share}"


def _enrolled(canary: OnTrial, unit: str, candidate: bool, propensity: float) -> Enrolled:
    return Enrolled(trial=canary.trial, unit=unit, candidate=candidate, propensity=propensity)


def digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]
