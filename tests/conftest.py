"""Real parts for the tests: each is one child process for the whole run, started when first asked for."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from app import embedded
from tests import live, realparts, spread
from tests.live import Instance
from tests.weaviate_stand_in import Address, stand_in

READY = 120.0
if settings.get_current_profile_name() == "default":  # In CI it is another, which has no deadline either.
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(realparts)
    spread.register(config)


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
    # No test kills this one, so that nothing need wait for the disk.
    part = replace(part, command=(*part.command, "-c", "fsync=off", "-c", "synchronous_commit=off"))
    with running(part, parts_folder / "postgres.log"):
        yield part.url


@asynccontextmanager
async def _database(postgres_url: str) -> AsyncIterator[str]:
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


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """An empty database of its own for one test."""
    async with _database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
async def shared_database_url(postgres_url: str) -> AsyncIterator[str]:
    """An empty database for the tests of one file."""
    async with _database(postgres_url) as url:
        yield url


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
