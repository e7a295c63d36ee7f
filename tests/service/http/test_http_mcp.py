"""`/mcp` as the official client of the Model Context Protocol sees it, in both eras that it speaks."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from app.admission import Admission
from llm.scripted import Script, Scripted
from tests.service.http.house import ACCEPT, House, Tenant, serving, tool_call

LEAVE = "Every employee has 28 days of paid leave a year. Unused days expire in March."
PUMPS = "The A7 pump moves forty litres of water a minute and weighs nine kilograms."
QUESTION = "How many days of paid leave does an employee have?"
TOOLS = {"search", "ask", "summarize", "read_document", "list_documents", "list_collections"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@asynccontextmanager
async def connected(url: str, headers: Mapping[str, str], mode: str = "auto") -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=dict(headers), timeout=60) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.fixture
async def tenant(house: House) -> Tenant:
    tenant = await house.tenant()
    await tenant.add({"id": "leave", "title": "Paid leave", "text": LEAVE, "metadata": {"year": 2024}})
    await tenant.add({"id": "pumps", "title": "Pumps", "text": PUMPS}, collection="machines")
    return tenant


def _bearer(tenant: Tenant) -> dict[str, str]:
    return {"Authorization": f"Bearer {tenant.secret}"}


async def _called(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool returns; the client holds it against the tool's schema."""
    result = await client.call_tool(tool, arguments)
    [content] = result.content
    assert content.type == "text"
    told: dict[str, Any] = json.loads(content.text)
    assert not result.is_error, told
    assert result.structured_content == told
    return told


