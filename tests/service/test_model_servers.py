"""The models of a release over real servers: several of them, some down, some for one model only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.embedded import free_port
from app.models import Models
from app.release import Release, load_release
from app.settings import load_settings
from eval.bench.paced import PacedServer
from llm.errors import ModelUnavailable
from llm.outputs import MemoryOutputs
from tests.calls import becomes, call, drain
from tests.paced import serving

MODEL = "paced?length=2"


async def score(question: str, language: str, sentences: Sequence[str]) -> Sequence[float]:
    return [0.0 for _ in sentences]


@asynccontextmanager
async def models(urls: str) -> AsyncIterator[Models]:
    found = Models(load_settings({}, model_url=urls), score, MemoryOutputs(), product="1")
    try:
        yield found
    finally:
        await found.aclose()


def release(folder: Path, *names: str) -> Release:
    file = folder / "release.toml"
    chain = "".join(f'[[models]]\nname = "{name}"\n' for name in names)
    file.write_text(f'name = "r"\n{chain}[cache]\nttl_seconds = 0\n')
    return load_release(file)


async def test_requests_are_answered_while_one_of_two_servers_is_down(tmp_path: Path) -> None:
    app = PacedServer()
    with serving(app) as url:
        async with models(f"http://127.0.0.1:{free_port()}/v1, {url}") as found:
            chain = found.chain(release(tmp_path, MODEL))
            for _ in range(30):
                assert (await drain(chain, call()))[-1].finish == "stop"
    assert len(app.requests) == 30


async def test_two_servers_share_the_work(tmp_path: Path) -> None:
    first, second = PacedServer(), PacedServer()
    with serving(first) as one, serving(second) as two:
        async with models(f"{one},{two}") as found:
            chain = found.chain(release(tmp_path, MODEL))
            for n in range(80):
                await drain(chain, call(tenant=f"tenant {n}"))
    assert min(len(first.requests), len(second.requests)) >= 8


async def test_what_the_servers_have_to_do_is_known_together(tmp_path: Path) -> None:
    app = PacedServer(slots=1)
    with serving(app) as url:
        async with models(url) as found:
            chain = found.chain(release(tmp_path, "paced?length=1000&rate=20"))
            streams = [chain.stream(call(tokens=1_000)) for _ in range(1)]
            await anext(streams[0])
            assert await becomes(lambda: (load := found.load()) is not None and load.running == 1)
            await streams[0].aclose()
            assert await becomes(lambda: (load := found.load()) is not None and load.running == 0)


async def test_a_server_named_for_one_model_gets_no_other(tmp_path: Path) -> None:
    large, small = PacedServer(), PacedServer()
    with serving(large) as one, serving(small) as two:
        async with models(f"large={one},paced={two}") as found:
            assert found.chain(release(tmp_path, "large", "paced")).name == "large"
            for name in ("large", "paced"):
                await drain(found.chain(release(tmp_path, name)), call())
    assert [body["model"] for body in large.requests] == ["large"]
    assert [body["model"] for body in small.requests] == ["paced"]


async def test_a_model_is_up_while_one_of_its_servers_is(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}/v1"
    with serving(PacedServer()) as url:
        async with models(f"{away},{url}") as found:
            served = release(tmp_path, "m")
            found.chain(served)
            await found.health(served)["model:m"]()
    async with models(away) as found:
        found.chain(served)
        with pytest.raises(ModelUnavailable):
            await found.health(served)["model:m"]()


async def test_a_caller_who_hangs_up_leaves_the_server_to_the_others(tmp_path: Path) -> None:
    app = PacedServer()
    with serving(app) as url:
        async with models(url) as found:
            chain = found.chain(release(tmp_path, "paced?length=1000&rate=20"))
            streams = [chain.stream(call(tokens=1_000)) for _ in range(4)]
            for stream in streams:
                await anext(stream)
            await streams[0].aclose()
            assert await becomes(lambda: app.running == 3)
            for stream in streams[1:]:
                await stream.aclose()
            assert await becomes(lambda: app.running == 0)
