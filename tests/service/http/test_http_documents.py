"""Documents, jobs, search, summaries and embeddings over HTTP, and who may see what."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.packages import package
from tests.service.http.house import House, Tenant

LEAVE = "Every employee has 28 days of paid leave a year. Unused days expire in March."


async def test_files_handed_in_as_a_form_are_found_with_what_was_said_about_them(tenant: Tenant) -> None:
    reply = await tenant.http.post(
        "/v1/documents",
        data={"collection": "policies", "groups": "hr,board", "metadata": json.dumps({"year": 2026})},
        files=[
            ("files", ("leave.txt", LEAVE.encode(), "text/plain")),
            ("files", ("travel policy.md", b"# Travel\n\nTrains before planes.", "text/markdown")),
        ],
    )
    assert reply.status_code == 202, reply.text
    jobs = reply.json()["jobs"]
    assert [job["document_id"] for job in jobs] == ["leave.txt", "travel-policy.md"]
    for job in jobs:
        assert (await tenant.done(job["id"]))["status"] == "succeeded"

    found = (
        await tenant.http.post("/v1/search", json={"query": "paid leave", "filter": {"year": 2026}})
    ).json()
    assert found["hits"][0]["document_id"] == "leave.txt"
    assert found["hits"][0]["metadata"] == {"year": 2026}
    assert found["degraded"] == []
    shown = (await tenant.http.get("/v1/documents/leave.txt")).json()
    assert (shown["collection"], shown["groups"], shown["visible"]) == ("policies", ["board", "hr"], True)


async def test_a_document_says_what_became_of_its_newest_version(tenant: Tenant) -> None:
    for content, visible, status in (
        (b"%PDF-1.7\nnothing of a PDF", False, "quarantined"),
        (LEAVE.encode(), True, "succeeded"),
        (b"%PDF-1.7\nnothing of a PDF", True, "quarantined"),
    ):
        reply = await tenant.http.put("/v1/documents/leave", content=content)
        ended = await tenant.done(reply.json()["jobs"][0]["id"])
        (listed,) = (await tenant.http.get("/v1/documents")).json()["documents"]
        shown = (await tenant.http.get("/v1/documents/leave")).json()
        assert listed == shown
        assert (shown["visible"], shown["status"], shown["error"]) == (visible, status, ended["error"])


async def test_sheets_and_archives_are_found_by_what_is_in_them(tenant: Tenant) -> None:
    letter = b"From: Ann <ann@x.test>\nSubject: Gauge returns\n\nSend worn gauges to the Bern depot.\n"
    reply = await tenant.http.post(
        "/v1/documents",
        files=[
            ("files", ("prices.csv", b"Item;Price\nTipping gauge;120\n", "application/vnd.ms-excel")),
            ("files", ("mails.zip", package({"june/returns.eml": letter}), "application/zip")),
        ],
    )
    assert reply.status_code == 202, reply.text
    for job in reply.json()["jobs"]:
        assert (await tenant.done(job["id"]))["status"] == "succeeded"

    for query, document in (("price of the tipping gauge", "prices.csv"), ("Bern depot", "mails.zip")):
        found = (await tenant.http.post("/v1/search", json={"query": query})).json()
        assert found["hits"][0]["document_id"] == document


async def test_documents_are_found_by_number_date_and_list_of_their_metadata(tenant: Tenant) -> None:
    await tenant.add(
        {"id": "old", "text": "Paid leave.", "metadata": {"year": 2023, "tags": ["hr"], "on": "2023-11-30"}},
        {"id": "new", "text": "Paid leave.", "metadata": {"year": 2024, "tags": ["hr", "law"]}},
        {"id": "bare", "text": "Paid leave."},
    )

    async def found(conditions: dict[str, Any]) -> set[str]:
        body = {"query": "paid leave", "filter": conditions}
        reply = await tenant.http.post("/v1/search", json=body)
        assert reply.status_code == 200, reply.text
        return {hit["document_id"] for hit in reply.json()["hits"]}

    assert await found({"year": {"$gte": 2023, "$lt": 2024}}) == {"old"}
    assert await found({"on": {"$gt": "2023-11-29T23:59:59Z", "$lte": "2023-11-30"}}) == {"old"}
    assert await found({"tags": {"$all": ["hr", "law"]}}) == {"new"}
    assert await found({"$not": {"tags": "law"}}) == {"old", "bare"}
    assert await found({"$or": [{"year": 2024}, {"year": {"$exists": False}}]}) == {"new", "bare"}


@pytest.mark.parametrize("way", ["raw", "form", "json"])
async def test_a_document_put_again_is_replaced(tenant: Tenant, way: str) -> None:
    await tenant.add({"id": "a", "text": "The old text speaks of owls."})
    ways: dict[str, dict[str, Any]] = {
        "raw": {"content": b"The new text speaks of eagles.", "headers": {"Content-Type": "text/plain"}},
        "form": {"files": {"file": ("x.txt", b"The new text speaks of eagles.")}},
        "json": {"json": {"text": "The new text speaks of eagles."}},
    }
    reply = await tenant.http.put("/v1/documents/a", **ways[way])
    assert reply.status_code == 202, reply.text
    await tenant.done(reply.json()["jobs"][0]["id"])

    texts = [h["text"] for h in (await tenant.http.post("/v1/search", json={"query": "text"})).json()["hits"]]
    assert texts == ["The new text speaks of eagles."]


async def test_the_same_idempotency_key_hands_in_once(tenant: Tenant) -> None:
    body = {"documents": [{"id": "a", "text": "once"}]}
    replies = [
        await tenant.http.post("/v1/documents", json=body, headers={"Idempotency-Key": "k1"})
        for _ in range(2)
    ]
    assert replies[0].json()["jobs"][0]["id"] == replies[1].json()["jobs"][0]["id"]
    body["documents"][0]["text"] = "another"
    reply = await tenant.http.post("/v1/documents", json=body, headers={"Idempotency-Key": "k1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_deleted_document_is_not_found_by_any_address(tenant: Tenant) -> None:
    await tenant.add({"id": "a", "text": LEAVE})
    [hit] = (await tenant.http.post("/v1/search", json={"query": "leave"})).json()["hits"]

    gone = await tenant.http.delete("/v1/documents/a")
    assert (gone.status_code, gone.json()["deleted"]) == (200, True)

    for path in ("", "/content", f"/chunks/{hit['chunk_id']}"):
        assert (await tenant.http.get(f"/v1/documents/a{path}")).status_code == 404
    assert (await tenant.http.post("/v1/search", json={"query": "leave"})).json()["hits"] == []
    assert (await tenant.http.get("/v1/documents")).json()["documents"] == []


async def test_the_original_is_given_back_unchanged_and_cannot_run_as_a_page(tenant: Tenant) -> None:
    page = b"<html><body><h1>Hi</h1><p>Some words of text.</p><script>alert(1)</script></body></html>"
    reply = await tenant.http.post("/v1/documents", files={"files": ('sm"ile\u263a.html', page)})
    [job] = reply.json()["jobs"]
    original = await tenant.http.get(f"/v1/documents/{job['document_id']}/content")
    assert original.content == page
    assert original.headers["content-disposition"].startswith("attachment; filename=")
    assert original.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in original.headers["content-security-policy"]


async def test_a_passage_is_shown_with_its_neighbours(tenant: Tenant) -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + f"Sentence {n} speaks of item {n}. " * 40 for n in range(4))
    await tenant.add({"id": "long", "text": text, "media_type": "text/markdown"})
    hits = (await tenant.http.post("/v1/search", json={"query": "item", "limit": 50})).json()["hits"]
    ordinals = sorted(int(hit["chunk_id"].split("-")[1]) for hit in hits)
    revision = hits[0]["chunk_id"].split("-")[0]
    assert len(ordinals) >= 3

    async def passage(ordinal: int) -> dict[str, Any]:
        reply = await tenant.http.get(f"/v1/documents/long/chunks/{revision}-{ordinal}")
        shown: dict[str, Any] = reply.json()
        return shown

    first, second, last = await passage(0), await passage(1), await passage(ordinals[-1])
    assert (first["before"], last["after"]) == (None, None)
    assert second["before"]["text"] == first["text"]
    assert first["after"]["text"] == second["text"]


async def test_documents_are_listed_in_pages(tenant: Tenant) -> None:
    await tenant.add(*({"id": f"d{n}", "text": f"text {n}"} for n in range(5)))
    seen: list[str] = []
    after: str | None = None
    while True:
        query = {"limit": "2", **({"after": after} if after else {})}
        page = (await tenant.http.get("/v1/documents", params=query)).json()
        seen += [one["id"] for one in page["documents"]]
        after = page["next"]
        if after is None:
            break
    assert seen == [f"d{n}" for n in range(5)]


async def test_a_job_is_followed_until_it_ends(tenant: Tenant) -> None:
    reply = await tenant.http.post("/v1/documents", json={"documents": [{"id": "a", "text": LEAVE}]})
    [job] = reply.json()["jobs"]
    events = (await tenant.http.get(f"/v1/jobs/{job['id']}/events")).text
    data = [line.removeprefix("data: ") for line in events.splitlines() if line]
    assert data[-1] == "[DONE]"
    assert json.loads(data[-2])["status"] == "succeeded"

    listed = (await tenant.http.get("/v1/jobs", params={"status": "succeeded"})).json()["jobs"]
    assert [one["id"] for one in listed] == [job["id"]]
    for act in ("cancel", "retry"):
        refused = await tenant.http.post(f"/v1/jobs/{job['id']}/{act}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


async def test_search_gives_one_hit_per_document_when_asked(tenant: Tenant) -> None:
    text = "\n\n".join(f"# Part {n}\n\n" + "Owls hunt at night. " * 60 for n in range(3))
    await tenant.add(
        {"id": "owls", "text": text, "media_type": "text/markdown"}, {"id": "b", "text": "Owls."}
    )
    body = {"query": "owls", "limit": 10}
    chunks = (await tenant.http.post("/v1/search", json=body)).json()["hits"]
    documents = (await tenant.http.post("/v1/search", json={**body, "group": "document"})).json()["hits"]
    assert len(chunks) > 2
    assert sorted(hit["document_id"] for hit in documents) == ["b", "owls"]


async def test_a_summary_cites_its_sources_and_streams_to_the_same_end(tenant: Tenant) -> None:
    await tenant.add({"id": "leave", "text": LEAVE})
    body = {"document_ids": ["leave"], "cache": False}
    whole = (await tenant.http.post("/v1/summarize", json=body)).json()
    assert "28 days" in whole["text"]
    assert whole["citations"][0]["document_id"] == "leave"
    assert 0 < whole["coverage"] <= 1

    streamed = (await tenant.http.post("/v1/summarize", json={**body, "stream": True})).text
    data = [line.removeprefix("data: ") for line in streamed.splitlines() if line]
    assert data[-1] == "[DONE]"
    assert json.loads(data[-2])["text"] == whole["text"]
    deltas = [json.loads(one) for one in data[:-2]]
    assert "".join(d["delta"] for d in deltas if d["object"] == "summary.delta") == whole["text"]


async def test_a_text_of_ones_own_is_summarized(tenant: Tenant) -> None:
    reply = await tenant.http.post("/v1/summarize", json={"text": LEAVE * 3, "max_words": 50})
    assert reply.status_code == 200, reply.text
    assert "leave" in reply.json()["text"]


async def test_collections_and_what_is_said_of_a_question_are_summarized(tenant: Tenant) -> None:
    await tenant.add({"id": "leave", "text": LEAVE}, collection="policies")
    await tenant.add({"id": "owls", "text": "Owls hunt at night in old barns."}, collection="animals")
    await tenant.add({"id": "ants", "text": "Ants build long roads below the ground."}, collection="other")

    async def cited(**body: object) -> set[str]:
        reply = await tenant.http.post("/v1/summarize", json=body)
        assert reply.status_code == 200, reply.text
        return {citation["document_id"] for citation in reply.json()["citations"]}

    assert await cited(collections=["policies", "animals"]) == {"leave", "owls"}
    assert await cited(focus="When do owls hunt?") == {"owls"}


async def test_the_official_client_embeds(house: House, tenant: Tenant) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=tenant.secret) as client:
        reply = await client.embeddings.create(model="plumbline", input=["owls", "eagles", "owls"])
    vectors = np.array([one.embedding for one in reply.data])
    assert vectors.shape == (3, house.services.embedder.spec.dimension)
    assert np.allclose(vectors[0], vectors[2], atol=1e-3)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert reply.usage.prompt_tokens > 0

    plain = await tenant.http.post(
        "/v1/embeddings", json={"input": "owls", "encoding_format": "base64", "model": "all-MiniLM-L6-v2"}
    )
    decoded = np.frombuffer(base64.b64decode(plain.json()["data"][0]["embedding"]), "<f4")
    assert np.allclose(decoded, vectors[0], atol=1e-2)


# ---- who may see what


async def test_no_tenant_reaches_another_by_any_endpoint(house: House, tenant: Tenant) -> None:
    await tenant.add({"id": "secret", "title": "Merger", "text": "The merger with Corvid is on Friday."})
    [hit] = (await tenant.http.post("/v1/search", json={"query": "merger"})).json()["hits"]
    job = (await tenant.http.get("/v1/jobs")).json()["jobs"][0]["id"]
    other = await house.tenant()
    await other.add({"id": "mine", "text": "Nothing of interest."})

    chunk = hit["chunk_id"]
    for method, path in [
        ("GET", "/v1/documents/secret"),
        ("GET", "/v1/documents/secret/content"),
        ("GET", f"/v1/documents/secret/chunks/{chunk}"),
        ("GET", f"/v1/documents/mine/chunks/{chunk}"),
        ("DELETE", "/v1/documents/secret"),
        ("GET", f"/v1/jobs/{job}"),
        ("GET", f"/v1/jobs/{job}/events"),
        ("POST", f"/v1/jobs/{job}/cancel"),
        ("POST", f"/v1/jobs/{job}/retry"),
    ]:
        assert (await other.http.request(method, path)).status_code == 404, path

    question = "When is the merger with Corvid?"
    told = [
        await other.http.post("/v1/search", json={"query": question, "document_ids": ["secret"]}),
        await other.http.post("/v1/search", json={"query": question}),
        await other.http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": question}]}
        ),
        await other.http.post("/v1/summarize", json={"collection": "default"}),
        await other.http.post("/v1/summarize", json={"document_ids": ["secret"]}),
        await other.http.get("/v1/documents"),
        await other.http.get("/v1/jobs"),
    ]
    assert not [reply.text for reply in told if "Friday" in reply.text or "Merger" in reply.text]

    await other.add({"id": "secret", "text": "The other tenant's own."})
    assert (await tenant.http.get("/v1/documents/secret")).json()["title"] == "Merger"


async def test_a_key_sees_documents_of_its_groups_and_those_of_none(house: House, tenant: Tenant) -> None:
    await tenant.add(
        {"id": "hr", "text": "Salaries rise in May.", "groups": ["hr"]},
        {"id": "all", "text": "The canteen opens in May."},
    )
    every = (await tenant.http.get("/v1/jobs")).json()["jobs"]
    for groups, seen in (
        (frozenset({"hr"}), {"hr", "all"}),
        (frozenset({"sales"}), {"all"}),
        (None, {"all"}),
    ):
        headers = await tenant.key("read", groups=groups)
        async with httpx.AsyncClient(base_url=house.url, headers=headers) as client:
            hits = (await client.post("/v1/search", json={"query": "May"})).json()["hits"]
            listed = (await client.get("/v1/documents")).json()["documents"]
            hr = await client.get("/v1/documents/hr")
            jobs = (await client.get("/v1/jobs")).json()["jobs"]
            of_hr = [await client.get(f"/v1/jobs/{job['id']}") for job in every if job["document_id"] == "hr"]
        assert {hit["document_id"] for hit in hits} == seen
        assert {one["id"] for one in listed} == seen
        assert {job["document_id"] for job in jobs} == seen
        assert [one.status_code for one in (hr, *of_hr)] == [200 if "hr" in seen else 404] * 2


async def test_a_key_writes_only_for_its_groups_and_over_nothing_it_cannot_read(
    house: House, tenant: Tenant
) -> None:
    await tenant.add({"id": "board", "text": "The board's plan.", "groups": ["board"]})
    headers = await tenant.key("read", "write", groups=frozenset({"hr"}))
    async with httpx.AsyncClient(base_url=house.url, headers=headers) as client:
        for groups in ([], ["board"], ["hr", "board"]):
            body = {"documents": [{"id": "new", "text": "x", "groups": groups}]}
            assert (await client.post("/v1/documents", json=body)).status_code == 403
        taken = {"documents": [{"id": "board", "text": "x", "groups": ["hr"]}]}
        assert (await client.post("/v1/documents", json=taken)).status_code == 403
        others = [{"id": f"other-{n}", "text": "x", "groups": ["hr"]} for n in range(3)]
        among = {"documents": [*others, *taken["documents"]]}
        assert (await client.post("/v1/documents", json=among)).status_code == 403
        assert (await client.get("/v1/documents/other-0")).status_code == 404
        fine = {"documents": [{"id": "new", "text": "x", "groups": ["hr"]}]}
        assert (await client.post("/v1/documents", json=fine)).status_code == 202
        assert (await client.delete("/v1/documents/board")).status_code == 404


async def test_a_key_does_only_what_its_scopes_allow(house: House, tenant: Tenant) -> None:
    reader, writer = await tenant.key("read"), await tenant.key("write")
    body = {"documents": [{"id": "a", "text": "x"}]}
    async with httpx.AsyncClient(base_url=house.url) as client:
        assert (await client.post("/v1/documents", json=body, headers=reader)).status_code == 403
        assert (await client.delete("/v1/documents/a", headers=reader)).status_code == 403
        assert (await client.post("/v1/releases/rollback", json={}, headers=reader)).status_code == 403
        assert (await client.get("/v1/documents", headers=writer)).status_code == 403
        assert (await client.post("/v1/search", json={"query": "x"}, headers=writer)).status_code == 403


async def test_a_revoked_key_stops(house: House, tenant: Tenant) -> None:
    key, secret = await tenant.access.create_key(tenant.name, "gone", groups=None, scopes=["read"])
    headers = {"Authorization": f"Bearer {secret}"}
    assert (await tenant.http.get("/v1/models", headers=headers)).status_code == 200
    await tenant.access.revoke_key(key.id)
    async with asyncio.timeout(30):
        while (await tenant.http.get("/v1/models", headers=headers)).status_code != 401:
            await asyncio.sleep(0.1)


async def test_open_access_is_for_loopback_names_and_its_own_pages(house: House) -> None:
    own = house.open_url.removeprefix("http://")
    async with httpx.AsyncClient(base_url=house.open_url) as client:
        for headers, status in (
            ({}, 200),
            ({"Host": own, "Origin": house.open_url}, 200),
            ({"Host": "localhost"}, 200),
            ({"Host": "evil.example"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Authorization": "Bearer pl-wrong"}, 401),
        ):
            reply = await client.get("/v1/models", headers=headers)
            assert reply.status_code == status, headers
            if status != 200:
                assert reply.json()["error"]["message"]


@pytest.mark.parametrize("name", [".", "..", "../.."])
async def test_a_file_named_as_a_step_between_folders_gets_an_id_that_can_be_addressed(
    tenant: Tenant, name: str
) -> None:
    reply = await tenant.http.post("/v1/documents", files={"files": (name, b"Paid leave.")})
    assert reply.status_code == 202, reply.text
    (job,) = reply.json()["jobs"]
    await tenant.done(job["id"])
    assert (await tenant.http.get(f"/v1/documents/{job['document_id']}")).status_code == 200


async def test_an_empty_group_does_not_publish_a_document(tenant: Tenant) -> None:
    for sent in (
        tenant.http.post("/v1/documents", data={"groups": ""}, files={"files": ("a.txt", b"Secret.")}),
        tenant.http.put("/v1/documents/a?groups=", content=b"Secret."),
        tenant.http.put("/v1/documents/a?groups=hr,%20", content=b"Secret."),
        tenant.http.post("/v1/documents", json={"documents": [{"text": "Secret.", "groups": [""]}]}),
    ):
        reply = await sent
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "document_invalid")
        assert reply.json()["error"]["message"].startswith("'' is no group name")
    assert (await tenant.http.get("/v1/documents")).json()["documents"] == []
