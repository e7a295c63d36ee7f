"""What LangChain users get, against the running service: its passages, answers, rights and sentences."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from pydantic import SecretStr, ValidationError

from app.embedded import free_port
from app.langchain_client import (
    Broken,
    Busy,
    Denied,
    PlumblineError,
    PlumblineRetriever,
    PlumblineTool,
    Refused,
    TimedOut,
    Unreachable,
)
from llm.scripted import Script
from tests.replying import Body, Replying, replying
from tests.service.http.house import House, Tenant

EXAMPLE = Path(__file__).parents[3] / "deploy/examples/langchain_agent.py"
LEAVE = "Every employee has 28 days of paid leave a year. Unused days expire in March."
PUMPS = "The A7 pump moves forty litres of water a minute and weighs nine kilograms."
QUESTION = "How many days of paid leave does an employee have?"
BUSY = {"error": {"message": "Too many questions at once.", "code": "too_many_requests"}}


@pytest.fixture
async def tenant(house: House) -> Tenant:
    tenant = await house.tenant()
    await tenant.add(
        {"id": "leave", "title": "Paid leave", "text": LEAVE, "metadata": {"year": 2025}},
        {"id": "pumps", "title": "Pumps", "text": PUMPS, "metadata": {"year": 2020}},
    )
    return tenant


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("langchain_agent", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def retriever(tenant: Tenant, **more: Any) -> PlumblineRetriever:
    return PlumblineRetriever(url=tenant.url, key=SecretStr(tenant.secret), **more)


def tool(tenant: Tenant, **more: Any) -> PlumblineTool:
    return PlumblineTool(url=tenant.url, key=SecretStr(tenant.secret), **more)


async def ids(of: PlumblineRetriever, query: str = QUESTION) -> list[str]:
    return [found.metadata["document_id"] for found in await of.ainvoke(query)]


async def test_a_passage_is_a_document_with_all_that_the_service_says_of_it(
    house: House, tenant: Tenant
) -> None:
    best = (await retriever(tenant).ainvoke(QUESTION))[0]

    hit = (await tenant.http.post("/v1/search", json={"query": QUESTION})).json()["hits"][0]
    assert best.page_content == LEAVE
    assert best.id == hit["chunk_id"]
    assert best.metadata == {
        "title": "Paid leave",
        "heading": hit["heading"],
        "score": hit["score"],
        "document_id": "leave",
        "chunk_id": hit["chunk_id"],
        "page": None,
        "span": {"start": 0, "end": len(LEAVE)},
        "collection": "default",
        "metadata": {"year": 2025},
        "release": house.services.release.champion().release.id,
        "degraded": [],
    }


async def test_without_an_event_loop_it_finds_the_same(tenant: Tenant) -> None:
    one = retriever(tenant)
    assert await asyncio.to_thread(one.invoke, QUESTION) == await one.ainvoke(QUESTION)


async def test_limit_filter_and_collections_narrow_it(tenant: Tenant) -> None:
    await tenant.add({"id": "other", "text": "Paid leave in another book."}, collection="other")
    assert len(await ids(retriever(tenant, limit=1))) == 1
    assert await ids(retriever(tenant, filter={"year": {"$lt": 2024}})) == ["pumps"]
    assert await ids(retriever(tenant, collections=["other"])) == ["other"]


async def test_grouped_by_document_each_comes_once(tenant: Tenant) -> None:
    sections = "\n\n".join(f"# Part {n}\n\n" + f"Paid leave of part {n}, in days. " * 40 for n in range(4))
    await tenant.add({"id": "long", "text": sections})
    chunks = await ids(retriever(tenant, limit=20))
    assert chunks.count("long") > 1
    assert sorted(await ids(retriever(tenant, limit=20, group="document"))) == sorted(set(chunks))


async def test_it_finds_only_what_its_key_may_read(tenant: Tenant) -> None:
    await tenant.add({"id": "secret", "text": "Paid leave of directors is 60 days.", "groups": ["board"]})

    async def seen_with(groups: frozenset[str]) -> list[str]:
        bearer = await tenant.key("read", groups=groups)
        key = SecretStr(bearer["Authorization"].split()[1])
        return await ids(PlumblineRetriever(url=tenant.url, key=key))

    assert "secret" in await seen_with(frozenset({"board"}))
    found = await seen_with(frozenset({"staff"}))
    assert "secret" not in found
    assert "leave" in found


async def test_another_tenant_finds_nothing_of_it(house: House, tenant: Tenant) -> None:
    assert await ids(retriever(await house.tenant())) == []


async def test_refusals_are_told_in_the_services_own_sentence(tenant: Tenant) -> None:
    async def sentence(body: dict[str, Any]) -> str:
        return str((await tenant.http.post("/v1/search", json=body)).json()["error"]["message"])

    wrong = {"a": {"$above": 1}}
    with pytest.raises(Refused) as refused:
        await retriever(tenant, filter=wrong).ainvoke(QUESTION)
    assert str(refused.value) == await sentence({"query": QUESTION, "filter": wrong})
    assert (refused.value.status, refused.value.code) == (400, "filter_invalid")
    with pytest.raises(Refused) as unknown:
        await retriever(tenant, collections=["nowhere"]).ainvoke(QUESTION)
    assert str(unknown.value) == await sentence({"query": QUESTION, "collections": ["nowhere"]})
    with pytest.raises(Refused):
        await retriever(tenant, collections=[]).ainvoke(QUESTION)


async def test_a_key_is_needed_and_never_shown(tenant: Tenant) -> None:
    with pytest.raises(Denied) as denied:
        await PlumblineRetriever(url=tenant.url).ainvoke(QUESTION)
    assert (denied.value.status, denied.value.code) == (401, "invalid_api_key")
    one = retriever(tenant)
    assert tenant.secret not in repr(one)
    assert tenant.secret not in one.model_dump_json()


@pytest.mark.parametrize("wrong", [{"url": "nowhere"}, {"url": "http://x:y"}, {"key": "a b"}, {"timeout": 0}])
def test_what_can_be_no_address_no_key_or_no_time_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlumblineRetriever(**wrong)


async def test_where_nobody_answers_it_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=url):
        await PlumblineRetriever(url=url).ainvoke(QUESTION)
    with pytest.raises(Unreachable, match=url):
        await asyncio.to_thread(PlumblineRetriever(url=url).invoke, QUESTION)


async def test_a_busy_service_is_asked_again_when_it_wishes() -> None:
    answers: list[tuple[int, object]] = [(200, {"hits": [], "degraded": [], "release": "r"}), (503, BUSY)]
    with replying(Replying(lambda path, body: answers.pop(), told={"Retry-After": "1"})) as url:
        assert await PlumblineRetriever(url=url).ainvoke(QUESTION) == []
    assert answers == []


async def test_a_service_that_stays_busy_is_asked_so_often_and_no_more() -> None:
    server = Replying(lambda path, body: (429, BUSY), told={"Retry-After": "1"})
    with replying(server) as url:
        with pytest.raises(Busy, match="Too many questions at once") as busy:
            await asyncio.to_thread(PlumblineRetriever(url=url, retries=1).invoke, QUESTION)
        assert len(server.bodies) == 2
        assert (busy.value.status, busy.value.code, busy.value.retry_after) == (429, "too_many_requests", 1)


async def test_who_would_have_to_wait_for_longer_than_there_is_time_is_told_at_once() -> None:
    server = Replying(lambda path, body: (503, BUSY), told={"Retry-After": "90"})
    with replying(server) as url:
        with pytest.raises(Busy) as busy:
            await PlumblineRetriever(url=url, timeout=60).ainvoke(QUESTION)
        assert len(server.bodies) == 1
        assert busy.value.retry_after == 90


async def test_a_service_that_takes_too_long_says_so_itself(house: House, tenant: Tenant) -> None:
    with house.stage.plays(Script(pieces=("Never.",), pace=60)), pytest.raises(TimedOut) as late:
        await tool(tenant, timeout=1).ainvoke({"question": QUESTION})
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")


async def test_a_service_that_says_nothing_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TimedOut):
            await PlumblineRetriever(url=url, timeout=0.1).ainvoke(QUESTION)
        with pytest.raises(TimedOut):
            await asyncio.to_thread(PlumblineRetriever(url=url, timeout=0.1).invoke, QUESTION)


@pytest.mark.parametrize("answer", [(200, {}), (200, []), (500, {"detail": "x"}), (200, {"hits": [1]})])
async def test_what_is_not_plumbline_is_said_to_be_none(answer: tuple[int, object]) -> None:
    with replying(Replying(lambda path, body: answer)) as url, pytest.raises(Broken, match=url):
        await PlumblineRetriever(url=url).ainvoke(QUESTION)


async def test_the_tool_gives_the_cited_answer_and_all_about_it(tenant: Tenant) -> None:
    call = ToolCall(name="ask_documents", args={"question": QUESTION}, id="1", type="tool_call")
    for message in (await tool(tenant).ainvoke(call), await asyncio.to_thread(tool(tenant).invoke, call)):
        assert isinstance(message, ToolMessage)
        assert "28 days" in message.text
        assert "[1] Paid leave (leave)" in message.text
        assert message.artifact["citations"][0]["document_id"] == "leave"
        assert message.artifact["degraded"] == []


async def test_the_tool_asks_only_where_it_was_told_to(tenant: Tenant) -> None:
    said = await tool(tenant, filter={"year": 2020}).ainvoke({"question": QUESTION})
    assert "28 days" not in said


async def test_an_agent_can_be_shown_what_went_wrong(tenant: Tenant) -> None:
    one = tool(tenant, collections=["nowhere"], handle_tool_error=True)
    assert "nowhere" in await one.ainvoke({"question": QUESTION})
    assert issubclass(Refused, PlumblineError)


class _Model(GenericFakeChatModel):
    """Says what it is told to, whatever tools there are."""

    def bind_tools(self, tools: Sequence[Any], **more: Any) -> Any:
        return self


def _searches(query: str) -> AIMessage:
    call = ToolCall(name="search_documents", args={"query": query}, id="call-1", type="tool_call")
    return AIMessage("", tool_calls=[call])


async def test_the_example_searches_and_reads_passages_with_their_names(
    tenant: Tenant, example: ModuleType
) -> None:
    model = _Model(messages=iter([_searches(QUESTION), AIMessage("28 days [leave].")]))
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    found = await example.agent(model, retriever(tenant, limit=1)).ainvoke(asked)

    read = found["messages"][-2]
    assert read.text == f"[leave] Paid leave\n{LEAVE}"
    assert [one.metadata["document_id"] for one in read.artifact] == ["leave"]
    assert found["messages"][-1].text == "28 days [leave]."


async def test_the_examples_model_is_told_what_went_wrong_with_its_search(
    tenant: Tenant, example: ModuleType
) -> None:
    model = _Model(messages=iter([_searches(" "), AIMessage("I could not search.")]))
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    found = await example.agent(model, retriever(tenant)).ainvoke(asked)
    assert found["messages"][-2].text == "The query is empty."


def _openai(path: str, body: Body) -> tuple[int, object]:
    """A model that searches once, then repeats what it read."""
    last = body["messages"][-1]
    message: dict[str, Any] = {"role": "assistant", "content": f"I read: {last['content']}"}
    if last["role"] == "user":
        function = {"name": "search_documents", "arguments": '{"query": "paid leave"}'}
        message["content"] = None
        message["tool_calls"] = [{"id": "call-1", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
    return 200, {**head, "choices": [choice], "usage": usage}


async def test_the_example_runs_with_a_model_of_openais_protocol(tenant: Tenant) -> None:
    server = Replying(_openai)
    with replying(server) as url:
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, EXAMPLE, QUESTION, "--model-url", f"{url}/v1", "--model", "scripted"),
            *("--url", tenant.url),
            env={"PLUMBLINE_KEY": tenant.secret, "NO_PROXY": "127.0.0.1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, wrong = await done.communicate()
    assert done.returncode == 0, wrong.decode()
    assert f"[leave] Paid leave\n{LEAVE}" in out.decode()
    assert server.bodies[0]["tools"][0]["function"]["name"] == "search_documents"
