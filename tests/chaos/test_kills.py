"""Processes of a whole instance are killed without warning while it works. Nothing acknowledged is lost,
nothing is found twice, and what comes back is used again by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from app.database import dsn
from app.embedded import ask_milvus, ask_redis, free_port
from app.instance import Running, running
from eval.bench.paced import ECHO
from tests import live
from tests.live import Instance

ROOT = Path(__file__).parents[2]
KILLS = 5
RECOVERY = 10.0
QUESTION = {
    "model": "plumbline",
    "messages": [{"role": "user", "content": "How many lamps has lighthouse 3?"}],
}


class Model:
    """A served model as a process of its own, always at the same address."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ("--factory", "eval.bench.paced:served", "--port", str(self.port), "--log-level", "warning")
        command = [sys.executable, "-m", "uvicorn", *options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(200):
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{self.port}/state", timeout=1)
                return
            time.sleep(0.1)
        raise RuntimeError("the model server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    served = Model()
    served.start()
    yield served
    served.kill()


@pytest.fixture(scope="module")
def instance(parts_folder: Path, model: Model) -> Iterator[Instance]:
    folder = parts_folder / "chaos"
    folder.mkdir(mode=0o711)
    environment = {
        # A short lease, so that what a killed worker held is soon taken up again.
        "PLUMBLINE_LEASE": "2",
        "PLUMBLINE_MODEL_URL": f"http://127.0.0.1:{model.port}/v1",
        "PLUMBLINE_MODEL": ECHO,
    }
    with live.instance(folder, "--no-sample", environment=environment) as one:
        yield one


@pytest.fixture
def client(instance: Instance) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=instance.url, timeout=60) as client:
        yield client


def _lighthouse(number: int) -> dict[str, Any]:
    place = " ".join(f"The keeper of lighthouse {number} wrote line {line} of the log." for line in range(25))
    return {
        "id": f"lighthouse-{number}",
        "title": f"Lighthouse {number}",
        "text": f"Lighthouse {number} has {number + 10} lamps and a white tower. {place}",
    }


def _hand_in(client: httpx.Client, documents: list[dict[str, Any]]) -> None:
    reply = client.post("/v1/documents", json={"documents": documents})
    assert reply.status_code == 202, reply.text


def _open(client: httpx.Client) -> int:
    states = ("queued", "running")
    asked = [client.get("/v1/jobs", params={"status": state, "limit": 500}) for state in states]
    return sum(len(reply.json()["jobs"]) for reply in asked)


def _wait_for_all(client: httpx.Client, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _open(client):
        assert time.monotonic() < deadline, "jobs are still open"
        time.sleep(0.2)


def _kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def _chunks(client: httpx.Client, document_id: str) -> list[str]:
    body = {"query": "lighthouse keeper lamps log", "limit": 100, "document_ids": [document_id]}
    hits = client.post("/v1/search", json=body).raise_for_status().json()["hits"]
    return [hit["chunk_id"] for hit in hits]


def test_a_worker_killed_again_and_again_loses_and_doubles_nothing(
    client: httpx.Client, instance: Instance
) -> None:
    documents = [_lighthouse(number) for number in range(200)]
    _hand_in(client, documents)
    dice = random.Random(11)
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.3, 1.5))
        for _attempt in range(100):
            try:
                _kill(instance.part("app.cli", "worker"))
                break
            except (LookupError, psutil.Error, ProcessLookupError):
                time.sleep(0.1)
        else:
            pytest.fail("the worker did not come back")
    _wait_for_all(client, 240)
    for state in ("failed", "quarantined", "cancelled"):
        assert client.get("/v1/jobs", params={"status": state}).json()["jobs"] == []
    for document in documents:
        found = _chunks(client, document["id"])
        shown = client.get(f"/v1/documents/{document['id']}").json()
        assert len(found) == len(set(found)) == shown["chunks"] > 0
        assert len({chunk.split("-")[0] for chunk in found}) == 1


