"""Keys managed over HTTP: whose they are, what may be given, what is told once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.types import Scope
from tests.service.http.house import House, Tenant

KEYS = "/v1/keys"


async def made(tenant: Tenant, headers: dict[str, str] | None = None, /, **told: Any) -> dict[str, Any]:
    reply = await tenant.http.post(KEYS, json={"name": "made", **told}, headers=headers)
    assert reply.status_code == 201, reply.text
    assert reply.headers["cache-control"] == "no-store"
    key: dict[str, Any] = reply.json()
    return key


async def status(tenant: Tenant, secret: str) -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=tenant.url, headers=headers) as client:
        return (await client.get("/v1/key")).status_code


async def test_a_key_is_made_used_and_revoked_and_its_secret_told_once(tenant: Tenant) -> None:
    owner = await tenant.key("admin")
    key = await made(tenant, owner, name="reporting", scopes=["read"], groups=["sales"])

    assert (key["tenant"], key["scopes"], key["groups"]) == (tenant.name, ["read"], ["sales"])
    assert (key["state"], key["used_at"], key["expires_at"]) == ("active", None, None)
    assert key["key"].startswith(key["prefix"])
    assert await status(tenant, key["key"]) == 200

    shown = (await tenant.http.get(f"{KEYS}/{key['id']}", headers=owner)).json()
    listed = await tenant.http.get(KEYS, headers=owner)
    assert "key" not in shown
    assert key["key"] not in listed.text
    assert shown["id"] in {one["id"] for one in listed.json()["keys"]}

    gone = (await tenant.http.delete(f"{KEYS}/{key['id']}", headers=owner)).json()
    assert (gone["state"], gone["revoked_at"] is not None) == ("revoked", True)
    assert await status(tenant, key["key"]) == 401


async def test_a_key_tells_when_it_was_used_and_by_whom_it_was_made(house: House, tenant: Tenant) -> None:
    key = await made(tenant)
    assert await status(tenant, key["key"]) == 200
    shown = (await tenant.http.get(f"{KEYS}/{key['id']}")).json()
    assert datetime.now(UTC) - datetime.fromisoformat(shown["used_at"]) < timedelta(minutes=1)

    await tenant.http.post(f"{KEYS}/{key['id']}/rotate", json={})
    mine = (await tenant.http.get("/v1/key")).json()["id"]
    async with house.services.access._engine.connect() as connection:
        noted = await connection.execute(
            text("SELECT who, what FROM audit WHERE subject = :id ORDER BY at"), {"id": key["id"]}
        )
        assert [tuple(one) for one in noted] == [(f"key {mine}", "key.create"), (f"key {mine}", "key.rotate")]


async def test_an_owner_manages_the_keys_of_the_tenant_and_no_others(house: House, tenant: Tenant) -> None:
    owner, other = await tenant.key("admin"), await house.tenant()
    theirs = await made(other)
    for reply in (
        await tenant.http.get(f"{KEYS}/{theirs['id']}", headers=owner),
        await tenant.http.delete(f"{KEYS}/{theirs['id']}", headers=owner),
        await tenant.http.post(f"{KEYS}/{theirs['id']}/rotate", json={}, headers=owner),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "key_not_found")
    for reply in (
        await tenant.http.get(KEYS, params={"tenant": other.name}, headers=owner),
        await tenant.http.post(KEYS, json={"name": "k", "tenant": other.name}, headers=owner),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    listed = (await tenant.http.get(KEYS, headers=owner)).json()["keys"]
    assert {one["tenant"] for one in listed} == {tenant.name}
    assert await status(tenant, theirs["key"]) == 200


@pytest.mark.parametrize("scope", ["operate", "evaluate"])
async def test_an_owner_gives_and_takes_no_scope_beyond_its_own(tenant: Tenant, scope: Scope) -> None:
    """Rotating a key hands over its secret: an operator's key in the tenant must not become the owner's."""
    owner = await tenant.key("admin")
    key = await made(tenant, scopes=[scope])
    for reply in (
        await tenant.http.post(KEYS, json={"name": "k", "scopes": ["read", scope]}, headers=owner),
        await tenant.http.post(f"{KEYS}/{key['id']}/rotate", json={}, headers=owner),
        await tenant.http.delete(f"{KEYS}/{key['id']}", headers=owner),
    ):
        assert reply.status_code == 403
        assert scope in reply.json()["error"]["message"]
    assert await status(tenant, key["key"]) == 200


async def test_an_operator_manages_keys_of_every_tenant(house: House, tenant: Tenant) -> None:
    operator = await tenant.key("operate")
    new = f"{tenant.name}-new"
    key = await made(tenant, operator, tenant=new, scopes=["admin"])
    assert (key["tenant"], key["groups"]) == (new, None)
    listed = (await tenant.http.get(KEYS, params={"tenant": new}, headers=operator)).json()["keys"]
    assert [one["id"] for one in listed] == [key["id"]]
    assert (await tenant.http.delete(f"{KEYS}/{key['id']}", headers=operator)).status_code == 200


async def test_keys_are_listed_page_by_page(tenant: Tenant) -> None:
    owner = await tenant.key("admin")
    for _ in range(4):
        await made(tenant, owner)
    whole = (await tenant.http.get(KEYS, headers=owner)).json()
    assert (len(whole["keys"]), whole["next"]) == (6, None)
    found: list[str] = []
    after: str | None = None
    while after is not None or not found:
        params = {"limit": "2", **({"after": after} if after else {})}
        page = (await tenant.http.get(KEYS, params=params, headers=owner)).json()
        found += [one["id"] for one in page["keys"]]
        after = page["next"]
    assert found == [one["id"] for one in whole["keys"]]


async def test_a_rotated_key_goes_on_for_its_grace_beside_the_new_one(house: House, tenant: Tenant) -> None:
    old = await made(tenant, name="app", scopes=["read", "write"], groups=["hr"])
    reply = await tenant.http.post(f"{KEYS}/{old['id']}/rotate", json={"grace_seconds": 3_600})
    new = reply.json()
    assert reply.status_code == 201
    for name in ("name", "tenant", "groups", "scopes", "expires_at"):
        assert new[name] == old[name]
    assert new["id"] != old["id"]
    assert (await status(tenant, old["key"]), await status(tenant, new["key"])) == (200, 200)
    left = datetime.fromisoformat((await tenant.http.get(f"{KEYS}/{old['id']}")).json()["expires_at"])
    assert timedelta(minutes=59) < left - datetime.now(UTC) <= timedelta(hours=1)

    newest = (await tenant.http.post(f"{KEYS}/{new['id']}/rotate", json={})).json()
    assert (await status(tenant, new["key"]), await status(tenant, newest["key"])) == (401, 200)
    again = await tenant.http.post(f"{KEYS}/{new['id']}/rotate", json={})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "key")


async def test_a_key_expires_by_itself_and_its_successor_lasts_as_long(house: House, tenant: Tenant) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    key = await made(tenant, expires_at=soon.isoformat())
    assert await status(tenant, key["key"]) == 200
    after = (await tenant.http.post(f"{KEYS}/{key['id']}/rotate", json={"grace_seconds": 60})).json()
    assert timedelta(hours=23) < datetime.fromisoformat(after["expires_at"]) - datetime.now(UTC)
    access = house.services.access
    async with access._engine.begin() as connection:
        await connection.execute(
            text("UPDATE keys SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": after["id"]}
        )
    assert await status(tenant, after["key"]) == 401
    assert (await tenant.http.get(f"{KEYS}/{after['id']}")).json()["state"] == "expired"


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ({"name": "a b"}, "name"),
        ({"tenant": ""}, "tenant"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["all"]}, "scopes[0]"),
        ({"groups": ["a b"]}, "groups[0]"),
        ({"scopes": ["admin"], "groups": ["hr"]}, "groups"),
        ({"expires_at": "2020-01-01"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"secret": "x"}, "secret"),
    ],
)
async def test_what_cannot_be_a_key_is_refused_by_name(
    tenant: Tenant, told: dict[str, Any], param: str
) -> None:
    reply = await tenant.http.post(KEYS, json={"name": "k", **told})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
