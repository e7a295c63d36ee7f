"""Searches whose hits this process saw before: the ledger is not asked about them, and they are never old."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.http.house import House, Tenant

QUERY = {"query": "How many days of paid leave?", "limit": 20}


async def _texts(tenant: Tenant, headers: dict[str, str] | None = None) -> list[str]:
    reply = await tenant.http.post("/v1/search", json=QUERY, headers=headers)
    found = reply.json()
    assert found["degraded"] == []
    return sorted(hit["text"] for hit in found["hits"])


async def test_what_was_seen_is_not_asked_about_and_no_change_is_missed(
    house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.search._FRESH", 60.0)  # A busy machine is no reason to look again.
    looks: list[Any] = []
    reads = type(house.services.visibility)
    look = reads.look

    async def counted(self: Any, generation: str, where: Any, candidates: Any) -> Any:
        looks.append(candidates)
        return await look(self, generation, where, candidates)

    monkeypatch.setattr(reads, "look", counted)
    staff = await tenant.key("read", groups=frozenset({"staff"}))
    leave, roof = "Employees get 28 days of paid leave a year.", "The roof is inspected every spring."
    await tenant.add(
        {"id": "leave", "text": leave, "groups": ["staff"]}, {"id": "roof", "text": roof, "groups": ["staff"]}
    )
    for headers in (None, staff):
        assert await _texts(tenant, headers) == [leave, roof]
        before = len(looks)
        assert await _texts(tenant, headers) == [leave, roof]
        assert len(looks) == before

    newer = leave.replace("28", "30")
    await tenant.add({"id": "leave", "text": newer, "groups": ["staff"]})
    assert await _texts(tenant) == await _texts(tenant, staff) == [newer, roof]

    await tenant.add({"id": "leave", "text": newer, "groups": ["board"]})
    assert await _texts(tenant, staff) == [roof]
    assert await _texts(tenant) == [newer, roof]
    assert await _texts(tenant, staff) == [roof]

    assert (await tenant.http.delete("/v1/documents/roof")).status_code == 200
    assert await _texts(tenant, staff) == []
    assert await _texts(tenant) == [newer]
