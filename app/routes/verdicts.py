"""`/v1/releases/{release}/verdict`: may a release go on?

For deployment controllers that ask before each step: Argo Rollouts (web metric) and Flagger (webhook).

Any key may ask, one that may read no document too. Nothing here starts, ends or changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.errors import ReleaseConflict
from app.releases import Registered
from app.routes import replies
from app.routes.bodies import Text
from app.routes.caller import Anybody, Parts, caller_of, reply
from app.routes.releases import Reference
from app.routes.route import Route
from app.trials import Trial
from app.wiring import Services

router = APIRouter(tags=["releases"], route_class=Route)

WEBHOOK = "/v1/releases/verdict"
MOST_BYTES = 2**16
"""Of a webhook: its key may be in its body, which is read first."""

Result = Literal["successful", "failed", "running", "inconclusive"]
Required = Literal["no-harm", "passed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`passed`: nothing is left to wait for, and no harm was shown. `share` is that of the running trial, 0
    without one."""

    release: str
    state: str
    result: Result
    passed: bool
    why: str
    share: float = 0.0


class Metadata(BaseModel):
    """Flagger sends the webhook's `metadata` as it is in the manifest; what else is there is passed over."""

    model_config = ConfigDict(frozen=True)

    release: Text = Field(min_length=1, max_length=100, description="Id, the beginning of one, or name.")
    require: Required = Field(
        "no-harm", description="`passed`: only once its trial ended well, not while it runs."
    )
    token: Text = Field("", max_length=200, description="A key: Flagger sends no header of ours.")


class Webhook(BaseModel):
    """What Flagger posts: the Canary, its phase, and the webhook's metadata."""

    model_config = ConfigDict(frozen=True)

    name: Text = Field("", max_length=300)
    namespace: Text = Field("", max_length=300)
    phase: Text = Field("", max_length=100)
    metadata: Metadata


@router.get(
    "/v1/releases/{reference}/verdict",
    summary="Say whether a release may go on",
    response_model=replies.VerdictReply,
)
async def verdict(parts: Parts, caller: Anybody, reference: Reference) -> Response:
    return reply(asdict(await _verdict(parts, reference)), headers={"Cache-Control": "no-store"})


@router.post(
    WEBHOOK,
    summary="Answer a Flagger webhook: 200 when a release may go on",
    response_model=replies.VerdictReply,
)
async def webhook(body: Webhook, request: Request, parts: Parts) -> Response:
    await _authenticate(request, parts, body.metadata.token)
    found = await _verdict(parts, body.metadata.release)
    wanted: tuple[Result, ...] = ("successful",) if body.metadata.require == "passed" else _GOING_ON
    if found.result not in wanted:
        raise ReleaseConflict(f"Release {found.release} may not go on: {found.why}")
    return reply(asdict(found))


_GOING_ON: tuple[Result, ...] = ("successful", "running")


async def _authenticate(request: Request, parts: Services, token: str) -> None:
    caller = caller_of(request)
    if not caller.authorization and token:
        caller = replace(caller, authorization=f"Bearer {token}")
    await parts.access.authenticate(caller)


async def _verdict(parts: Services, reference: str) -> Verdict:
    found = await parts.release.show(reference)
    return verdict_of(found, await parts.trials.of(found.id))


def verdict_of(found: Registered, trials: Sequence[Trial]) -> Verdict:
    """Of a release and its trials, the oldest first. Without evidence nothing is `successful`."""
    last = trials[-1] if trials else None
    if last and last.state == "running":
        return _running(found, last)
    result, why = _standing(found, last)
    return Verdict(release=found.id, state=found.state, result=result, passed=result == "successful", why=why)


def _running(found: Registered, trial: Trial) -> Verdict:
    harmed = harm_shown(trial.evidence)
    share = trial.share if trial.live else 0.0
    why = str(trial.evidence.get("waiting_for") or f"Its {trial.kind} runs.")
    if harmed:
        why = f"Its {trial.kind} has shown harm: {', '.join(harmed)}."
    elif not trial.live or not trial.evidence:
        why = f"Its {trial.kind} gets no requests: no controller watches it now."
    return Verdict(
        release=found.id,
        state=found.state,
        result="failed" if harmed else "running",
        passed=False,
        why=why,
        share=share,
    )


def _standing(found: Registered, last: Trial | None) -> tuple[Result, str]:
    if not found.evaluated:
        return _unproven(found, last)
    if found.state in ("champion", "soaking"):
        return "successful", "It passed an evaluation, and was promoted."
    if found.state == "retired":
        return "inconclusive", "It served, and was taken off. Try or promote it again."
    if last and last.state == "stopped":
        return "inconclusive", f"Its {last.kind} was stopped. {_reason(last)}".rstrip()
    if last and last.state == "passed":
        return "successful", f"Its {last.kind} ended without harm. {_reason(last)}".rstrip()
    return "successful", "It passed an evaluation."


def _unproven(found: Registered, last: Trial | None) -> tuple[Result, str]:
    """Without a passed evaluation: it failed one, its last trial took it back, or it never had one."""
    if last and last.state in ("failed", "rolled_back"):
        return "failed", f"Its {last.kind} took it back. {_reason(last)}".rstrip()
    if found.evidence:
        failed = ", ".join(str(name) for name in found.evidence.get("failed", ()))
        return "failed", f"It did not pass its evaluation{f': {failed}' if failed else ''}."
    if found.forced:
        return "inconclusive", f"It was forced, without a passed evaluation: {found.forced}"
    return "inconclusive", "It was never evaluated."


def harm_shown(evidence: Mapping[str, Any]) -> list[str]:
    """The metrics whose test has rejected "no harm", ever."""
    return [str(one["metric"]) for one in evidence.get("metrics", ()) if one["highest"] >= one["threshold"]]


def _reason(trial: Trial) -> str:
    return str((trial.decision or {}).get("why", ""))
