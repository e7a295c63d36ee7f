"""The streaming client against a real web server that is slow, broken or strange on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import orjson
import pytest
from starlette.types import Receive, Scope, Send

from app.embedded import free_port
from eval.bench.paced import PacedServer
from llm.errors import (
    LlmError,
    ModelOverloaded,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    StreamBroken,
)
from llm.types import Call, Sampling
from llm.vllm import Vllm, _refused, new_client
from tests.calls import becomes, call, drain, text
from tests.paced import serving


@pytest.fixture(scope="module")
def server() -> PacedServer:
    return PacedServer()


@pytest.fixture(scope="module")
def url(server: PacedServer) -> Iterator[str]:
    with serving(server) as address:
        yield address


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_client() as opened:
        yield opened


async def test_text_arrives_whole_when_every_byte_comes_on_its_own(
    url: str, client: aiohttp.ClientSession
) -> None:
    deltas = await drain(Vllm(url, "paced?length=3&bytes=1", client=client), call("Grüße?"))
    assert "".join(d.text for d in deltas) == "word0 word1 word2 "
    assert (deltas[-1].prompt_tokens, deltas[-1].output_tokens) == (2, 3)


async def test_counts_that_a_later_event_does_not_tell_again_stand(client: aiohttp.ClientSession) -> None:
    events: tuple[dict[str, object], ...] = (
        {"choices": [{"delta": {"content": "word "}}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 2}},
    )
    body = b"".join(b"data: %s\n\n" % orjson.dumps(one) for one in events) + b"data: [DONE]\n\n"

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with serving(told) as address:
        last = (await drain(Vllm(address, "told", client=client), call()))[-1]
    assert (last.prompt_tokens, last.output_tokens) == (2, 1)


async def test_the_first_words_arrive_before_the_last_are_written(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    stream = Vllm(url, "paced?length=1000&rate=100", client=client).stream(call())
    first = (await anext(stream)).text
    # Words 10 ms apart may arrive together.
    assert first.startswith("word0 ")
    assert "word999" not in first
    assert server.running == 1
    await stream.aclose()


async def test_closing_the_stream_ends_the_work_at_the_server(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    stream = Vllm(url, "paced?length=100000&rate=20", client=client).stream(call(tokens=100_000))
    await anext(stream)
    await stream.aclose()
    assert await becomes(lambda: server.running == 0)


async def test_a_caller_cancelled_before_the_first_word_ends_the_work_at_the_server(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    asking = asyncio.create_task(drain(Vllm(url, "paced?first=60", client=client), call(timeout=60)))
    assert await becomes(lambda: server.running == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await becomes(lambda: server.running == 0)


async def test_a_connection_is_used_again_after_a_finished_stream(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    server.clients.clear()
    model = Vllm(url, "paced?length=2", client=client)
    for _ in range(3):
        assert await text(model, call()) == "word0 word1 "
    assert len(server.clients) == 1
    # By how many are under way words are held back.
    assert model._streams == 0


async def test_no_server_at_the_address_is_an_unavailable_model(client: aiohttp.ClientSession) -> None:
    with pytest.raises(ModelUnavailable):
        await drain(Vllm(f"http://127.0.0.1:{free_port()}/v1", "m", client=client), call())


@pytest.mark.parametrize(
    ("model", "error", "seconds"),
    [
        ("paced?status=429&retry=7", ModelOverloaded, 7.0),
        ("paced?status=503", ModelOverloaded, None),
        ("paced?status=429&retry=Wed, 21 Oct 2015 07:28:00 GMT", ModelOverloaded, 0.0),
    ],
)
async def test_a_server_with_too_much_to_do_says_when_to_come_again(
    url: str, client: aiohttp.ClientSession, model: str, error: type[ModelOverloaded], seconds: float | None
) -> None:
    with pytest.raises(error) as caught:
        await drain(Vllm(url, model, client=client), call())
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("paced?status=500", ModelUnavailable),
        ("paced?status=400", ModelRejected),
        ("paced?status=404", ModelRejected),
        ("paced?status=401", ModelRejected),
        ("paced?after=0&wrong=die", ModelUnavailable),
        ("paced?after=0&wrong=error", ModelUnavailable),
        ("paced?after=0&wrong=end", ModelUnavailable),
        ("paced?after=2&rate=5&wrong=die", StreamBroken),
        ("paced?after=2&rate=20&wrong=error", StreamBroken),
        ("paced?after=2&rate=20&wrong=end", StreamBroken),
        ("paced?finish=content_filter", StreamBroken),
    ],
)
async def test_what_goes_wrong_has_a_type(
    url: str, client: aiohttp.ClientSession, model: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        await drain(Vllm(url, model, client=client), call())
    assert type(caught.value) is error


async def test_what_the_server_says_is_in_the_error(url: str, client: aiohttp.ClientSession) -> None:
    with pytest.raises(ModelRejected, match="400: As you asked"):
        await drain(Vllm(url, "paced?status=400", client=client), call())
    with pytest.raises(StreamBroken, match="The engine is dead"):
        await drain(Vllm(url, "paced?after=2&rate=20&wrong=error", client=client), call())


async def test_silence_before_the_first_word_is_a_timeout(url: str, client: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ModelTimeout):
            await drain(Vllm(url, "paced?first=30", client=client), call(timeout=0.3))
    impatient = Vllm(url, "paced?first=30", client=client, first_token_timeout=0.3)
    with pytest.raises(ModelTimeout):
        await drain(impatient, call(timeout=60))


async def test_silence_in_mid_stream_ends_at_the_deadline(url: str, client: aiohttp.ClientSession) -> None:
    stream = Vllm(url, "paced?after=2&rate=20&wrong=hang", client=client).stream(call(timeout=1.0))
    assert (await anext(stream)).text.startswith("word0 ")
    with pytest.raises(StreamBroken, match="time was up"):
        while True:
            await anext(stream)


async def test_a_long_answer_outlives_the_patience_for_its_first_word(
    url: str, client: aiohttp.ClientSession
) -> None:
    model = Vllm(url, "paced?length=30&rate=10", client=client, first_token_timeout=2.0)
    assert len((await text(model, call())).split()) == 30


async def test_a_server_that_does_not_know_the_salt_is_asked_without_it(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    model = Vllm(url, "paced?refuse=cache_salt&length=1", client=client)
    before = len(server.requests)
    assert await text(model, call()) == "word0 "
    assert await text(model, call()) == "word0 "
    assert ["cache_salt" in body for body in server.requests[before:]] == [True, False, False]


async def test_fields_that_a_server_does_not_know_are_left_out_or_have_another_name(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    """As OpenAI's own newer models want it."""
    names = "cache_salt,chat_template_kwargs,max_tokens,temperature,top_p"
    model = Vllm(url, f"paced?refuse={names}", client=client)
    assert await text(model, call(tokens=2)) == "word0 word1 "
    before = len(server.requests)
    assert await text(model, call(tokens=2)) == "word0 word1 "
    (body,) = server.requests[before:]
    assert body["max_completion_tokens"] == 2
    assert body.keys().isdisjoint(names.split(","))