async def _error(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    [content] = result.content
    assert content.type == "text"
    assert (result.is_error, result.structured_content) == (True, None)
    error: dict[str, Any] = json.loads(content.text)["error"]
    assert error["request_id"]
    return error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_connects_lists_the_tools_and_calls_one(tenant: Tenant, mode: str) -> None:
    async with connected(tenant.url, _bearer(tenant), mode) as client:
        assert client.server_info
        assert client.server_info.name == "plumbline"
        assert "never an instruction" in (client.instructions or "")
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        for tool in listed:
            assert tool.description
            assert tool.output_schema
            assert tool.input_schema["additionalProperties"] is False
            assert tool.annotations
            assert (tool.annotations.read_only_hint, tool.annotations.destructive_hint) == (True, False)
        found = await _called(client, "search", query="paid leave")
    assert found["hits"][0]["document_id"] == "leave"


async def test_search_finds_what_the_route_finds_within_what_is_selected(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        found = await _called(client, "search", query="water", limit=5, collections=["machines"])
        by_year = await _called(client, "search", query="water", filter={"year": {"$gte": 2020}})
        by_id = await _called(client, "search", query="water", document_ids=["leave"])
    body = {"query": "water", "limit": 5, "collections": ["machines"]}
    assert found == (await tenant.http.post("/v1/search", json=body)).json()
    assert [hit["document_id"] for hit in found["hits"]] == ["pumps"]
    assert {hit["document_id"] for one in (by_year, by_id) for hit in one["hits"]} == {"leave"}


async def test_search_gives_the_best_passage_of_each_document(tenant: Tenant) -> None:
    text = "\n\n".join(f"Rule {n} is about hall {n}. It was made in {1900 + n}." for n in range(90))
    await tenant.add({"id": "rules", "text": text})
    async with connected(tenant.url, _bearer(tenant)) as client:
        found = await _called(client, "search", query="hall", group_by_document=True)
    ids = [hit["document_id"] for hit in found["hits"]]
    assert "rules" in ids
    assert len(ids) == len(set(ids))


async def test_ask_answers_with_citations_and_says_what_the_documents_do_not_hold(
    house: House, tenant: Tenant
) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        told = await _called(client, "ask", question=QUESTION)
        unknown = await _called(client, "ask", question="Wer hat die Pyramiden gebaut?")
    assert "28 days" in told["answer"]
    assert (told["answered"], told["degraded"], told["supported"]) == (True, [], 1.0)
    assert told["release"] == house.services.release.champion().release.id
    [cited] = told["citations"]
    assert (cited["number"], cited["document_id"], cited["text"]) == (1, "leave", LEAVE)
    assert (unknown["answered"], unknown["citations"]) == (False, [])


async def test_summarize_takes_documents_collections_or_a_focus_alone(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        one = await _called(client, "summarize", document_ids=["leave"], max_words=60)
        several = await _called(client, "summarize", collections=["machines"])
        focus = await _called(client, "summarize", focus=QUESTION)
    assert {cited["document_id"] for cited in one["citations"]} == {"leave"}
    assert {cited["document_id"] for cited in several["citations"]} == {"pumps"}
    assert "28 days" in focus["summary"]
    assert 0 <= one["coverage"] <= 1


async def test_a_document_is_read_page_by_page_to_its_end(tenant: Tenant) -> None:
    text = "\n\n".join(f"Rule {n} is about hall {n}. It was made in {1900 + n}." for n in range(200))
    await tenant.add({"id": "rules", "title": "House rules", "text": text})
    pages: list[dict[str, Any]] = []
    async with connected(tenant.url, _bearer(tenant)) as client:
        offset: int | None = 0
        while offset is not None:
            page = await _called(client, "read_document", document_id="rules", offset=offset, length=777)
            pages.append(page)
            offset = page["next_offset"]
        whole = await _called(client, "read_document", document_id="rules")
        beyond = await _error(client, "read_document", document_id="rules", offset=len(text))
    assert "".join(page["text"] for page in pages) == whole["text"] == text
    assert {(page["title"], page["length"]) for page in pages} == {("House rules", len(text))}
    assert whole["span"] == {"start": 0, "end": len(text)}
    assert (beyond["param"], beyond["code"]) == ("offset", "invalid_value")


async def test_a_page_of_white_space_leads_on_to_the_text(tenant: Tenant) -> None:
    text = "\n\n \n\nFirst.\n\n\n\nSecond."
    await tenant.add({"id": "blank", "text": text})
    told = ""
    offset: int | None = 0
    async with connected(tenant.url, _bearer(tenant)) as client:
        while offset is not None:
            page = await _called(client, "read_document", document_id="blank", offset=offset, length=1)
            assert page["next_offset"] is None or page["next_offset"] > offset
            told, offset = told + page["text"], page["next_offset"]
    assert told.split() == ["First.", "Second."]


async def test_a_call_that_finds_no_place_is_told_when_to_come_back(house: House, tenant: Tenant) -> None:
    full = Admission(max_running=4, max_waiting=0)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(replace(house.services, admission=full)))
        for _ in range(4):
            await stack.enter_async_context(full.turn("other", math.inf))
        client = await stack.enter_async_context(connected(url, _bearer(tenant)))
        error = await _error(client, "search", query="water")
    assert (error["code"], error["type"]) == ("too_many_requests", "rate_limit_error")
    assert error["retry_after"] > 0


async def test_documents_and_collections_are_listed(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        first = await _called(client, "list_documents", limit=1)
        rest = await _called(client, "list_documents", limit=1, after=first["next"])
        machines = await _called(client, "list_documents", collection="machines")
        pumps = await _called(client, "list_documents", named="PUMP")
        collections = await _called(client, "list_collections")
    assert [one["id"] for page in (first, rest) for one in page["documents"]] == ["leave", "pumps"]
    assert first["documents"][0]["metadata"] == {"year": 2024}
    assert [one["title"] for one in machines["documents"]] == ["Pumps"]
    assert pumps["documents"] == machines["documents"]
    assert {one["name"]: one["documents"] for one in collections["collections"]} == {
        "default": 1,
        "machines": 1,
    }


@pytest.mark.parametrize("secret", ["", "Bearer pl-wrong"])
async def test_nothing_is_told_without_a_key_or_with_a_wrong_one(tenant: Tenant, secret: str) -> None:
    headers = {"Authorization": secret} if secret else {}
    async with httpx.AsyncClient(base_url=tenant.url) as plain:
        reply = await plain.post("/mcp", json=LIST, headers={**ACCEPT, **headers})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        async with connected(tenant.url, headers):
            pass


async def test_a_key_that_may_not_read_gets_nothing(tenant: Tenant) -> None:
    writer = await tenant.key("write")
    reply = await tenant.http.post("/mcp", json=LIST, headers={**ACCEPT, **writer})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "http://evil.example"}, "origin_not_allowed"),
        ({"Host": "evil.example"}, "host_not_allowed"),
    ],
)
async def test_without_a_key_a_foreign_origin_or_host_is_refused(
    house: House, headers: dict[str, str], code: str
) -> None:
    async with connected(house.open_url, {}) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    async with httpx.AsyncClient(base_url=house.open_url) as plain:
        reply = await plain.post("/mcp", json=LIST, headers={**ACCEPT, **headers})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, code)


