"""The proxy that makes a model server fail changes nothing but what its fault says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from eval.bench.paced import PacedServer
from tests import paced
from tests.load.faulty import Fault, Proxy, proxy

MODEL = "paced?rate=500&length=6"


@pytest.fixture
def server() -> PacedServer:
    return PacedServer()


@pytest.fixture
async def faulty(server: PacedServer) -> AsyncIterator[Proxy]:
    with paced.serving(server) as url:
        async with proxy(url.removesuffix("/v1")) as found:
            yield found


async def _ask(url: str, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **more}
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.post(f"{url}/v1/chat/completions", json=body)


@pytest.mark.parametrize("fault", [Fault(), Fault(slow=3.0)], ids=["none", "slow"])
async def test_an_answer_passes_word_for_word(faulty: Proxy, fault: Fault) -> None:
    faulty.fault = fault
    through, straight = await _ask(faulty.url, stream=True), await _ask(faulty.target, stream=True)
    assert through.status_code == 200
    assert through.text == straight.text
    assert through.headers["content-type"] == "text/event-stream"
    assert (faulty.completions, faulty.failed) == (1, 0)


async def test_a_slow_answer_takes_its_multiple(faulty: Proxy) -> None:
    """By what the proxy waits for, not by how fast this machine is."""
    faulty.fault = Fault(slow=30.0)
    reply = await _ask(faulty.url, stream=True)
    assert reply.elapsed.total_seconds() > 30 * 5 / 500


async def test_errors_meet_completions_alone(faulty: Proxy, server: PacedServer) -> None:
    faulty.fault = Fault(errors=1.0)
    assert (await _ask(faulty.url)).status_code == 500
    assert server.requests == []
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{faulty.url}/v1/models")).status_code == 200
        assert "vllm:num_requests_running" in (await client.get(f"{faulty.url}/metrics")).text


async def test_a_share_of_the_requests_fails(faulty: Proxy) -> None:
    faulty.fault = Fault(errors=0.5)
    statuses = [(await _ask(faulty.url)).status_code for _ in range(40)]
    assert set(statuses) == {200, 500}
    assert faulty.failed == statuses.count(500)
