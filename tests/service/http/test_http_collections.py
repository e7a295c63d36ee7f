"""What a collection asks of its documents, over HTTP: refused, warned of, and reported, without any text."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.service.http.house import Tenant

PARAGRAPHS = [f"Paragraph {n} says what no other paragraph of the handbook would say." for n in range(4)]
TEXT = "\n\n".join(PARAGRAPHS)
FINE = {"owner": "ann"}


async def ask(tenant: Tenant, name: str, **rules: Any) -> None:
    reply = await tenant.http.put(f"/v1/collections/{name}/rules", json=rules)
    assert reply.status_code == 200, reply.text


async def hand_in(tenant: Tenant, name: str, document_id: str, text: str, **metadata: str) -> dict[str, Any]:
    document = {"id": document_id, "text": text, "metadata": metadata}
    reply = await tenant.http.post("/v1/documents", json={"collection": name, "documents": [document]})
    assert reply.status_code == 202, reply.text
    return await tenant.done(reply.json()["jobs"][0]["id"])


async def test_rules_are_kept_shown_and_given_up(tenant: Tenant) -> None:
    asked = {"languages": ["english"], "max_damage_share": 0.01, "refuse": ["max_damage_share"]}
    put = await tenant.http.put("/v1/collections/policies/rules", json=asked)
    assert put.json() == {"collection": "policies", "rules": asked}
    assert (await tenant.http.get("/v1/collections/policies/rules")).json() == put.json()
    await ask(tenant, "policies")
    assert (await tenant.http.get("/v1/collections/policies/rules")).status_code == 404
    await tenant.add({"id": "a", "text": TEXT}, collection="policies")
    assert (await tenant.http.get("/v1/collections/policies/rules")).json()["rules"] == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"languages": ["klingon"]},
        {"max_damage_share": 1.5},
        {"refuse": ["everything"]},
        {"required_metadata": ["no spaces"]},
        {"min_characters": 10, "max_characters": 5},
        {"no_such_rule": 1},
    ],
)
async def test_rules_that_mean_nothing_are_refused(tenant: Tenant, wrong: dict[str, Any]) -> None:
    reply = await tenant.http.put("/v1/collections/policies/rules", json=wrong)
    assert reply.status_code == 400, reply.text
    assert next(iter(wrong)) in reply.json()["error"]["message"]


async def test_only_administrators_make_rules_and_see_the_report(tenant: Tenant) -> None:
    key = await tenant.key("read", "write")
    for call in (
        tenant.http.put("/v1/collections/policies/rules", json={"min_characters": 5}, headers=key),
        tenant.http.get("/v1/collections/policies/report", headers=key),
    ):
        assert (await call).status_code == 403


async def test_metadata_that_is_insisted_on_is_asked_for_at_once(tenant: Tenant) -> None:
    await ask(tenant, "policies", required_metadata=["owner"], refuse=["required_metadata"])
    documents = [{"id": "a", "text": TEXT, "metadata": FINE}, {"id": "b", "text": TEXT}]
    body = {"collection": "policies", "documents": documents}
    reply = await tenant.http.post("/v1/documents", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (422, "validation", "documents[1].metadata")
    assert "lacks owner" in error["message"]
    assert (await tenant.http.get("/v1/documents")).json()["documents"] == []
    assert (await tenant.http.post("/v1/documents", json={**body, "collection": "free"})).status_code == 202


async def test_a_refused_document_says_why_and_a_warned_one_can_be_found(tenant: Tenant) -> None:
    rules = {"min_characters": 100, "languages": ["german"], "refuse": ["min_characters"]}
    await ask(tenant, "policies", **rules)
    short = await hand_in(tenant, "policies", "short", "Much too short.")
    assert (short["status"], short["error"]["code"], short["error"]["part"]) == (
        "quarantined",
        "validation",
        "min_characters",
    )
    english = await hand_in(tenant, "policies", "english", TEXT)
    assert english["status"] == "succeeded"
    assert [one["rule"] for one in english["warnings"]] == ["languages"]
    known = (await tenant.http.get("/v1/documents/english")).json()
    assert (known["visible"], known["warnings"]) == (True, english["warnings"])
    report = (await tenant.http.get("/v1/collections/policies/report")).json()
    assert (report["documents"], report["with_warnings"]) == (2, 1)
    assert report["refused"] == {"min_characters": {"documents": 1, "examples": ["short"]}}
    assert report["warned"] == {"languages": {"documents": 1, "examples": ["english"]}}
    # Handed in again without a fault, neither is told of any more.
    await ask(tenant, "policies", min_characters=5)
    await hand_in(tenant, "policies", "short", "Much too short.")
    await hand_in(tenant, "policies", "english", TEXT + "\n\nMore.")
    report = (await tenant.http.get("/v1/collections/policies/report")).json()
    assert (report["with_warnings"], report["refused"], report["warned"]) == (0, {}, {})


async def test_a_document_that_repeats_others_of_its_collection_is_told_by_how_much(tenant: Tenant) -> None:
    await ask(tenant, "policies", max_duplicate_share=0.6)
    await ask(tenant, "other", max_duplicate_share=0.6)
    half = "\n\n".join(
        [*PARAGRAPHS[:2], "These two are said here alone, in a document of its own.", TEXT[::-1]]
    )
    assert (await hand_in(tenant, "policies", "first", TEXT))["warnings"] == []
    assert (await hand_in(tenant, "policies", "first", TEXT))["warnings"] == []
    assert (await hand_in(tenant, "policies", "half", half))["warnings"] == []
    assert (await hand_in(tenant, "other", "elsewhere", TEXT))["warnings"] == []
    [warning] = (await hand_in(tenant, "policies", "again", TEXT.upper()))["warnings"]
    assert warning["rule"] == "max_duplicate_share"
    assert warning["message"].startswith("100% of the paragraphs")
    for gone in ("first", "half", "again"):
        await tenant.http.delete(f"/v1/documents/{gone}")
    assert (await hand_in(tenant, "policies", "last", TEXT))["warnings"] == []


async def test_a_collection_of_which_a_key_may_read_nothing_does_not_exist_for_it(tenant: Tenant) -> None:
    await tenant.add({"id": "plan", "text": TEXT, "groups": ["board"]}, collection="merger")
    await tenant.add({"id": "pay", "text": TEXT, "groups": ["board"]}, {"id": "a", "text": TEXT})
    await ask(tenant, "merger", languages=["english"])
    staff = await tenant.key("read", "write", groups=frozenset({"staff"}))
    board = await tenant.key("read", groups=frozenset({"board"}))
    async with httpx.AsyncClient(base_url=tenant.url, headers=staff) as client:
        listed = (await client.get("/v1/collections")).json()["collections"]
        assert listed == [{"name": "default", "documents": 1}]
        for method, path, body in (
            ("POST", "/v1/search", {"query": "what", "collection": "merger"}),
            ("POST", "/v1/summarize", {"collection": "merger"}),
            ("POST", "/v1/documents/delete", {"collection": "merger"}),
            ("GET", "/v1/documents?collection=merger", None),
            ("GET", "/v1/jobs?collection=merger", None),
            ("GET", "/v1/collections/merger/rules", None),
            ("DELETE", "/v1/collections/merger", None),
        ):
            told = await client.request(method, path, json=body)
            unknown = await client.request(
                method,
                path.replace("merger", "nothing"),
                json=body and {k: v.replace("merger", "nothing") for k, v in body.items()},
            )
            assert (told.status_code, told.json()["error"]["code"]) == (404, "collection_not_found"), path
            assert told.text.replace("merger", "nothing") == unknown.text
    async with httpx.AsyncClient(base_url=tenant.url, headers=board) as client:
        listed = (await client.get("/v1/collections")).json()["collections"]
        assert listed == [{"name": "default", "documents": 2}, {"name": "merger", "documents": 1}]


async def test_a_collection_that_has_become_empty_is_still_known(tenant: Tenant) -> None:
    await tenant.add({"id": "a", "text": TEXT})
    await tenant.http.delete("/v1/documents/a")
    staff = await tenant.key("read", groups=frozenset({"staff"}))
    async with httpx.AsyncClient(base_url=tenant.url, headers=staff) as client:
        assert (await client.get("/v1/collections")).json()["collections"] == [
            {"name": "default", "documents": 0}
        ]
