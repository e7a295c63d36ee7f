"""`/v1/key`: what the caller's key may do. `/v1/keys`: make, list, replace and revoke keys.

With `admin` those of the key's tenant, with no scope that the key itself has not; with `operate` all of the
instance. Whoever makes a key can use it, so the audit says who made which.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field
from starlette.responses import Response

from app.access import LONGEST_GRACE, Key, key_json
from app.errors import Forbidden
from app.routes import replies
from app.routes.bodies import Strict, Time, Whole, not_empty, such_as
from app.routes.caller import Anybody, Holder, Parts, reply
from app.routes.releases import who
from app.routes.route import Exact
from app.types import Principal, Scope

router = APIRouter(tags=["operation"], route_class=Exact)

NO_STORE = {"Cache-Control": "no-store"}
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,100}$")]
Reference = Annotated[str, Path(max_length=100, description="The key's id, or a name that only it has.")]
Tenant = Annotated[
    str | None,
    Query(max_length=100, description="Only of this tenant; by default all that the key may manage."),
]
_EXPIRES = "When it stops; by default never."


class NewKey(Strict):
    model_config = such_as({"name": "reporting", "scopes": ["read"], "groups": ["sales"]})

    name: Name = Field(description="Whose key it is.")
    tenant: Name | None = Field(None, description="By default that of the key that makes it.")
    scopes: Annotated[list[Scope], AfterValidator(not_empty)] = Field(["read"], max_length=5)
    groups: list[Name] | None = Field(
        None,
        max_length=1_000,
        description="Groups whose documents it may read, besides those that name none. With `admin`: all.",
    )
    expires_at: Time | None = Field(None, description=_EXPIRES)


class Rotation(Strict):
    grace_seconds: Annotated[Whole, Field(ge=0, le=LONGEST_GRACE)] = Field(
        0, description="For how long the old key goes on beside the new one."
    )
    expires_at: Time | None = Field(
        None, description="When the new one stops; by default after as long as the old one was made for."
    )


@router.get("/v1/key", summary="Show what the key may do", response_model=replies.KeyReply)
async def show(caller: Anybody) -> Response:
    """Its tenant, its groups (null: every group) and its scopes, those that others include, too. `id` is null
    where no key is needed."""
    told = {
        "id": caller.key_id,
        "tenant": caller.tenant,
        "groups": None if caller.groups is None else sorted(caller.groups),
        "scopes": sorted(caller.scopes),
    }
    return reply(told, headers=NO_STORE)


@router.get("/v1/keys", summary="List keys, without their secrets", response_model=replies.KeysReply)
async def list_keys(
    parts: Parts,
    caller: Holder,
    tenant: Tenant = None,
    after: Annotated[str | None, Query(max_length=40, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """The oldest first, those that were revoked or have expired, too."""
    found = await parts.access.list_keys(_within(caller, tenant), after=after, limit=limit + 1)
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return reply({"keys": [key_json(key) for key in page], "next": following}, headers=NO_STORE)


@router.post("/v1/keys", status_code=201, summary="Make a key", response_model=replies.MadeKey)
async def make(parts: Parts, caller: Holder, body: NewKey) -> Response:
    """Its secret, `key`, is told in this answer and never again."""
    tenant = caller.tenant if body.tenant is None else body.tenant
    _within(caller, tenant)
    _require_scopes(caller, body.scopes)
    made, secret = await parts.access.create_key(
        tenant,
        body.name,
        groups=None if body.groups is None else frozenset(body.groups),
        scopes=body.scopes,
        expires_at=body.expires_at,
        who=who(caller),
    )
    return reply(_with_secret(made, secret), 201, NO_STORE)


@router.get("/v1/keys/{reference}", summary="Show one key", response_model=replies.ManagedKey)
async def show_one(parts: Parts, caller: Holder, reference: Reference) -> Response:
    key = await parts.access.key(reference, tenant=_within(caller, None))
    return reply(key_json(key), headers=NO_STORE)


@router.post(
    "/v1/keys/{reference}/rotate",
    status_code=201,
    summary="Put another key in the place of one",
    response_model=replies.MadeKey,
)
async def rotate(parts: Parts, caller: Holder, reference: Reference, body: Rotation) -> Response:
    """The new one may what the old one may. Its secret, `key`, is told in this answer and never again."""
    key = await _manageable(parts, caller, reference)
    made, secret = await parts.access.rotate_key(
        key.id,
        grace=body.grace_seconds,
        expires_at=body.expires_at,
        tenant=key.tenant,
        who=who(caller),
    )
    return reply(_with_secret(made, secret), 201, NO_STORE)


@router.delete("/v1/keys/{reference}", summary="Revoke a key", response_model=replies.ManagedKey)
async def revoke(parts: Parts, caller: Holder, reference: Reference) -> Response:
    """Within two seconds it opens nothing in any process. It stays in the list."""
    key = await _manageable(parts, caller, reference)
    gone = await parts.access.revoke_key(key.id, tenant=key.tenant, who=who(caller))
    return reply(key_json(gone), headers=NO_STORE)


async def _manageable(parts: Parts, caller: Principal, reference: str) -> Key:
    """The key, if the caller may do with it what they like: who replaces one can use it."""
    key = await parts.access.key(reference, tenant=_within(caller, None))
    _require_scopes(caller, key.scopes)
    return key


def _within(caller: Principal, tenant: str | None) -> str | None:
    """The tenant whose keys are meant, None for all; an owner's own at most."""
    if "operate" in caller.scopes:
        return tenant
    if tenant not in (None, caller.tenant):
        raise Forbidden("Keys of other tenants take a key with the scope `operate`.")
    return caller.tenant


def _require_scopes(caller: Principal, scopes: frozenset[Scope] | list[Scope]) -> None:
    if "operate" in caller.scopes:
        return
    beyond = sorted(set(scopes) - caller.scopes)
    if beyond:
        raise Forbidden(f"The scope `{beyond[0]}` is not this key's to give or take: that takes `operate`.")


def _with_secret(made: Key, secret: str) -> dict[str, Any]:
    return {**key_json(made), "key": secret}
