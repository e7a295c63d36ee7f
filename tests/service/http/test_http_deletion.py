"""Documents deleted by ids, metadata or collection: gone at once, and only what was meant."""

from __future__ import annotations

from typing import Any

import pytest

from ingestion import checks
from tests.service.http.house import House, Tenant


async def ids(tenant: Tenant, query: str = "paid leave") -> set[str]:
    reply = await tenant.http.post("/v1/search", json={"query": query, "limit": 50})
    assert reply.status_code == 200, reply.text
    return {hit["document_id"] for hit in reply.json()["hits"]}


async def delete(tenant: Tenant, **body: Any) -> Any:
    reply = await tenant.http.post("/v1/documents/delete", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def three(tenant: Tenant) -> None:
    await tenant.add(
        {"id": "a", "text": "Paid leave in A.", "metadata": {"year": 2023}},
        {"id": "b", "text": "Paid leave in B.", "metadata": {"year": 2024, "lang": "de"}},
    )
    await tenant.add({"id": "c", "text": "Paid leave in C.", "metadata": {"year": 2024}}, collection="other")


async def test_documents_are_deleted_by_ids_and_unknown_ones_are_left_out(tenant: Tenant) -> None:
    await three(tenant)
    assert await delete(tenant, ids=["a", "c", "nothing"]) == {
        "object": "documents.deleted",
        "deleted": True,
        "count": 2,
        "ids": ["a", "c"],
    }
    assert await ids(tenant) == {"b"}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"filter": {"year": {"$gte": 2024}}}, {"a"}),
        ({"filter": {"year": 2024}, "collection": "default"}, {"a", "c"}),
        ({"filter": {"$not": {"lang": "de"}}}, {"b"}),
        ({"collection": "default"}, {"c"}),
    ],
)
async def test_documents_are_deleted_by_metadata_and_collection(
    tenant: Tenant, chosen: dict[str, Any], left: set[str]
) -> None:
    await three(tenant)
    tried = await delete(tenant, **chosen, dry_run=True)
    assert (tried["deleted"], set(tried["ids"])) == (False, {"a", "b", "c"} - left)
    assert await ids(tenant) == {"a", "b", "c"}, "a dry run deleted something"

    assert set((await delete(tenant, **chosen))["ids"]) == {"a", "b", "c"} - left
    assert await ids(tenant) == left


async def test_a_collection_that_was_deleted_is_unknown_until_it_is_filled_again(tenant: Tenant) -> None:
    await three(tenant)
    gone = await tenant.http.delete("/v1/collections/other")
    assert (gone.status_code, gone.json()["count"], gone.json()["collection"]) == (200, 1, "other")
    assert await ids(tenant) == {"a", "b"}
    listed = (await tenant.http.get("/v1/collections")).json()["collections"]
    assert [one["name"] for one in listed] == ["default"]
    asked = await tenant.http.post("/v1/search", json={"query": "leave", "collection": "other"})
    assert (asked.status_code, asked.json()["error"]["code"]) == (404, "collection_not_found")
    assert (await tenant.http.delete("/v1/collections/other")).status_code == 404

    await tenant.add({"id": "d", "text": "Paid leave in D."}, collection="other")
    assert await ids(tenant) == {"a", "b", "d"}


async def test_a_collection_that_was_deleted_is_unknown_to_keys_of_groups_at_once(tenant: Tenant) -> None:
    await tenant.add({"id": "pay", "text": "Paid leave.", "groups": ["hr"]}, collection="other")
    headers = await tenant.key("read", groups=frozenset({"hr"}))
    asked = {"query": "leave", "collection": "other"}
    assert (await tenant.http.post("/v1/search", json=asked, headers=headers)).status_code == 200
    assert (await tenant.http.delete("/v1/collections/other")).status_code == 200
    assert (await tenant.http.post("/v1/search", json=asked, headers=headers)).status_code == 404


