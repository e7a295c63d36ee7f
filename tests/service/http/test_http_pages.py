"""Page by page through what changes meanwhile: search results, documents."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.service.http.house import House, Tenant

SEARCH, DOCUMENTS = "/v1/search", "/v1/documents"
RULES = 45


def rule(number: int) -> dict[str, Any]:
    return {"id": f"r{number:03}", "text": f"Rule {number} of the house is about hall {number}."}


@pytest.fixture(scope="module")
async def shared(house: House) -> Tenant:
    tenant = await house.tenant()
    await tenant.add(*(rule(number) for number in range(RULES)))
    return tenant


async def page_of(tenant: Tenant, after: str | None, **asked: Any) -> tuple[list[str], str | None]:
    body = {"query": "rules of the house", **asked, **({"after": after} if after else {})}
    reply = await tenant.http.post(SEARCH, json=body)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    return [hit["document_id"] for hit in found["hits"]], found["next"]


@pytest.mark.parametrize("group", ["chunk", "document"])
async def test_pages_of_a_search_tell_everything_once(shared: Tenant, group: str) -> None:
    told, after = await page_of(shared, None, limit=20, group=group)
    first = told[:]
    while after is not None:
        hits, after = await page_of(shared, after, limit=20, group=group)
        told += hits
    assert sorted(told) == [rule(number)["id"] for number in range(RULES)]
    assert first == (await page_of(shared, None, limit=20, group=group))[0]


async def test_pages_of_a_search_pass_nothing_over_while_documents_change(house: House) -> None:
    tenant = await house.tenant()
    await tenant.add(*(rule(number) for number in range(24)))
    told, after = await page_of(tenant, None, limit=8)
    gone = told[:3]
    await tenant.http.post(f"{DOCUMENTS}/delete", json={"ids": gone})
    await tenant.add(*(rule(number) for number in range(24, 26)))
    while after is not None:
        hits, after = await page_of(tenant, after, limit=8)
        told += hits
    assert len(told) == len(set(told))
    assert sorted(told) == [rule(number)["id"] for number in range(26)]


async def test_a_search_ends_at_a_thousand_hits_and_refuses_what_is_no_cursor(shared: Tenant) -> None:
    for wrong in ("x", "====", "A" * 12, "é", "A" * 8_004):
        reply = await shared.http.post(SEARCH, json={"query": "x", "after": wrong})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "after"), wrong
    told = b"".join(number.to_bytes(6) for number in range(998))
    hits, after = await page_of(shared, base64.urlsafe_b64encode(told).decode(), limit=2)
    assert (len(hits), after) == (2, None)


async def test_whoever_pages_through_documents_meets_each_that_stays_once(house: House) -> None:
    """After each page the last one told and one to come are deleted, one is changed, and new ones appear."""
    tenant = await house.tenant()
    await tenant.http.post("/v1/queue/pause", json={})
    try:
        for begin in (0, 1_000):
            documents = [{"id": f"d{n:05}", "text": f"Text {n}."} for n in range(begin, begin + 1_000)]
            reply = await tenant.http.post(DOCUMENTS, json={"documents": documents})
            assert reply.status_code == 202
        met: list[str] = []
        gone: set[str] = set()
        params: dict[str, Any] | None = {"limit": 300}
        while params is not None:
            page = (await tenant.http.get(DOCUMENTS, params=params)).json()
            met += [one["id"] for one in page["documents"]]
            last = page["next"]
            params = {"limit": 300, "after": last} if last else None
            if last:
                number = int(last[1:6])
                for one in (last, f"d{number + 7:05}"):
                    assert (await tenant.http.delete(f"{DOCUMENTS}/{one}")).status_code == 200
                    gone.add(one)
                for one in (f"d{number - 2:05}x", f"d{number + 2:05}x", f"d{number + 3:05}"):
                    reply = await tenant.http.put(f"{DOCUMENTS}/{one}", json={"text": "Changed."})
                    assert reply.status_code == 202
        assert len(met) == len(set(met))
        assert {f"d{n:05}" for n in range(2_000)} - gone <= set(met)
    finally:
        await tenant.http.delete("/v1/collections/default")
        await tenant.http.post("/v1/queue/resume", json={})
