"""Real parts for the tests: each is one child process for the whole run, started when first asked for."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from app import embedded
from tests import live
from tests.live import Instance
from tests.weaviate_stand_in import Address, stand_in

READY = 120.0
if settings.get_current_profile_name() == "default":  # In CI it is another, which has no deadline either.
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def parts_folder() -> Iterator[Path]:
    """A short path (sockets have a limit) that an unprivileged PostgreSQL can reach."""
    folder = Path(tempfile.mkdtemp(prefix="plt-"))
    folder.chmod(0o711)
    (folder / "sockets").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(part: embedded.Part, log: Path) -> Iterator[embedded.Part]:
    """The part as a child process, ready, until the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            part.command,
            stdout=output,
            stderr=output,
            user=part.user,
            cwd="/",
            env={**os.environ, **part.environment},
        )
    try:
        asyncio.run(_until_ready(part, process, log))
        yield part
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(part: embedded.Part, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{part.name} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            await part.ready()
        except Exception:
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{part.name} was not ready in {READY:.0f} s:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def postgres_url(parts_folder: Path) -> Iterator[str]:
    """A real PostgreSQL; make a database of your own in it."""
    part = embedded.postgres(parts_folder / "postgres", parts_folder / "sockets")
    with running(part, parts_folder / "postgres.log"):
        yield part.url


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """An empty database of its own for one test."""
    import uuid

    import asyncpg

    name = f"t{uuid.uuid4().hex[:12]}"
    sockets = postgres_url.split("host=")[1]
    admin = await asyncpg.connect(host=sockets, user="postgres", database="postgres")
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield postgres_url.replace("@/postgres?", f"@/{name}?")
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def redis_url(parts_folder: Path) -> Iterator[str]:
    part = embedded.redis(parts_folder / "redis", parts_folder / "sockets")
    with running(part, parts_folder / "redis.log"):
        yield part.url


@pytest.fixture(scope="session")
def milvus_uri(parts_folder: Path) -> Iterator[str]:
    part = embedded.milvus(parts_folder / "milvus", embedded.free_port())
    with running(part, parts_folder / "milvus.log"):
        yield part.url


@pytest.fixture(scope="session")
def weaviate_address() -> Iterator[Address]:
    """A real Weaviate where WEAVIATE_URL (and WEAVIATE_GRPC_URL) name one, else the stand-in."""
    if url := os.environ.get("WEAVIATE_URL"):
        yield Address(url, os.environ.get("WEAVIATE_GRPC_URL"))
    else:
        with stand_in() as address:
            yield address


@pytest.fixture(scope="session")
def sampled(parts_folder: Path) -> Iterator[Instance]:
    """One instance with the sample corpus, for all tests that only ask it and add to it."""
    folder = parts_folder / "sampled"
    folder.mkdir(mode=0o711)
    with live.instance(folder) as one:
        yield one


REAL_PARTS = ("PostgreSQL", "Redis", "Milvus Lite", "Chromium", "vLLM on the CPU", "Weaviate")
STAND_IN = "Weaviate's stand-in"
NO_WEAVIATE = "not run against it: WEAVIATE_URL is not set"
WHOLE_INSTANCE = {"e2e", "chaos", "browser"}
"""Folders whose tests run the product itself, with all its embedded parts."""


def _parts_of(item: pytest.Item) -> list[str]:
    """The real parts that a test runs on."""
    names = set(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    names.add(f"{parameters.get('make_store')} store")
    vllm = item.get_closest_marker("vllm") is not None
    whole = item.path.parent.name in WHOLE_INSTANCE and not vllm
    weaviate = bool(names & {"weaviate_address", "weaviate store"})
    used = (
        whole or bool(names & {"postgres_url", "database_url", "sampled"}),
        whole or bool(names & {"redis_url", "sampled"}),
        whole or bool(names & {"milvus_uri", "sampled", "milvus store"}),
        item.get_closest_marker("browser") is not None,
        vllm,
        weaviate and "WEAVIATE_URL" in os.environ,
        weaviate and "WEAVIATE_URL" not in os.environ,
    )
    return [part for part, is_used in zip((*REAL_PARTS, STAND_IN), used, strict=True) if is_used]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("part", part) for part in _parts_of(item)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which real parts ran, and which were skipped and why."""
    terminalreporter.section("real parts")
    ran = [r for key in ("passed", "failed") for r in terminalreporter.getreports(key) if r.when == "call"]
    skipped = terminalreporter.getreports("skipped")
    stood_in = sum(("part", STAND_IN) in report.user_properties for report in ran)
    for part in REAL_PARTS:
        count = sum(("part", part) in report.user_properties for report in ran)
        left_out = [report for report in skipped if ("part", part) in report.user_properties]
        reasons = {
            str(report.longrepr[-1]).removeprefix("Skipped: ")
            for report in left_out
            if isinstance(report.longrepr, tuple)
        }
        told = f"{count} tests ran on it" if count else "not used"
        if part == "Weaviate" and stood_in:
            told = f"{NO_WEAVIATE}; {stood_in} tests ran on a stand-in that speaks its protocol"
        if left_out:
            told += f"; {len(left_out)} tests skipped: {'; '.join(sorted(reasons))}"
        terminalreporter.write_line(f"{part:<16} {told}")