async def test_what_was_asked_before_is_not_answered_from_what_was_deleted_since(tenant: Tenant) -> None:
    await three(tenant)
    question = {"model": "plumbline", "messages": [{"role": "user", "content": "What is paid in C?"}]}
    for _ in range(2):
        assert (await tenant.http.post("/v1/chat/completions", json=question)).status_code == 200
    await delete(tenant, collection="other")
    answer = (await tenant.http.post("/v1/chat/completions", json=question)).json()
    assert "c" not in {one["document_id"] for one in answer["plumbline"]["citations"]}


async def test_a_key_of_some_groups_deletes_only_what_it_reads(house: House, tenant: Tenant) -> None:
    await tenant.add({"id": "hr", "text": "Paid leave.", "groups": ["hr"]}, {"id": "all", "text": "Paid."})
    await tenant.add({"id": "board", "text": "Paid leave.", "groups": ["board"]})
    headers = await tenant.key("read", "write", groups=frozenset({"hr"}))
    reply = await tenant.http.post("/v1/documents/delete", json={"collection": "default"}, headers=headers)
    assert reply.json()["ids"] == ["all", "hr"]
    assert await ids(tenant) == {"board"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": [], "collection": "default"},
        {"ids": ["a"], "collection": "default"},
        {"filter": {"$bad": 1}},
        {"all": True},
    ],
)
async def test_a_deletion_that_names_nothing_clearly_is_refused(tenant: Tenant, body: dict[str, Any]) -> None:
    await three(tenant)
    assert (await tenant.http.post("/v1/documents/delete", json=body)).status_code == 400
    assert await ids(tenant) == {"a", "b", "c"}


async def test_only_an_administrator_erases_and_nobody_is_shown_it_from_the_answer_on(tenant: Tenant) -> None:
    await three(tenant)
    headers = await tenant.key("read", "write")
    refused = await tenant.http.post("/v1/erase", json={"ids": ["a"]}, headers=headers)
    assert refused.status_code == 403

    begun = await tenant.http.post("/v1/erase", json={"filter": {"year": 2024}})
    assert (begun.status_code, begun.json()["documents"]) == (202, 2)
    assert await ids(tenant) == {"a"}
    shown = (await tenant.http.get(f"/v1/erasures/{begun.json()['id']}")).json()
    assert (shown["state"], shown["scope"], shown["receipt"]) == ("erasing", "filter", None)
    assert [one["id"] for one in (await tenant.http.get("/v1/erasures")).json()["erasures"]] == [shown["id"]]
    assert (await tenant.http.get("/v1/erasures/00000000-0000-0000-0000-000000000000")).status_code == 404


async def test_an_erasure_of_an_unknown_id_is_refused_whole_and_one_of_a_deleted_document_is_not(
    tenant: Tenant,
) -> None:
    await three(tenant)
    refused = await tenant.http.post("/v1/erase", json={"ids": ["a", "nope"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "document_not_found")
    assert "'nope'" in refused.json()["error"]["message"]
    assert await ids(tenant) == {"a", "b", "c"}
    assert (await tenant.http.get("/v1/erasures")).json()["erasures"] == []

    await delete(tenant, ids=["a"])
    begun = await tenant.http.post("/v1/erase", json={"ids": ["a"]})
    assert (begun.status_code, begun.json()["documents"]) == (202, 1)


async def test_a_document_whose_id_no_client_can_address_is_deleted_by_its_id_all_the_same(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(checks, "STEPS", frozenset())
        await tenant.add({"id": "..", "text": "Paid leave."})
    assert await ids(tenant) == {".."}
    assert (await delete(tenant, ids=[".."]))["ids"] == [".."]
    assert await ids(tenant) == set()


@pytest.mark.parametrize(
    "body", [{}, {"tenant": True, "ids": ["a"]}, {"tenant": False}, {"ids": [], "tenant": True}]
)
async def test_an_erasure_says_what_it_is_about(tenant: Tenant, body: dict[str, Any]) -> None:
    assert (await tenant.http.post("/v1/erase", json=body)).status_code == 400
