"""Which key may do what: every operation of the OpenAPI document, with a key of every scope."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from app.access import SCOPES
from app.types import Scope
from tests.service.http.house import ACCEPT, House, Tenant

NOBODY = frozenset[str]()
"""Answers without a key."""
ANY = frozenset[str](SCOPES)
READ = frozenset({"read", "admin"})
WRITE = frozenset({"write", "admin"})
ADMIN = frozenset({"admin"})
OPERATE = frozenset({"operate"})

RIGHTS = {
    "POST /v1/chat/completions": READ,
    "POST /v1/search": READ,
    "POST /v1/summarize": READ,
    "POST /v1/embeddings": READ,
    "POST /v1/rerank": READ,
    "POST /v2/rerank": READ,
    "POST /mcp": READ,
    "POST /v1/feedback": READ,
    "GET /v1/models": READ,
    "GET /v1/models/{model}": READ,
    "GET /v1/documents": READ,
    "GET /v1/documents/{document_id}": READ,
    "GET /v1/documents/{document_id}/content": READ,
    "GET /v1/documents/{document_id}/text": READ,
    "GET /v1/documents/{document_id}/chunks/{chunk_id}": READ,
    "POST /v1/documents": WRITE,
    "PUT /v1/documents/{document_id}": WRITE,
    "DELETE /v1/documents/{document_id}": WRITE,
    "POST /v1/documents/delete": WRITE,
    "GET /v1/collections": READ,
    "DELETE /v1/collections/{name}": WRITE,
    "GET /v1/collections/{name}/rules": READ,
    "PUT /v1/collections/{name}/rules": ADMIN,
    "GET /v1/collections/{name}/report": ADMIN,
    "POST /v1/erase": ADMIN,
    "GET /v1/erasures": ADMIN,
    "GET /v1/erasures/{erasure_id}": ADMIN,
    "GET /v1/jobs": READ,
    "GET /v1/jobs/summary": READ,
    "POST /v1/jobs/lookup": READ,
    "GET /v1/jobs/{job_id}": READ,
    "GET /v1/jobs/{job_id}/events": READ,
    "POST /v1/jobs/cancel": WRITE,
    "POST /v1/jobs/retry": WRITE,
    "POST /v1/jobs/{job_id}/cancel": WRITE,
    "POST /v1/jobs/{job_id}/retry": WRITE,
    "GET /v1/queue": READ,
    "POST /v1/queue/pause": ADMIN | OPERATE,
    "POST /v1/queue/drain": ADMIN | OPERATE,
    "POST /v1/queue/resume": ADMIN | OPERATE,
    "GET /v1/queue/everybody": OPERATE,
    "GET /v1/workers": OPERATE,
    "GET /v1/releases": READ | OPERATE,
    "GET /v1/releases/champion": READ | OPERATE,
    "GET /v1/releases/standing": READ | OPERATE,
    "GET /v1/releases/{reference}": READ | OPERATE,
    "GET /v1/releases/{reference}/verdict": ANY,
    "POST /v1/releases/verdict": ANY,
    "GET /v1/releases/{reference}/trials": OPERATE,
    "POST /v1/releases/{reference}/promote": OPERATE,
    "POST /v1/releases/{reference}/shadow": OPERATE,
    "POST /v1/releases/{reference}/canary": OPERATE,
    "POST /v1/releases/{reference}/stop": OPERATE,
    "POST /v1/releases/rollback": OPERATE,
    "POST /v1/releases/{reference}/index": OPERATE,
    "GET /v1/releases/{reference}/index": OPERATE,
    "DELETE /v1/releases/{reference}/index": OPERATE,
    "GET /v1/key": ANY,
    "GET /v1/keys": ADMIN | OPERATE,
    "POST /v1/keys": ADMIN | OPERATE,
    "GET /v1/keys/{reference}": ADMIN | OPERATE,
    "POST /v1/keys/{reference}/rotate": ADMIN | OPERATE,
    "DELETE /v1/keys/{reference}": ADMIN | OPERATE,
    "GET /health/live": NOBODY,
    "GET /health/ready": NOBODY,
    "GET /metrics": NOBODY,
}
"""The scopes that open each operation. Whoever adds one says here whose it is."""
OF_A_BODY = "POST /v1/releases/verdict"
"""Flagger's key may be in what it posts: the document cannot say so."""


async def described(tenant: Tenant) -> dict[str, dict[str, Any]]:
    paths = (await tenant.http.get("/openapi.json")).json()["paths"]
    return {
        f"{method.upper()} {path}": told
        for path, methods in paths.items()
        for method, told in methods.items()
    }


async def test_every_operation_has_its_scopes_declared(tenant: Tenant) -> None:
    assert set(await described(tenant)) == set(RIGHTS)


