"""Health, metrics, releases, the page and the API's description."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace

import httpx
import pytest

from app import stalls
from app.admission import Admission
from app.assignment import Assigner
from app.release import Release, with_model
from app.serving import Serving, Servings
from ingestion.errors import LedgerUnavailable
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.scripted import Script, Scripted
from retrieval.errors import StoreUnavailable
from tests.service.http.house import House, Tenant, serving


async def down() -> None:
    raise StoreUnavailable("no")


async def hanging() -> None:
    await asyncio.sleep(3_600)


async def up() -> None:
    return None


@pytest.mark.parametrize(
    ("parts", "status", "told", "out"),
    [
        ({"ledger": up, "store": up, "outputs": up}, 200, "ready", []),
        ({"ledger": up, "store": up, "outputs": down}, 200, "degraded", ["outputs"]),
        ({"ledger": up, "store": up, "model:m": hanging}, 200, "degraded", ["model:m"]),
        ({"ledger": up, "store": up, "files": down}, 200, "degraded", ["files"]),
        ({"ledger": down, "store": up}, 503, "not ready", ["ledger"]),
        ({"ledger": up, "store": hanging}, 503, "not ready", ["store"]),
    ],
)
async def test_readiness_names_what_is_down_and_fails_only_for_what_is_needed(
    house: House, parts: dict[str, object], status: int, told: str, out: list[str]
) -> None:
    services = replace(house.services, health=lambda: parts)  # type: ignore[arg-type,return-value]
    async with serving(services) as url, httpx.AsyncClient(base_url=url) as client:
        reply = await client.get("/health/ready")
        assert (await client.get("/health/live")).status_code == 200
        await asyncio.sleep(2 * stalls.BEAT)
        metrics = (await client.get("/metrics")).text
    assert re.search(r"plumbline_loop_lag_seconds_count [1-9]", metrics)
    for part in parts:
        assert f'plumbline_part_up{{part="{part}"}} {float(part not in out)}' in metrics
    assert (reply.status_code, reply.json()["status"], reply.json()["down"]) == (status, told, out)


async def test_metrics_count_requests_and_answers_and_name_no_tenant(tenant: Tenant) -> None:
    await tenant.add({"id": "private-name", "text": "Owls hunt at night."})
    body = {"messages": [{"role": "user", "content": "When do owls hunt?"}]}
    await tenant.http.post("/v1/chat/completions", json=body)
    await tenant.http.get("/v1/documents/private-name")
    await tenant.http.get("/somewhere/else")

    metrics = (await tenant.http.get("/metrics")).text
    assert re.search(
        r'plumbline_http_request_seconds_count\{method="POST",route="/v1/chat/completions",status="200"\}',
        metrics,
    )
    assert 'route="/v1/documents/{document_id}"' in metrics
    assert re.search(r"plumbline_answers_total\{.*kind=\"chat\".*\} [1-9]", metrics)
    for name in (
        "plumbline_jobs",
        "plumbline_admission_running",
        "plumbline_stage_seconds",
        "plumbline_release_info",
    ):
        assert name in metrics
    assert 'plumbline_part_up{part="ledger"} 1.0' in metrics
    # An alert compares results of which there may be none.
    for result in ("mirrored", "dropped", "stopped", "failed"):
        assert f'plumbline_shadow_total{{result="{result}"}}' in metrics
    assert re.search(r"plumbline_disk_free_bytes [1-9]", metrics)
    assert tenant.name not in metrics
    assert "private-name" not in metrics
    assert "/somewhere/else" not in metrics


async def test_a_full_house_answers_429_at_once_and_says_when_to_come_back(
    house: House, tenant: Tenant
) -> None:
    await tenant.add({"id": "owls", "text": "Owls hunt at night."})
    services = replace(house.services, admission=Admission(max_running=1, max_waiting=0))
    body = {
        "messages": [{"role": "user", "content": "When do owls hunt?"}],
        "plumbline": {"cache": False},
    }
    headers = dict(tenant.http.headers)
    with house.stage.plays(Script(pieces=("a",), pace=3_600)) as model:
        async with serving(services) as url, httpx.AsyncClient(base_url=url, headers=headers) as client:
            first = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            async with asyncio.timeout(30):
                while not model.running:
                    await asyncio.sleep(0.01)
            refused = await client.post("/v1/chat/completions", json=body)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert int(refused.headers["retry-after"]) >= 1


async def test_as_the_queue_fills_summaries_are_made_by_smaller_models_and_say_so(
    house: House, tenant: Tenant
) -> None:
    await tenant.add({"id": "owls", "text": "Owls hunt at night."})
    big = Scripted(Script(pieces=("a",), pace=3_600), Script(pieces=("Owls hunt [1].",)), name="big")
    now = house.services.current()
    chain = replace(now, release=with_model(now.release, "big"), model=Fallback([big, Extractive(None)]))

    async def build(release: Release) -> Serving:
        return chain

    servings = Servings(lambda: house.services.release.champion().release, build)
    await servings.prepare(house.services.release.champion().release)
    services = replace(
        house.services,
        admission=Admission(max_running=1, max_waiting=3),
        assigner=Assigner(
            house.services.release,
            servings,
            house.services.assigner._assignments,
            house.services.indexes,
        ),
    )
    body, headers = {"document_ids": ["owls"]}, dict(tenant.http.headers)
    async with (
        serving(services) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
        asyncio.timeout(30),
    ):
        first = asyncio.create_task(client.post("/v1/summarize", json=body))
        while not big.running:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(client.post("/v1/summarize", json=body)) for _ in range(3)]
        while services.admission.waiting < 3:
            await asyncio.sleep(0.01)
        first.cancel()
        replies = [reply.json() for reply in await asyncio.gather(*waiting)]
    assert sorted(reply["degraded"] for reply in replies) == [[], [], ["model:extractive"]]


async def test_a_stream_that_runs_when_the_service_stops_ends_whole(house: House, tenant: Tenant) -> None:
    await tenant.add({"id": "owls", "text": "Owls hunt at night."})
    body = {
        "messages": [{"role": "user", "content": "When do owls hunt?"}],
        "plumbline": {"cache": False},
        "stream": True,
    }
    with house.stage.plays(Script(pieces=("word ",) * 20, pace=0.05)) as model:
        async with serving(house.services) as url:
            client = httpx.AsyncClient(base_url=url, headers=dict(tenant.http.headers))
            stream = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            async with asyncio.timeout(30):
                while not model.running:
                    await asyncio.sleep(0.01)
        told = (await stream).text
        await client.aclose()
    assert told.count('"content":"word "') == 20
    assert told.endswith("data: [DONE]\n\n")


async def test_an_outage_of_the_ledger_is_told_as_one_and_passes(
    house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: object, **more: object) -> None:
        raise LedgerUnavailable("PostgreSQL cannot be reached. Try again in a moment.")

    with monkeypatch.context() as patch:
        patch.setattr(house.services.intake, "jobs", away)
        patch.setattr(house.services.intake, "operation", away)
        reply = await tenant.http.get("/v1/jobs")
        metrics = (await tenant.http.get("/metrics")).text
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert "retry-after" in reply.headers
    assert "plumbline_queue_oldest_seconds NaN" in metrics
    assert (await tenant.http.get("/v1/jobs")).status_code == 200


async def test_releases_are_shown_promoted_and_rolled_back(house: House, tenant: Tenant) -> None:
    registry = house.services.release
    first = registry.champion().release
    second = with_model(first, "extractive-2")
    await registry.add(second)
    try:
        refused = await tenant.http.post(f"/v1/releases/{second.id}/promote", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "release_conflict")
        promoted = await tenant.http.post(
            f"/v1/releases/{second.id[:6]}/promote", json={"force": True, "reason": "try"}
        )
        assert promoted.json()["state"] == "champion"
        champion = (await tenant.http.get("/v1/releases/champion")).json()
        assert (champion["id"], champion["state"]) == (second.id, "champion")
    finally:
        back = await tenant.http.post("/v1/releases/rollback", json={"reason": "tried"})
    assert back.json()["id"] == first.id
    assert registry.champion().release.id == first.id
    listed = (await tenant.http.get("/v1/releases")).json()["releases"]
    assert {one["id"] for one in listed} >= {first.id, second.id}
    shown = (await tenant.http.get(f"/v1/releases/{second.id}")).json()
    assert shown["release"]["models"][0]["name"] == "extractive-2"


async def test_the_description_covers_every_address_and_names_what_each_does(tenant: Tenant) -> None:
    description = (await tenant.http.get("/openapi.json")).json()
    operations = [one for path in description["paths"].values() for one in path.values()]
    assert len(operations) >= 25
    assert all(one["summary"] and one["tags"] for one in operations)
    assert "/v1/chat/completions" in description["paths"]


async def test_the_description_names_the_shape_of_errors_at_every_address(tenant: Tenant) -> None:
    description = (await tenant.http.get("/openapi.json")).json()
    operations = [one for path in description["paths"].values() for one in path.values()]
    for one in operations:
        assert "422" not in one["responses"]
        for kind in ("4XX", "5XX"):
            schema = one["responses"][kind]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Failure"}
    told = description["components"]["schemas"]["Told"]
    error = (await tenant.http.get("/v1/documents/nothing")).json()["error"]
    assert set(told["required"]) == set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/"])
async def test_a_load_balancer_may_ask_with_head(tenant: Tenant, path: str) -> None:
    asked, shown = await tenant.http.head(path), await tenant.http.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == shown.headers["content-type"]


async def test_a_path_forges_no_line_of_the_log(tenant: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "plumbline.access"):
        forged = "/%1b%5b31mX%0d%0aapi%20|%20GET%20/forged%20200%00%E2%80%AE%C2%9b"
        assert (await tenant.http.get(forged)).status_code == 404
        assert (await tenant.http.get("/v1/documents/stra%C3%9Fe")).status_code == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "plumbline.access"]
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(r"GET /\u001b[31mX\u000d\u000aapi | GET /forged 200\u0000\u202e\u009b 404")
    assert lines[1].startswith("GET /v1/documents/straße 404")


async def test_the_page_comes_with_a_policy_that_runs_nothing_else(tenant: Tenant) -> None:
    page = await tenant.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = await tenant.http.get("/web/app.js")
    assert script.status_code == 200
    assert script.headers["x-content-type-options"] == "nosniff"


async def test_a_connection_is_kept_for_longer_than_clients_keep_theirs(house: House) -> None:
    """Who asks after five seconds, for which most keep a connection, finds it open."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for pause in (5.5, 0.0):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
        assert head.startswith(b"HTTP/1.1 200")
        await asyncio.sleep(pause)
    writer.close()