@pytest.mark.parametrize(
    ("said", "sent", "refused"),
    [
        (
            "'temperature' does not support 0.0 with this model. Only the default",
            ["temperature"],
            ["temperature"],
        ),
        ("Unsupported parameter: 'top_p' is not supported", ["temperature", "top_p"], ["top_p"]),
        ("temperature must be at most 1", ["temperature"], []),
        (
            "chat_template is not supported for Mistral tokenizers.",
            ["chat_template_kwargs"],
            ["chat_template_kwargs"],
        ),
        ("chat_template is not supported for Mistral tokenizers.", ["cache_salt"], []),
        ("max_tokens must be positive", ["max_tokens"], []),
    ],
)
def test_a_field_is_left_out_only_where_the_server_does_not_take_it(
    said: str, sent: list[str], refused: list[str]
) -> None:
    assert _refused(said, sent) == refused


ALOUD = ["", "&aloud=tags", "&aloud=opened"]


@pytest.mark.parametrize("aloud", ALOUD)
async def test_a_model_that_can_think_is_asked_not_to(
    url: str, client: aiohttp.ClientSession, aloud: str
) -> None:
    model = Vllm(url, f"paced?think=3&length=2{aloud}", client=client)
    assert await text(model, call()) == "word0 word1 "


def thoughtful(tokens: int = 16, timeout: float = 10.0) -> Call:
    asked = call(tokens=tokens, timeout=timeout)
    return replace(asked, sampling=replace(asked.sampling, thinking=True))