async def test_the_openapi_document_says_which_scopes_open_an_operation(tenant: Tenant) -> None:
    scheme = (await tenant.http.get("/openapi.json")).json()["components"]["securitySchemes"]
    assert (scheme["key"]["type"], scheme["key"]["scheme"]) == ("http", "bearer")
    for name, told in (await described(tenant)).items():
        if name == OF_A_BODY:
            continue
        opening: set[str] = {scope for one in told.get("security", ()) for scope in one["key"] or SCOPES}
        if "read" in opening or "write" in opening:
            opening.add("admin")
        assert opening == RIGHTS[name], name


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_may_do_what_its_scope_says_and_nothing_else(tenant: Tenant, scope: Scope) -> None:
    headers = {**ACCEPT, **await tenant.key(scope)}
    async with httpx.AsyncClient(base_url=tenant.url, headers=headers, timeout=60) as client:
        for name, opening in RIGHTS.items():
            reply = await tried(client, name)
            assert reply.status_code < 500, (name, reply.text)
            error = reply.json().get("error", {}) if reply.status_code >= 400 else {}
            if scope in opening or not opening:
                assert reply.status_code not in (401, 403), (name, error)
            else:
                assert (name, reply.status_code, error["code"]) == (name, 403, "forbidden")
                named = set(re.findall(r"`([a-z]+)`", error["message"]))
                assert named, (name, error)
                assert named <= opening, (name, error)


async def test_nothing_but_health_and_metrics_answers_without_a_key(tenant: Tenant) -> None:
    async with httpx.AsyncClient(base_url=tenant.url, headers=ACCEPT) as client:
        for name, opening in RIGHTS.items():
            reply = await tried(client, name)
            assert (name, reply.status_code == 401) == (name, bool(opening))


async def tried(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """The operation asked of what is not there, with a body that none takes: nothing is done."""
    method, path = name.split()
    absent = re.sub(r"\{erasure_id\}", "00000000-0000-0000-0000-000000000000", path)
    absent = re.sub(r"\{\w+\}", "nothing-there", absent)
    if name == OF_A_BODY:
        return await client.post(absent, json={"metadata": {"release": "nothing-there"}})
    body: Any = {"no_such_field": True} if method in ("POST", "PUT") else None
    return await client.request(method, absent, json=body)


async def test_a_tenants_owner_holds_back_the_tenants_queue_and_no_other(tenant: Tenant) -> None:
    owner, operator = await tenant.key("admin"), await tenant.key("operate")
    try:
        for who, everybody, status in (
            (owner, False, 200),
            (owner, True, 403),
            (operator, False, 403),
            (operator, True, 200),
        ):
            for action in ("pause", "drain", "resume"):
                reply = await tenant.http.post(
                    f"/v1/queue/{action}", json={"everybody": everybody}, headers=who
                )
                assert (reply.status_code, action, everybody) == (status, action, everybody), reply.text
    finally:
        await tenant.http.post("/v1/queue/resume", json={"everybody": True})


async def test_the_evidence_of_trials_is_the_operators(tenant: Tenant) -> None:
    for scope, told in (("read", None), ("admin", None), ("operate", [])):
        headers = await tenant.key(scope)  # type: ignore[arg-type]
        standing = (await tenant.http.get("/v1/releases/standing", headers=headers)).json()
        assert (standing["trials"], standing["champion"]["state"]) == (told, "bootstrap")


async def test_a_key_is_told_what_it_may_do(house: House, tenant: Tenant) -> None:
    async def told(headers: dict[str, str]) -> tuple[Any, ...]:
        found = (await tenant.http.get("/v1/key", headers=headers)).json()
        assert found["tenant"] == tenant.name
        return found["groups"], found["scopes"]

    hr = await tenant.key("read", groups=frozenset({"hr"}))
    assert await told(hr) == (["hr"], ["read"])
    assert await told(await tenant.key("admin")) == (None, ["admin", "read", "write"])
    assert await told(await tenant.key("operate")) == ([], ["operate"])
    async with httpx.AsyncClient(base_url=house.open_url) as local:
        anyone = (await local.get("/v1/key")).json()
    assert anyone == {"id": None, "tenant": "default", "groups": None, "scopes": sorted(SCOPES)}


async def test_the_key_is_looked_at_before_a_body_is_read(tenant: Tenant) -> None:
    """Of each operation that takes a body the head alone is sent: 4 MiB that never come."""
    port = int(tenant.url.rsplit(":", 1)[1])
    for name in RIGHTS:
        method, path = name.split()
        if method not in ("POST", "PUT") or name == OF_A_BODY:
            continue
        for key in ("", "Authorization: Bearer pl-made-up\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"{method} {re.sub(r'{.*?}', 'x', path)}?no-such=1 HTTP/1.1\r\nHost: localhost\r\n{key}"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 4194304\r\n\r\n".encode())
            async with asyncio.timeout(10):
                status = await reader.readline()
            writer.close()
            assert status.split()[1:2] == [b"401"], (name, status)


async def test_a_webhook_whose_key_is_in_its_body_is_a_short_one(tenant: Tenant) -> None:
    body = {"name": "x" * 2**16, "metadata": {"release": "r", "token": "t"}}
    async with httpx.AsyncClient(base_url=tenant.url) as client:
        assert (await client.post("/v1/releases/verdict", json=body)).status_code == 413