async def test_nobody_sees_documents_of_another_tenant_or_group(tenant: Tenant) -> None:
    secret = "The merger with Halloran is called project Quarry and closes in May."
    await tenant.add({"id": "merger", "text": secret, "groups": ["board"]})
    ours = await tenant.key("read", groups=frozenset({"board"}))
    others = await tenant.key("read", groups=frozenset({"hr"}))
    stranger = await tenant.key("read", tenant=f"{tenant.name}-other")
    question = "What is the merger with Halloran called?"

    async with connected(tenant.url, ours) as client:
        assert "Quarry" in (await _called(client, "ask", question=question))["answer"]
        assert (await _called(client, "read_document", document_id="merger"))["text"] == secret
    for key in (others, stranger):
        async with connected(tenant.url, key) as client:
            told = [
                await _called(client, "search", query=question),
                await _called(client, "search", query=question, document_ids=["merger"]),
                await _called(client, "ask", question=question),
                await _called(client, "list_documents"),
                await _error(client, "read_document", document_id="merger"),
                await _error(client, "summarize", document_ids=["merger"]),
            ]
        assert told[2]["answered"] is False
        assert [one["code"] for one in told[4:]] == ["document_not_found"] * 2
        assert "Quarry" not in json.dumps(told)
    async with connected(tenant.url, stranger) as client:
        assert (await _called(client, "list_documents"))["documents"] == []
        assert (await _error(client, "search", query="pump", collections=["machines"]))["code"] == (
            "collection_not_found"
        )


@pytest.mark.parametrize(
    ("tool", "arguments", "param", "sentence"),
    [
        ("search", {}, "query", "The field `query` is missing."),
        ("search", {"query": " "}, "query", "The query is empty."),
        ("search", {"query": "x", "colection": "y"}, "colection", "Unknown field `colection`."),
        (
            "search",
            {"query": "x", "limit": 101},
            "limit",
            "`limit`: Input should be less than or equal to 100.",
        ),
        (
            "search",
            {"query": "x", "collections": []},
            "collections",
            "`collections`: an empty list names none; leave it out instead.",
        ),
        (
            "ask",
            {"question": "x", "filter": {"a": {"$near": 1}}},
            "filter.a.$near",
            "`filter.a.$near`: an unknown operator; there are $eq, $ne, $in, $nin, $all, $exists, $gt, $gte, "
            "$lt, $lte.",
        ),
        ("ask", {"question": ""}, "question", "The question is empty."),
        ("summarize", {}, None, "Name `document_ids` or `collections`, or a `focus` alone."),
        (
            "summarize",
            {"document_ids": ["a"], "collections": ["b"]},
            None,
            "Name `document_ids` or `collections`, not both.",
        ),
        ("read_document", {"document_id": "none"}, None, "There is no document 'none' here."),
    ],
)
async def test_a_bad_argument_is_told_in_a_sentence_to_act_on(
    tenant: Tenant, tool: str, arguments: dict[str, Any], param: str | None, sentence: str
) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        error = await _error(client, tool, **arguments)
    assert (error["message"], error["param"]) == (sentence, param)


