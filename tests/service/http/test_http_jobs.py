"""Jobs and the queue over HTTP: what is shown to whom, changing many at once, holding back and letting go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ingestion.intake import Intake
from tests.service.http.house import House, Tenant, serving


@pytest.fixture
async def held(tenant: Tenant) -> AsyncIterator[Tenant]:
    """A tenant whose queue is paused: what it hands in waits."""
    await _post(tenant.http, "/v1/queue/pause", {"reason": "the disk is swapped"})
    yield tenant
    await _post(tenant.http, "/v1/queue/resume", {})


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    reply = await client.post(path, json=body)
    assert reply.is_success, reply.text
    return reply.json()


async def _hand_in(client: httpx.AsyncClient, **document: Any) -> dict[str, Any]:
    collection = document.pop("collection", "default")
    body = {"collection": collection, "documents": [{"text": "Owls hunt.", **document}]}
    job: dict[str, Any] = (await _post(client, "/v1/documents", body))["jobs"][0]
    return job


async def test_a_paused_queue_takes_documents_says_why_they_wait_and_goes_on(held: Tenant) -> None:
    job = await _hand_in(held.http, id="a")
    now = (await held.http.get("/v1/queue")).json()
    assert (now["state"], now["queued"], now["running"]) == ("paused", 1, 0)
    assert now["pauses"][0]["reason"] == "the disk is swapped"
    assert now["eta_seconds"] is None
    await asyncio.sleep(0.6)
    assert (await held.http.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"
    assert (await _post(held.http, "/v1/queue/resume", {}))["state"] == "open"
    assert (await held.done(job["id"]))["status"] == "succeeded"


async def test_a_drained_queue_says_so(tenant: Tenant) -> None:
    now = await _post(tenant.http, "/v1/queue/drain", {})
    assert now["state"] == "drained"
    await _post(tenant.http, "/v1/queue/resume", {})


async def test_only_who_operates_holds_queues_back_and_sees_workers(house: House, tenant: Tenant) -> None:
    headers = await tenant.key("read", "write", groups=frozenset({"staff"}))
    async with httpx.AsyncClient(base_url=house.url, headers=headers) as client:
        for path in ("pause", "drain", "resume"):
            assert (await client.post(f"/v1/queue/{path}", json={})).status_code == 403
        assert (await client.get("/v1/workers")).status_code == 403
        assert (await client.get("/v1/queue/everybody")).status_code == 403
        assert (await client.get("/v1/queue")).json()["state"] == "open"
        document = {"text": "Owls hunt.", "groups": ["staff"]}
        high = await client.put("/v1/documents/a", json={**document, "priority": "high"})
        low = await client.put("/v1/documents/a", json={**document, "priority": "low"})
        assert (high.status_code, high.json()["error"]["code"]) == (403, "forbidden")
        assert (low.status_code, low.json()["jobs"][0]["priority"]) == (202, -5)
    workers = (await tenant.http.get("/v1/workers")).json()["workers"]
    assert [one["state"] for one in workers][-1] in ("idle", "working")


@pytest.mark.parametrize(
    ("way", "priority"),
    [
        ({"json": {"text": "x", "priority": 3}}, 3),
        ({"content": b"x", "params": {"priority": "high"}, "headers": {"Content-Type": "text/plain"}}, 5),
        ({"files": {"file": ("x.txt", b"x")}, "data": {"priority": "-10"}}, -10),
    ],
)
async def test_a_priority_is_told_in_every_way_in_which_documents_come(
    held: Tenant, way: dict[str, Any], priority: int
) -> None:
    reply = await held.http.put("/v1/documents/a", **way)
    assert reply.status_code == 202, reply.text
    assert reply.json()["jobs"][0]["priority"] == priority


@pytest.mark.parametrize("priority", [11, -11, "highest", 1.5])
async def test_a_priority_that_is_none_is_refused(tenant: Tenant, priority: Any) -> None:
    reply = await tenant.http.put("/v1/documents/a", json={"text": "x", "priority": priority})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "priority")


async def test_jobs_are_found_counted_cancelled_and_retried_by_what_they_are(held: Tenant) -> None:
    first = await _hand_in(held.http, id="a", collection="scans")
    second = await _hand_in(held.http, id="b", collection="scans")
    other = await _hand_in(held.http, id="c")
    listed = (await held.http.get("/v1/jobs", params={"collection": "scans"})).json()["jobs"]
    assert [job["id"] for job in listed] == [second["id"], first["id"]]
    page = (await held.http.get("/v1/jobs", params={"limit": 1})).json()
    assert page["next"] == page["jobs"][0]["id"]
    older = (await held.http.get("/v1/jobs", params={"before": second["id"]})).json()["jobs"]
    assert [job["id"] for job in older] == [first["id"]]

    assert await _post(held.http, "/v1/jobs/cancel", {"collection": "scans"}) == {"cancelled": 2}
    summary = (await held.http.get("/v1/jobs/summary")).json()
    assert summary["jobs"] == {"cancelled": 2, "queued": 1}
    assert await _post(held.http, "/v1/jobs/retry", {}) == {"retried": 0}
    again = {"status": "cancelled", "since": first["created_at"]}
    assert await _post(held.http, "/v1/jobs/retry", again) == {"retried": 2}
    named = await _post(held.http, "/v1/jobs/lookup", {"ids": [other["id"], first["id"]]})
    assert [job["id"] for job in named["jobs"]] == [first["id"], other["id"]]


async def test_jobs_that_did_not_succeed_are_counted_by_reason(tenant: Tenant) -> None:
    for name in ("a.pdf", "b.pdf"):
        reply = await tenant.http.put(f"/v1/documents/{name}", content=b"%PDF-1.7\nnothing of a PDF")
        await tenant.done(reply.json()["jobs"][0]["id"])
    (counted,) = (await tenant.http.get("/v1/jobs/summary")).json()["reasons"]
    assert (counted["status"], counted["jobs"]) == ("quarantined", 2)
    of_it = {"status": "quarantined", "reason": counted["reason"]}
    assert len((await tenant.http.get("/v1/jobs", params=of_it)).json()["jobs"]) == 2
    none = {"status": "quarantined", "reason": "needs_ocr"}
    assert (await tenant.http.get("/v1/jobs", params=none)).json()["jobs"] == []
    assert await _post(tenant.http, "/v1/jobs/retry", none) == {"retried": 0}


@pytest.mark.parametrize("bound", [{"most_queued": 3}, {"most_queued_bytes": 30}])
async def test_a_tenant_whose_queue_is_full_is_told_when_to_come_back(
    house: House, held: Tenant, bound: dict[str, int]
) -> None:
    whole = house.services.intake
    intake = Intake(whole._ledger, whole._blobs, upload_limit=2**20, **bound)
    headers = dict(held.http.headers)
    async with (
        serving(replace(house.services, intake=intake)) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
    ):
        for n in range(3):
            await _hand_in(client, id=f"page-{n}")
        body = {"documents": [{"id": "one-more", "text": "Owls hunt."}]}
        refused = await client.post("/v1/documents", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/v1/documents/one-more")).status_code == 404
        client.headers["Authorization"] = (await house.tenant()).http.headers["Authorization"]
        await _hand_in(client, id="of-another")
        client.headers["Authorization"] = headers["authorization"]
        await _post(client, "/v1/jobs/cancel", {})
        await _hand_in(client, id="one-more")


async def test_metrics_tell_of_the_queue_its_workers_and_how_good_estimates_were(held: Tenant) -> None:
    await _hand_in(held.http, id="a")
    metrics = (await held.http.get("/metrics")).text
    assert 'plumbline_jobs{state="queued"}' in metrics
    assert 'plumbline_workers{state="working"} 1.0' in metrics
    assert "plumbline_queue_paused 0.0" in metrics
    assert "plumbline_queue_oldest_seconds" in metrics
    assert "plumbline_job_eta_ratio_bucket" in metrics


async def test_jobs_since_a_plain_date_are_those_since_its_first_instant_in_utc(tenant: Tenant) -> None:
    await tenant.add({"id": "a", "text": "Paid leave."})
    for since, count in (("2001-02-03", 1), ("2001-02-03T04:05", 1), ("9000-01-01", 0)):
        found = await tenant.http.get("/v1/jobs", params={"since": since})
        assert (found.status_code, len(found.json()["jobs"])) == (200, count), found.text
    again = await tenant.http.post("/v1/jobs/retry", json={"since": "2001-02-03"})
    assert again.json() == {"retried": 0}


async def test_who_follows_a_job_is_told_when_the_service_stops(house: House, held: Tenant) -> None:
    job = await _hand_in(held.http, id="a")
    lines: list[str] = []
    async with serving(house.services) as url:
        client = httpx.AsyncClient(base_url=url, headers=dict(held.http.headers))
        begun = asyncio.Event()

        async def follow() -> None:
            async with client.stream("GET", f"/v1/jobs/{job['id']}/events") as reply:
                async for line in reply.aiter_lines():
                    lines.append(line.removeprefix("data: "))
                    begun.set()

        following = asyncio.create_task(follow())
        async with asyncio.timeout(30):
            await begun.wait()
    await following
    await client.aclose()
    first, *_, last = (json.loads(line) for line in lines if line)
    assert (first["status"], last["error"]["code"]) == ("queued", "service_stopping")
    assert (await held.http.get(f"/v1/jobs/{job['id']}")).json()["status"] == "queued"


async def test_a_client_learns_what_is_accepted_and_that_holds(house: House, tenant: Tenant) -> None:
    limits = (await tenant.http.get("/v1/queue")).json()["limits"]
    largest = b"a" * limits["document_bytes"]
    typed = {"Content-Type": "text/plain"}
    assert (await tenant.http.put("/v1/documents/a", content=largest, headers=typed)).status_code == 202
    refused = await tenant.http.put("/v1/documents/a", content=largest + b"a", headers=typed)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "document_too_large")
    most = [{"id": "a", "text": "Owls hunt."}] * (limits["request_documents"] + 1)
    assert (await tenant.http.post("/v1/documents", json={"documents": most})).status_code == 400
    assert limits["queued"] == house.services.intake.limits.queued
    assert limits["queued_bytes"] == house.services.intake.limits.queued_bytes
