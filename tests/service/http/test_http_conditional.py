"""Conditional requests: two who write the same document, and one who asks for what it has."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.service.http.house import House, Tenant

A = "/v1/documents/a"


@pytest.fixture
async def tenant(house: House) -> Tenant:
    tenant = await house.tenant()
    await tenant.add({"id": "a", "title": "A", "text": "The first text of a."})
    return tenant


async def put(tenant: Tenant, text: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await tenant.http.put(A, json={"text": text}, headers=named)


def refused(reply: httpx.Response) -> tuple[int, str, str]:
    error = reply.json()["error"]
    return reply.status_code, error["type"], error["code"]


LOST = (412, "conflict_error", "precondition_failed")


async def test_of_two_who_write_from_the_same_version_the_second_is_told(tenant: Tenant) -> None:
    tag = (await tenant.http.get(A)).headers["etag"]

    first = await put(tenant, "Changed by the first.", If_Match=tag)
    second = await put(tenant, "Changed by the second.", If_Match=tag)

    assert first.status_code == 202, first.text
    assert refused(second) == LOST
    assert refused(await tenant.http.delete(A, headers={"If-Match": tag})) == LOST
    [job] = first.json()["jobs"]
    content = await tenant.http.get(f"{A}/content")
    assert content.text == "Changed by the first."
    # A job tells the version, too; and indexing is nobody's change.
    await tenant.done(job["id"])
    assert (await put(tenant, "Third.", If_Match=f'"{job["version"]}"')).status_code == 202
    gone = await tenant.http.delete(A, headers={"If-Match": "*"})
    assert gone.status_code == 200


async def test_of_many_at_once_one_wins(tenant: Tenant) -> None:
    tag = (await tenant.http.get(A)).headers["etag"]
    replies = await asyncio.gather(*(put(tenant, f"Text {n}.", If_Match=tag) for n in range(6)))
    assert sorted(reply.status_code for reply in replies) == [202] + [412] * 5

    await tenant.http.delete(A)
    replies = await asyncio.gather(*(put(tenant, f"New {n}.", If_None_Match="*") for n in range(6)))
    assert sorted(reply.status_code for reply in replies) == [202] + [412] * 5


async def test_what_a_proxy_makes_of_a_tag_still_names_the_version(tenant: Tenant) -> None:
    tag = (await tenant.http.get(A)).headers["etag"]
    for weak, more in (("W/", ""), ("", "-gzip")):
        reply = await put(tenant, "Changed.", If_Match=f'"1", {weak}{tag[:-1]}{more}"')
        assert reply.status_code == 202
        tag = f'"{reply.json()["jobs"][0]["version"]}"'
        await tenant.done(reply.json()["jobs"][0]["id"])


@pytest.mark.parametrize(("method", "status"), [("put", 412), ("delete", 404)])
async def test_what_is_not_there_is_not_replaced(tenant: Tenant, method: str, status: int) -> None:
    body: dict[str, Any] = {"json": {"text": "New."}} if method == "put" else {}
    for tag in ("*", '"1"'):
        reply = await tenant.http.request(
            method.upper(), "/v1/documents/b", headers={"If-Match": tag}, **body
        )
        assert reply.status_code == status, reply.text
    assert (await tenant.http.get("/v1/documents/b")).status_code == 404


async def test_documents_are_only_added_where_that_is_asked_all_or_none(tenant: Tenant) -> None:
    body = {"documents": [{"id": "a", "text": "Second."}, {"id": "b", "text": "New."}]}
    reply = await tenant.http.post("/v1/documents", json=body, headers={"If-None-Match": "*"})
    assert refused(reply) == LOST
    assert (await tenant.http.get("/v1/documents/b")).status_code == 404
    body = {"documents": [{"id": "b", "text": "New."}]}
    reply = await tenant.http.post("/v1/documents", json=body, headers={"If-None-Match": "*"})
    assert reply.status_code == 202


async def test_an_idempotency_key_leads_to_its_jobs_whatever_changed_since(tenant: Tenant) -> None:
    tag = (await tenant.http.get(A)).headers["etag"]
    once = await put(tenant, "Changed.", If_Match=tag, Idempotency_Key="k")
    again = await put(tenant, "Changed.", If_Match=tag, Idempotency_Key="k")
    assert (once.status_code, again.status_code) == (202, 202)
    assert once.json()["jobs"][0]["id"] == again.json()["jobs"][0]["id"]
    assert refused(await put(tenant, "Other.", If_Match=tag, Idempotency_Key="other")) == LOST
    now = f'"{once.json()["jobs"][0]["version"]}"'
    # A refusal keeps no key.
    assert (await put(tenant, "Other.", If_Match=now, Idempotency_Key="other")).status_code == 202


async def test_a_key_learns_no_version_of_what_it_may_not_read(tenant: Tenant) -> None:
    await tenant.add({"id": "secret", "text": "Of the board.", "groups": ["board"]})
    headers = await tenant.key("read", "write", groups=frozenset({"hr"}))
    reply = await tenant.http.put(
        "/v1/documents/secret",
        json={"text": "Mine.", "groups": ["hr"]},
        headers={**headers, "If-Match": '"1"'},
    )
    assert refused(reply) == LOST
    assert "version" not in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", [A, f"{A}/content", "/v1/documents", "/v1/documents?limit=1", "/v1/collections"]
)
async def test_what_the_caller_has_is_not_sent_again_until_it_changes(tenant: Tenant, path: str) -> None:
    first = await tenant.http.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await tenant.http.get(path, headers={"If-None-Match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await tenant.add({"id": "a", "text": "Changed."}, {"id": "0", "text": "New."})
    other = await tenant.http.get(path, headers={"If-None-Match": tag})
    assert (other.status_code, other.headers["etag"] == tag) == (200, False)


@pytest.mark.parametrize(
    ("method", "path", "headers", "param"),
    [
        ("PUT", A, {"If-Match": "7"}, "If-Match"),
        ("DELETE", A, {"If-Match": '"7" "8"'}, "If-Match"),
        ("PUT", A, {"If-None-Match": '"7"'}, "If-None-Match"),
        ("PUT", A, {"If-None-Match": "*", "If-Match": "*"}, "If-None-Match"),
        ("POST", "/v1/documents", {"If-Match": "*"}, "If-Match"),
        ("GET", A, {"If-None-Match": "x"}, "If-None-Match"),
    ],
)
async def test_a_condition_that_cannot_be_kept_is_refused(
    tenant: Tenant, method: str, path: str, headers: dict[str, str], param: str
) -> None:
    bodies: dict[str, Any] = {"PUT": {"text": "x"}, "POST": {"documents": [{"text": "x"}]}}
    reply = await tenant.http.request(method, path, headers=headers, json=bodies.get(method))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
