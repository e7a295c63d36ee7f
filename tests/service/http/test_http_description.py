"""The OpenAPI document can be built on: its references lead somewhere, its examples work, and every response
of the other tests is as it says (`Contract`)."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.openapi import Contract
from tests.service.http.house import House, Tenant


async def test_every_reference_of_the_description_leads_somewhere(house: House) -> None:
    document = house.contract.document
    references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))

    assert len(references) > 60
    for reference in references:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]


async def test_every_operation_tells_what_it_answers_under_a_name_of_its_own(house: House) -> None:
    operations = [
        operation for path in house.contract.document["paths"].values() for operation in path.values()
    ]
    names = [operation["operationId"] for operation in operations]

    assert len(set(names)) == len(names)
    assert {"search", "chat_completions", "documents_add", "jobs_show", "list_documents"} <= set(names)
    for operation in operations:
        if operation["operationId"] == "mcp":
            continue
        [success] = [status for status in operation["responses"] if status.startswith("2")]
        content = operation["responses"][success]["content"]
        assert all(told["schema"] for told in content.values()), operation["operationId"]


async def test_a_key_is_asked_for_but_by_what_load_balancers_ask(house: House) -> None:
    document = house.contract.document

    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {"key": []} in document["security"]
    open_to_all = {
        path for path, told in document["paths"].items() if told.get("get", {}).get("security") == []
    }
    assert open_to_all == {"/health/live", "/health/ready", "/metrics"}
    async with httpx.AsyncClient(base_url=house.url) as client:
        for path in open_to_all:
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


async def test_every_example_of_a_request_works(house: House, tenant: Tenant) -> None:
    await tenant.add(
        {"id": "m", "text": "A gateway outage. Paid leave is 28 days.", "metadata": {"lang": "en"}}
    )
    schemas = house.contract.document["components"]["schemas"]
    tried = 0
    for path, operations in house.contract.document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            for example in schemas.get(name, {}).get("examples", ()):
                address = path.replace("{document_id}", "m")
                reply = await tenant.http.request(method, address, json=example)
                assert reply.is_success, (method, path, reply.text)
                tried += 1
    assert tried >= 10


async def test_what_is_not_in_the_description_is_noticed(house: House) -> None:
    contract = Contract(house.services.settings)

    def answered(status: int, body: Any) -> httpx.Response:
        request = httpx.Request("GET", "http://h/v1/collections")
        return httpx.Response(status, json=body, request=request)

    await contract.check(answered(200, {"collections": [{"name": "a", "documents": 1}]}))
    for status, body in (
        (200, {"collections": [{"name": "a", "documents": 1, "more": 2}]}),
        (200, {"collections": [{"name": "a"}]}),
        (201, {"collections": []}),
        (400, {"detail": "no"}),
    ):
        with pytest.raises(AssertionError):
            await contract.check(answered(status, body))