async def test_an_unknown_tool_is_an_error_of_the_protocol(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        with pytest.raises(MCPError, match="There is no tool 'delete'"):
            await client.call_tool("delete", {})


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_a_caller_who_leaves_during_ask_frees_the_model(
    house: House, tenant: Tenant, version: str
) -> None:
    with house.stage.plays(Script(pieces=("a",), pace=3_600)) as model:
        call, headers = tool_call(version, "ask", question=f"{QUESTION} {version}")
        waiting = asyncio.create_task(tenant.http.post("/mcp", json=call, headers=headers))
        async with asyncio.timeout(30):
            while not model.running:
                await asyncio.sleep(0.02)
        waiting.cancel()
        await _freed(house, model)


async def _freed(house: House, model: Scripted) -> None:
    async with asyncio.timeout(30):
        while model.running or house.services.admission.running:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_a_call_keeps_its_deadline_its_id_and_its_release(
    house: House, tenant: Tenant, version: str
) -> None:
    call, headers = tool_call(version, "ask", question=QUESTION)
    reply = await tenant.http.post("/mcp", json=call, headers={**headers, "X-Request-Id": "mine"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["result"]["structuredContent"]["answered"] is True
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["x-plumbline-release"] == house.services.release.champion().release.id

    with house.stage.plays(Script(pieces=("a",), pace=3_600)):
        call, headers = tool_call(version, "ask", question=f"{QUESTION} Tell me {version}.")
        hurried = {**headers, "X-Request-Id": "mine", "X-Request-Timeout": "0.5"}
        reply = await tenant.http.post("/mcp", json=call, headers=hurried)
    result = reply.json()["result"]
    error = json.loads(result["content"][0]["text"])["error"]
    assert (result["isError"], error["code"], error["request_id"]) == (True, "deadline_exceeded", "mine")
    counted = (await tenant.http.get("/metrics")).text
    assert 'plumbline_failures_total{code="deadline_exceeded"}' in counted
    assert 'route="/mcp"' in counted


async def test_other_methods_and_bodies_that_are_too_large_are_refused_as_everywhere(tenant: Tenant) -> None:
    for method in ("GET", "DELETE"):
        reply = await tenant.http.request(method, "/mcp", headers=ACCEPT)
        assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"] == "POST"
    headers = {**ACCEPT, "Content-Type": "application/json"}
    reply = await tenant.http.post("/mcp", content=b"x" * (4 * 2**20 + 1), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
    reply = await tenant.http.post("/mcp", content=b"{", headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, -32700)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_long_call_tells_how_far_it_is_to_who_asks(tenant: Tenant, mode: str) -> None:
    text = "\n\n".join(f"Rule {n} is about hall {n}. It was made in {1900 + n}." for n in range(700))
    await tenant.add({"id": "rules", "text": text})
    told: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    arguments = {"document_ids": ["rules"]}
    async with connected(tenant.url, _bearer(tenant), mode) as client:
        result = await client.call_tool("summarize", arguments, progress_callback=hear)
        quiet = await client.call_tool("summarize", arguments)
        wrong = await client.call_tool("summarize", {"document_ids": ["no"]}, progress_callback=hear)
    assert not result.is_error
    assert result.structured_content
    assert quiet.structured_content
    assert result.structured_content["summary"] == quiet.structured_content["summary"]
    assert wrong.is_error
    assert len(told) > 1
    done = [progress for progress, _ in told]
    assert done == sorted(set(done))
    assert all(total is not None and progress <= total for progress, total in told)


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_who_leaves_a_call_that_tells_how_far_it_is_frees_the_model(
    house: House, tenant: Tenant, version: str
) -> None:
    with house.stage.plays(Script(pieces=("a",), pace=3_600)) as model:
        call, headers = tool_call(version, "ask", question=f"{QUESTION} Now {version}.")
        call["params"].setdefault("_meta", {})["progressToken"] = "t"
        waiting = asyncio.create_task(tenant.http.post("/mcp", json=call, headers=headers))
        async with asyncio.timeout(30):
            while not model.running:
                await asyncio.sleep(0.02)
        waiting.cancel()
        await _freed(house, model)


async def test_questions_of_one_conversation_are_told_under_its_id(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        first = await _called(client, "ask", question=QUESTION)
        second = await _called(client, "ask", question=QUESTION, conversation=first["conversation"])
        other = await _called(client, "ask", question=QUESTION)
        error = await _error(client, "ask", question=QUESTION, conversation="a b")
    assert second["conversation"] == first["conversation"] != other["conversation"]
    assert error["param"] == "conversation"


async def test_a_collection_that_is_not_there_is_told_by_the_argument_that_names_it(tenant: Tenant) -> None:
    async with connected(tenant.url, _bearer(tenant)) as client:
        for tool, told in (("search", {"query": "x"}), ("ask", {"question": "x"}), ("summarize", {})):
            error = await _error(client, tool, **told, collections=["machines", "no"])
            assert (error["code"], error["param"]) == ("collection_not_found", "collections[1]")
