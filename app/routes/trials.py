"""`/v1/releases/...`: shadows and canaries of releases, what they have shown; what readers think of
answers.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import Field, field_validator
from starlette.responses import Response

from app.errors import ReleaseConflict
from app.releases import OnTrial
from app.routes import replies
from app.routes.bodies import Flag, Strict, Text, Whole, such_as
from app.routes.caller import Operator, Parts, Reader, Spectator, reply
from app.routes.releases import Reference, release_json, who
from app.routes.route import Exact
from app.trials import Trial, TrialKind
from app.wiring import Services

router = APIRouter(tags=["releases"], route_class=Exact)

Share = Annotated[float, Field(gt=0, le=1)]


class Step(Strict):
    """A share of the conversations, until so many of them have gone to the candidate."""

    share: Annotated[float, Field(gt=0, lt=1)]
    units: Annotated[Whole, Field(ge=1, le=10_000_000)]


class StartTrial(Strict):
    force: Flag = Field(False, description="Without a passed evaluation; needs a reason.")
    reason: Text = Field("", max_length=2_000)
    share: Share | None = Field(None, description="Shadow: the share of answers that is mirrored.")
    pairs: Annotated[Whole, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Shadow: so many pairs without harm are enough."
    )
    steps: list[Step] | None = Field(
        None, max_length=20, description="Canary: in place of the usual steps; their shares grow."
    )
    promote: Flag = Field(True, description="Canary: promote after the last step; else wait.")

    @field_validator("steps")
    @classmethod
    def _grow(cls, steps: list[Step] | None) -> list[Step] | None:
        """Conversations are counted by the share at which they were drawn: those of one step are not to be
        taken for those of another."""
        shares = [step.share for step in steps or ()]
        if shares != sorted(set(shares)):
            raise ValueError("the shares of the steps must grow")
        return steps


class Stop(Strict):
    reason: Text = Field("", max_length=2_000)


class Feedback(Strict):
    """The last one of an id counts. Ids are not looked up: one that is misspelt is taken, too."""

    model_config = such_as({"id": "chatcmpl-9695445534a4cecea881fae154e5149a", "rating": "up"})

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")] = Field(
        description="The answer's `id`; of a summary or a search, the response's X-Request-Id."
    )
    rating: Literal["up", "down"]
    reason: Literal["wrong", "unsupported", "incomplete", "outdated", "unsafe", "slow", "other"] | None = None


@router.get(
    "/v1/releases/standing",
    summary="Show which releases get requests, and how trials stand",
    response_model=replies.StandingReply,
)
async def standing(parts: Parts, caller: Spectator) -> Response:
    """`trials` holds the evidence, which the requests of all tenants have given: null for a key without the
    scope `operate`."""
    now, operates = parts.release.standing(), "operate" in caller.scopes
    champion, before = now.champion, await parts.release.before()
    told = {
        "champion": {
            "id": champion.release.id,
            "name": champion.release.name,
            "state": champion.state,
            "forced": champion.forced,
        },
        "canary": _on_trial(now.canary),
        "shadow": _on_trial(now.shadow),
        "soaking": now.soaking.id if now.soaking else None,
        "before": before.id if before else None,
        "trials": [_trial(one) for one in await parts.trials.running()] if operates else None,
    }
    return reply(told)


@router.post(
    "/v1/releases/{reference}/shadow",
    summary="Mirror live answers to a release, unseen",
    response_model=replies.TrialReply,
    status_code=201,
)
async def shadow(body: StartTrial, parts: Parts, caller: Operator, reference: Reference) -> Response:
    plan = {name: value for name, value in (("share", body.share), ("pairs", body.pairs)) if value}
    return await _start(body, parts, "shadow", reference, plan, who(caller))


@router.post(
    "/v1/releases/{reference}/canary",
    summary="Let a release answer a growing share",
    response_model=replies.TrialReply,
    status_code=201,
)
async def canary(body: StartTrial, parts: Parts, caller: Operator, reference: Reference) -> Response:
    plan: dict[str, Any] = {"promote": body.promote}
    if body.steps:
        plan["steps"] = [step.model_dump() for step in body.steps]
    return await _start(body, parts, "canary", reference, plan, who(caller))


@router.post(
    "/v1/releases/{reference}/stop",
    summary="End a release's trials; its conversations go back",
    response_model=replies.ReleaseReply,
)
async def stop(body: Stop, parts: Parts, caller: Operator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    running = [one for one in await parts.trials.of(found.id) if one.state == "running"]
    if not running:
        raise ReleaseConflict(f"Release {found.id} is on no trial.")
    for one in running:
        why = {"why": body.reason or "Stopped by hand."}
        await parts.trials.end(one, "stopped", why, who=who(caller))
    return reply(release_json(await parts.release.show(found.id)))


@router.get(
    "/v1/releases/{reference}/trials",
    summary="Show a release's trials and its history",
    response_model=replies.ReleaseHistory,
)
async def trials(parts: Parts, caller: Operator, reference: Reference) -> Response:
    found = await parts.release.show(reference)
    told = [
        {**_trial(one), "affected": asdict(await parts.trials.affected(one.id))}
        for one in await parts.trials.of(found.id)
    ]
    history = await parts.release.history(found.id)
    return reply({**release_json(found), "trials": told, "audit": history})


@router.post(
    "/v1/feedback",
    summary="Say what an answer was worth",
    status_code=202,
    response_model=replies.FeedbackReply,
)
async def feedback(body: Feedback, parts: Parts, caller: Reader) -> Response:
    await parts.outcomes.rate(caller.tenant, body.id, body.rating, body.reason)
    return reply({"id": body.id, "rating": body.rating}, 202)


async def _start(
    body: StartTrial, parts: Services, kind: TrialKind, reference: str, plan: dict[str, Any], by: str
) -> Response:
    started = await parts.trials.start(kind, reference, plan, force=body.force, reason=body.reason, who=by)
    return reply(_trial(started), 201)


def _on_trial(one: OnTrial | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"trial": one.trial, "release": one.release.id, "share": one.share, "live": one.live}


def _trial(one: Trial) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(orjson.dumps(one))
    return told
