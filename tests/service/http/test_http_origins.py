"""Pages of other origins: none may call, but for those that the settings name, and these with a key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from app.access import Access
from app.settings import Settings
from tests.service.http.house import House, Tenant, serving

APP = "https://app.example.com"
ASKS = {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,x-stainless-os",
}


@pytest.fixture(scope="module")
async def url(house: House) -> AsyncIterator[str]:
    settings = Settings(
        **{**dict(house.services.settings), "allowed_origins": f"{APP}, http://localhost:5173"}
    )
    access = Access(house.services.access._engine, open_access=True)
    async with serving(replace(house.services, settings=settings, access=access)) as url:
        yield url


async def test_a_page_of_an_allowed_origin_may_call_and_read_what_it_is_told(
    url: str, tenant: Tenant
) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Origin": APP}) as page:
        asked = await page.options("/v1/documents/x", headers=ASKS)
        listed = await page.get("/v1/documents", headers=dict(tenant.http.headers))

    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert "PUT" in asked.headers["access-control-allow-methods"]
    assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    assert listed.status_code == 200
    assert listed.headers["access-control-allow-origin"] == APP
    assert listed.headers["vary"] == "Origin"
    told = listed.headers["access-control-expose-headers"].lower()
    assert all(name in told for name in ("x-request-id", "retry-after", "x-plumbline-release"))


@pytest.mark.parametrize("body", [{"query": ""}, {"qery": "x"}])
async def test_it_reads_errors_too_whoever_tells_them(url: str, tenant: Tenant, body: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=url, headers={**tenant.http.headers, "Origin": APP}) as page:
        refused = await page.post("/v1/search", json=body)

    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == APP


async def test_without_a_key_it_stays_refused_and_can_read_why(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Origin": APP}) as page:
        refused = await page.get("/v1/documents")

    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "origin_not_allowed"
    assert refused.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil.example", "null"])
async def test_a_page_of_another_origin_may_not(url: str, tenant: Tenant, origin: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={**tenant.http.headers, "Origin": origin}) as page:
        asked = await page.options("/v1/documents/x", headers=ASKS)
        listed = await page.get("/v1/documents")

    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    assert "access-control-allow-origin" not in listed.headers


async def test_no_page_may_while_no_origin_is_named(tenant: Tenant) -> None:
    asked = await tenant.http.options("/v1/documents/x", headers={**ASKS, "Origin": APP})

    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers
