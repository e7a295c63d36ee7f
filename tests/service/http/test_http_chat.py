"""Chat over HTTP, as OpenAI's own client and a plain one see it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from app.admission import Admission
from llm.errors import LlmError, ModelOverloaded, ModelRejected, ModelUnavailable, StreamBroken
from llm.scripted import Script, Scripted
from tests.service.http.house import House, Tenant, serving

LEAVE = "Every employee has 28 days of paid leave a year. Unused days expire in March."
PUMPS = "The A7 pump moves forty litres of water a minute and weighs nine kilograms."
QUESTION = "How many days of paid leave does an employee have?"


@pytest.fixture
async def tenant(house: House) -> Tenant:
    tenant = await house.tenant()
    await tenant.add(
        {"id": "leave", "title": "Paid leave", "text": LEAVE},
        {"id": "pumps", "title": "Pumps", "text": PUMPS},
    )
    return tenant


@pytest.fixture
async def client(house: House, tenant: Tenant) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=tenant.secret, max_retries=0) as client:
        yield client


def chat(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "plumbline", "messages": [{"role": "user", "content": question}], **more}


def events(body: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


async def test_the_official_client_gets_a_cited_answer(client: openai.AsyncOpenAI, house: House) -> None:
    reply = await client.chat.completions.create(
        model="plumbline", messages=[{"role": "user", "content": QUESTION}], temperature=0, n=1, user="ann"
    )

    message = reply.choices[0].message
    assert "28 days" in (message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    told = reply.to_dict()["plumbline"]
    assert isinstance(told, dict)
    assert told["citations"][0]["document_id"] == "leave"
    assert told["citations"][0]["text"] == LEAVE
    assert told["release"] == house.services.release.champion().release.id
    assert told["degraded"] == []
    assert reply.model == f"plumbline@{told['release']}"
    annotation = message.annotations[0].url_citation if message.annotations else None
    assert annotation is not None
    assert (message.content or "")[annotation.start_index : annotation.end_index] == "[1]"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


async def test_the_official_client_streams_the_same_answer(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="plumbline",
        messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "28 days" in text
    assert chunks[-2].choices[0].finish_reason == "stop"
    told = chunks[-2].to_dict()["plumbline"]
    assert isinstance(told, dict)
    assert told["citations"][0]["document_id"] == "leave"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1


async def test_text_of_any_characters_streams_as_it_was_said(house: House, tenant: Tenant) -> None:
    said = ('He said "" and "no"', " \\ \n\t", " größer als ½ 😀", " {}", '","usage":1}')
    with house.stage.plays(Script(pieces=said)):
        reply = await tenant.http.post(
            "/v1/chat/completions",
            json=chat(stream=True, stream_options={"include_usage": True}, plumbline={"cache": False}),
        )
    *chunks, usage, done = events(reply.text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "".join(said)
    shape = {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert all(chunk.keys() - {"plumbline"} == shape and chunk["usage"] is None for chunk in chunks)
    assert (usage["choices"], done) == ([], "[DONE]")


async def test_the_official_client_lists_models(client: openai.AsyncOpenAI, house: House) -> None:
    release = house.services.release.champion().release.id
    names = [model.id for model in (await client.models.list()).data]
    assert names == ["plumbline", f"plumbline@{release}"]
    assert (await client.models.retrieve("plumbline")).id == "plumbline"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4o")


async def test_a_release_named_in_the_model_answers_only_if_it_serves(
    client: openai.AsyncOpenAI, house: House
) -> None:
    release = house.services.release.champion().release.id
    messages: Any = [{"role": "user", "content": QUESTION}]
    await client.chat.completions.create(model=f"plumbline@{release[:6]}", messages=messages)
    for unknown in ("plumbline@ffffff", "gpt-4o"):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=unknown, messages=messages)
        assert refused.value.code == "model_not_found"


async def test_the_official_client_hears_of_a_death_in_the_middle_of_a_stream(
    client: openai.AsyncOpenAI, house: House
) -> None:
    said: list[str] = []
    with house.stage.plays(Script(pieces=("Well, ", "you see "), error=StreamBroken("The model died."))):
        stream = await client.chat.completions.create(
            model="plumbline",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            extra_body={"plumbline": {"cache": False}},
        )
        with pytest.raises(openai.APIError) as broken:
            async for chunk in stream:
                said.append(chunk.choices[0].delta.content or "")
    assert "Well, " in "".join(said)
    assert broken.value.code == "stream_broken"


async def test_a_broken_stream_ends_with_one_error_and_no_done(house: House, tenant: Tenant) -> None:
    with house.stage.plays(Script(pieces=("Well, ",), error=StreamBroken("The model died."))):
        reply = await tenant.http.post(
            "/v1/chat/completions", json=chat(stream=True, plumbline={"cache": False})
        )
    assert reply.status_code == 200
    told = events(reply.text)
    assert told[-1]["error"] == {
        "message": f"{StreamBroken.told} It was logged as request {reply.headers['x-request-id']}.",
        "type": "server_error",
        "param": None,
        "code": "stream_broken",
    }
    assert "[DONE]" not in told


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_word_has_its_real_status(
    house: House, tenant: Tenant, stream: bool
) -> None:
    with house.stage.plays(Script(error=ModelRejected("It has no such field."))):
        reply = await tenant.http.post(
            "/v1/chat/completions", json=chat(stream=stream, plumbline={"cache": False})
        )
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "model_rejected")


@pytest.mark.parametrize("error", [ModelUnavailable("It is down."), ModelOverloaded("It is busy.", 7)])
async def test_without_a_model_the_nearest_passages_are_given_and_that_is_declared(
    house: House, tenant: Tenant, error: LlmError
) -> None:
    with house.stage.plays(Script(error=error)):
        reply = await tenant.http.post("/v1/chat/completions", json=chat(plumbline={"cache": False}))
    body = reply.json()
    assert "28 days of paid leave" in body["choices"][0]["message"]["content"]
    assert (body["plumbline"]["model"], body["plumbline"]["degraded"]) == ("none", ["model:none"])
    assert "leave" in {citation["document_id"] for citation in body["plumbline"]["citations"]}


async def test_each_sentence_is_followed_by_what_its_source_does_for_it(
    client: openai.AsyncOpenAI, house: House
) -> None:
    said = ("Every employee has 28 days of paid leave a year [1]. ", "It is 31 days [1]. ", "Ask early.")
    verdicts: list[tuple[str, str]] = []
    text, final = "", dict[str, Any]()
    with house.stage.plays(Script(pieces=said)):
        stream = await client.chat.completions.create(
            stream=True, extra_body={"plumbline": {"cache": False, "document_ids": ["leave"]}}, **chat()
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            told = chunk.to_dict().get("plumbline", {})
            assert isinstance(told, dict)
            if isinstance(told.get("support"), dict):
                verdicts.append((told["support"]["verdict"], text))
            final = told or final
    assert [verdict for verdict, _ in verdicts] == ["supported", "unsupported", "uncited"]
    assert all(so_far.startswith(said[0]) for _, so_far in verdicts)
    assert text == "".join(said)
    assert [one["verdict"] for one in final["support"]] == [verdict for verdict, _ in verdicts]
    assert final["supported"] == 0.3333
    (span,) = final["support"][0]["spans"]
    assert (span["document_id"], LEAVE[span["start"] : span["end"]]) == ("leave", LEAVE.partition(" Un")[0])


async def test_a_conversation_has_an_id_that_stays(tenant: Tenant) -> None:
    async def told(**extra: str) -> str:
        reply = await tenant.http.post("/v1/chat/completions", json=chat(plumbline=extra))
        return str(reply.json()["plumbline"]["conversation"])

    assert await told(conversation="mine-7") == "mine-7"
    made, other = await told(), await told()
    assert made != other
    assert await told(conversation=made) == made


async def test_what_is_not_in_the_documents_is_told_as_such(tenant: Tenant) -> None:
    reply = await tenant.http.post("/v1/chat/completions", json=chat("Wer hat die Pyramiden gebaut?"))
    body = reply.json()
    assert body["choices"][0]["message"]["content"] == "Die Dokumente beantworten diese Frage nicht."
    assert (body["plumbline"]["answered"], body["plumbline"]["support"]) == (False, [])


async def test_a_caller_who_hangs_up_in_the_middle_of_a_stream_frees_the_model(
    house: House, tenant: Tenant
) -> None:
    with house.stage.plays(Script(pieces=("a ",) * 10_000, pace=0.05)) as model:
        body = chat(stream=True, plumbline={"cache": False})
        async with tenant.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            await anext(reply.aiter_lines())
        await _freed(house, model)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_hangs_up_before_the_first_word_frees_the_model(
    house: House, tenant: Tenant, stream: bool
) -> None:
    with house.stage.plays(Script(pieces=("a",), pace=3_600)) as model:
        body = chat(stream=stream, plumbline={"cache": False})
        waiting = asyncio.create_task(tenant.http.post("/v1/chat/completions", json=body))
        async with asyncio.timeout(30):
            while not model.running:
                await asyncio.sleep(0.02)
        waiting.cancel()
        await _freed(house, model)


async def _freed(house: House, model: Scripted) -> None:
    async with asyncio.timeout(30):
        while model.running or house.services.admission.running:
            await asyncio.sleep(0.02)


async def test_the_answer_is_kept_to_what_the_request_selects(tenant: Tenant) -> None:
    body = chat(plumbline={"document_ids": ["pumps"], "cache": False})
    reply = await tenant.http.post("/v1/chat/completions", json=body)
    cited = {one["document_id"] for one in reply.json()["plumbline"]["citations"]}
    assert cited <= {"pumps"}

    body = chat(plumbline={"collections": ["nowhere"]})
    reply = await tenant.http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "collection_not_found")


async def test_ids_and_release_are_on_every_answer(tenant: Tenant, house: House) -> None:
    for stream in (False, True):
        reply = await tenant.http.post(
            "/v1/chat/completions", json=chat(stream=stream), headers={"X-Request-Id": "my-request-1"}
        )
        assert reply.headers["x-request-id"] == "my-request-1"
        assert reply.headers["x-plumbline-release"] == house.services.release.champion().release.id
    invented = await tenant.http.post(
        "/v1/chat/completions", json=chat(), headers={"X-Request-Id": "no good" * 50}
    )
    assert len(invented.headers["x-request-id"]) == 32


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_ends_when_its_time_is_over(house: House, tenant: Tenant, stream: bool) -> None:
    with house.stage.plays(Script(pieces=("a",), pace=3_600)) as model:
        reply = await tenant.http.post(
            "/v1/chat/completions",
            json=chat(stream=stream, plumbline={"cache": False}),
            headers={"X-Request-Timeout": "1"},
        )
        await _freed(house, model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")


async def test_a_stream_that_goes_on_beyond_its_time_is_ended_by_an_error(
    house: House, tenant: Tenant
) -> None:
    with house.stage.plays(Script(pieces=("a ",) * 10_000, pace=0.1)) as model:
        reply = await tenant.http.post(
            "/v1/chat/completions",
            json=chat(stream=True, plumbline={"cache": False}),
            headers={"X-Request-Timeout": "2"},
        )
        await _freed(house, model)
    told = events(reply.text)
    assert told[0]["object"] == "chat.completion.chunk"
    assert told[-1]["error"]["code"] == "deadline_exceeded"


async def test_a_conversation_that_was_sent_back_as_received_is_taken(tenant: Tenant) -> None:
    first = (await tenant.http.post("/v1/chat/completions", json=chat())).json()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": QUESTION},
        first["choices"][0]["message"],
        {"role": "user", "content": "And when do they expire?"},
    ]
    reply = await tenant.http.post("/v1/chat/completions", json={"model": "plumbline", "messages": messages})
    assert reply.status_code == 200, reply.text


async def test_a_streamed_summary_tells_what_its_sources_do_for_each_sentence(tenant: Tenant) -> None:
    body = {"document_ids": ["leave"], "stream": True, "language": "de"}
    reply = await tenant.http.post("/v1/summarize", json=body)
    told = [event for event in events(reply.text) if event != "[DONE]"]
    support = [event["support"] for event in told if event["object"] == "summary.support"]
    final = told[-1]
    assert support == final["support"] != []
    assert {one["verdict"] for one in support} == {"supported"}
    assert (final["supported"], final["degraded"]) == (1.0, ["language"])
    assert 0 < final["coverage"] <= 1
    assert 0 < final["sections_cited"] <= 1


async def test_a_language_that_is_not_known_is_refused_by_name(tenant: Tenant) -> None:
    reply = await tenant.http.post("/v1/summarize", json={"document_ids": ["leave"], "language": "xx"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "language")


async def test_a_text_that_is_filed_twice_is_given_to_the_model_once_but_found_twice(
    house: House, tenant: Tenant
) -> None:
    await tenant.add({"id": "copy", "title": "Paid leave", "text": LEAVE})
    hits = (await tenant.http.post("/v1/search", json={"query": QUESTION})).json()["hits"]
    assert {"leave", "copy"} <= {hit["document_id"] for hit in hits}

    told = (await tenant.http.post("/v1/chat/completions", json=chat())).json()["plumbline"]
    assert sum(source["text"] == LEAVE for source in told["sources"]) == 1
    cited = told["citations"][0]
    passage = await tenant.http.get(f"/v1/documents/{cited['document_id']}/chunks/{cited['chunk_id']}")
    assert passage.json()["text"] == LEAVE == cited["text"]


async def test_the_official_client_comes_again_when_it_was_told_to(house: House, tenant: Tenant) -> None:
    full = Admission(max_running=4, max_waiting=0)
    others = AsyncExitStack()
    told: list[tuple[int, str | None]] = []

    async def heed(response: httpx2.Response) -> None:
        told.append((response.status_code, response.headers.get("retry-after")))
        await others.aclose()

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(replace(house.services, admission=full)))
        await stack.enter_async_context(others)
        for _ in range(4):
            await others.enter_async_context(full.turn("other", math.inf))
        http = await stack.enter_async_context(httpx2.AsyncClient(event_hooks={"response": [heed]}))
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=tenant.secret, http_client=http)
        answer = await client.chat.completions.create(
            model="plumbline", messages=[{"role": "user", "content": "Who comes again?"}]
        )
    assert answer.choices[0].message.content
    assert told == [(429, "1"), (200, None)]