@pytest.mark.parametrize("part", ["redis", "milvus", "postgres"])
def test_answers_return_by_themselves_after_a_part_was_killed(
    client: httpx.Client, instance: Instance, part: str
) -> None:
    """While it is away an answer is whole, degraded and saying so, or an error with a type."""
    _hand_in(client, [_lighthouse(3)])
    _change(client)
    words = {"redis": ("redis-server",), "milvus": ("milvus_lite",), "postgres": ("postgres",)}[part]
    known, killed = running(instance.data), _server(instance, words)
    assert known is not None
    _kill(killed)
    whole_since: float | None = None
    begin = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        back = beside.submit(_back_since, part, known, killed)
        while whole_since is None:
            assert time.monotonic() - begin < 60, "no whole answer came back"
            whole_since = _ask(client)
    assert whole_since - back.result() < RECOVERY


def _server(instance: Instance, words: tuple[str, ...]) -> psutil.Process:
    found = instance.part(*words)
    parent = found.parent()
    while parent is not None and any(words[0] in piece for piece in parent.cmdline()[:1]):
        found, parent = parent, parent.parent()
    return found


def _ask(client: httpx.Client) -> float | None:
    """Ask once; the time of it when the answer was whole. Anything else must say what is wrong."""
    reply = client.post("/v1/chat/completions", json=QUESTION)
    body = reply.json()
    if reply.status_code == 200:
        assert "13 lamps" in body["choices"][0]["message"]["content"]
        return None if body["plumbline"]["degraded"] else time.monotonic()
    assert reply.status_code in (503, 504), reply.text
    assert body["error"]["code"]
    assert body["error"]["message"]
    time.sleep(0.1)
    return None


def _back_since(part: str, known: Running, killed: psutil.Process) -> float:
    """When the part answers again, at the address that it had."""
    killed.wait(10)
    deadline = time.monotonic() + 60
    while True:
        try:
            asyncio.run(_answers(part, known))
        except Exception:
            assert time.monotonic() < deadline, f"{part} did not come back"
            time.sleep(0.05)
        else:
            return time.monotonic()


async def _answers(part: str, known: Running) -> None:
    """Raises while the part gives no answer."""
    if part == "redis":
        await ask_redis(known.redis_url)
    elif part == "milvus":
        ask_milvus(known.milvus_uri.removeprefix("http://"))
    else:
        await (await asyncpg.connect(dsn(known.database_url), timeout=2)).close()


def test_answers_come_from_the_sources_while_the_model_is_away(client: httpx.Client, model: Model) -> None:
    # A source of another revision: nothing that the model said of it so far counts any more.
    _hand_in(client, [{**_lighthouse(3), "metadata": {"seen": "again"}}])
    _wait_for_all(client, 60)
    model.kill()
    for _ in range(3):
        away = client.post("/v1/chat/completions", json=QUESTION).json()
        assert "13 lamps" in away["choices"][0]["message"]["content"]
        assert away["plumbline"]["degraded"] == ["model:extractive"]
        assert away["plumbline"]["cached"] is None
    model.start()
    back = time.monotonic()
    while (answered := _ask(client)) is None:
        assert time.monotonic() - back < RECOVERY, "the model is not used again"
    assert client.post("/v1/chat/completions", json=QUESTION).json()["plumbline"]["model"] == ECHO
    assert answered - back < RECOVERY


def _change(client: httpx.Client) -> None:
    """Anything, so that no answer kept so far counts any more."""
    _hand_in(client, [_lighthouse(900)])
    _wait_for_all(client, 60)


def test_no_degraded_answer_was_kept(client: httpx.Client) -> None:
    first = client.post("/v1/chat/completions", json=QUESTION).json()["plumbline"]
    again = client.post("/v1/chat/completions", json=QUESTION).json()["plumbline"]
    assert first["degraded"] == again["degraded"] == []
    assert again["cached"] == "answer"


def test_a_killed_api_comes_back_with_everything(client: httpx.Client, instance: Instance) -> None:
    _kill(instance.part("app.cli", "serve"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/v1/documents/lighthouse-3").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.2)
    assert _chunks(client, "lighthouse-3")