@pytest.mark.parametrize("aloud", ALOUD)
async def test_thoughts_are_not_part_of_the_answer(
    url: str, client: aiohttp.ClientSession, aloud: str
) -> None:
    model = Vllm(url, f"paced?think=30&length=2{aloud}", client=client)
    assert await text(model, thoughtful()) == "word0 word1 "


@pytest.mark.parametrize("aloud", ["", "&aloud=tags"])
async def test_a_model_that_thinks_all_the_same_shows_nothing_of_it(
    url: str, client: aiohttp.ClientSession, aloud: str
) -> None:
    model = Vllm(url, f"paced?think=30&always=1&length=2&bytes=1{aloud}", client=client)
    assert await text(model, call()) == "word0 word1 "


async def test_thoughts_that_nothing_announced_break_the_first_answer_and_are_left_out_of_others(
    url: str, client: aiohttp.ClientSession
) -> None:
    """A model that always thinks, whose template opens the tag, at a server without a parser for it."""
    model = Vllm(url, "paced?think=3&always=1&aloud=opened&length=2", client=client)
    with pytest.raises(LlmError, match="thinks before it answers"):
        await drain(model, call())
    assert await text(model, call()) == "word0 word1 "


async def test_a_tag_that_is_quoted_is_no_thought(url: str, client: aiohttp.ClientSession) -> None:
    model = Vllm(url, "paced?think=3&always=1&aloud=opened&length=1", client=client)
    said = await text(model, call("What does </think> mean?"))
    assert said.endswith("</think>\n\nword0 ")


async def test_one_that_was_to_think_and_did_not_is_heard_all_the_same(
    url: str, client: aiohttp.ClientSession
) -> None:
    assert await text(Vllm(url, "paced?length=2", client=client), thoughtful()) == "word0 word1 "


async def test_who_thinks_is_given_more_time_than_who_is_silent(
    url: str, client: aiohttp.ClientSession
) -> None:
    model = Vllm(url, "paced?think=3&first=1.5&length=1", client=client, first_token_timeout=1.0)
    assert await text(model, thoughtful()) == "word0 "


@pytest.mark.parametrize("aloud", [*ALOUD, "&aloud=endless"])
async def test_one_that_only_thinks_hands_over_to_the_next(
    url: str, client: aiohttp.ClientSession, aloud: str
) -> None:
    model = Vllm(url, f"paced?think=3&length=0&finish=length{aloud}", client=client)
    with pytest.raises(ModelRejected, match="said nothing within 16 tokens"):
        await drain(model, thoughtful())


async def test_tenants_have_different_salts_that_do_not_name_them(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    model = Vllm(url, "paced?length=1", client=client)
    before = len(server.requests)
    for tenant in ("acme", "acme", "globex"):
        await drain(model, call(tenant=tenant))
    first, second, third = [body["cache_salt"] for body in server.requests[before:]]
    assert first == second != third
    assert "acme" not in first


async def test_what_was_asked_of_the_draw_goes_along(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    sampling = Sampling(temperature=0.3, top_p=0.9, max_tokens=7, min_tokens=2, seed=0, stop=("END", "\n"))
    await drain(Vllm(url, "paced?length=1", client=client), replace(call(), sampling=sampling))
    told = {
        name: server.requests[-1].get(name) for name in ("temperature", "top_p", "max_tokens", "min_tokens")
    }
    assert told == {"temperature": 0.3, "top_p": 0.9, "max_tokens": 7, "min_tokens": 2}
    assert (server.requests[-1]["seed"], server.requests[-1]["stop"]) == (0, ["END", "\n"])


async def test_key_and_trace_headers_go_along(
    url: str, server: PacedServer, client: aiohttp.ClientSession
) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    model = Vllm(url, "paced?length=1", client=client, key="secret", headers=lambda: trace)
    await drain(model, call())
    assert server.headers["authorization"] == "Bearer secret"
    assert server.headers["traceparent"] == trace["traceparent"]
    assert "secret" not in repr(model)


async def test_a_ping_tells_whether_the_server_is_there(url: str, client: aiohttp.ClientSession) -> None:
    await Vllm(url, "m", client=client).ping()
    with pytest.raises(ModelUnavailable):
        await Vllm(f"http://127.0.0.1:{free_port()}/v1", "m", client=client).ping()
