"""`plumbline up` as people run it: a real process with real parts, started, killed in parts, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.embedded import free_port
from app.standalone import WORKER_NICE
from tests.live import Instance

ELSEWHERE = (
    "DATABASE_URL",
    "REDIS_URL",
    "MILVUS_URI",
    "WEAVIATE_URL",
    "URL",
    "KEY",
    "DATA",
    "PORT",
    "HOST",
    "RELEASE",
)
READY = "Plumbline is ready"
PATIENCE = 240.0


def environment() -> dict[str, str]:
    unset = {*ELSEWHERE, *(f"PLUMBLINE_{name}" for name in ELSEWHERE)}
    return {name: value for name, value in os.environ.items() if name not in unset}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def plumbline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


def eventually(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


class Up:
    """A running `plumbline up`."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data = data
        self.port = free_port()
        self.log = data.with_name(f"{data.name}.{time.monotonic_ns()}.log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command("up", "--data", str(data), "--port", str(self.port), *more),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment(),
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_ready(self) -> Up:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            return READY in self.said()

        eventually(ready, "it was never ready")
        return self

    def pid_of(self, part: str) -> int:
        return int(json.loads((self.data / "run.json").read_text())["processes"][part][0])

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def sockets(self) -> Path:
        return Path(json.loads((self.data / "run.json").read_text())["sockets"])

    def healthy(self) -> bool:
        try:
            health = httpx.get(f"http://127.0.0.1:{self.port}/health/ready", timeout=10)
        except httpx.HTTPError:
            return False
        return health.status_code == 200 and health.json()["down"] == []

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        if self.process.poll() is None:
            self.stop()


def left_of(family: list[psutil.Process]) -> list[str]:
    return [str(process) for process in family if process.is_running() and process.status() != "zombie"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, and open enough for PostgreSQL's account when root runs the tests."""
    made = Path(tempfile.mkdtemp(prefix="plt-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def instance() -> Iterator[Up]:
    """An empty instance that the tests of this file share; each leaves it running and whole."""
    made = Path(tempfile.mkdtemp(prefix="plt-"))
    up = Up(made / "data", "--no-sample")
    try:
        yield up.wait_ready()
    finally:
        up.end()
        shutil.rmtree(made, ignore_errors=True)


def test_up_gets_ready_and_says_where(instance: Up) -> None:
    assert instance.healthy()
    assert f"http://127.0.0.1:{instance.port}" in instance.said()
    for part in ("postgres", "redis", "milvus", "worker", "api"):
        assert f"ready    {part}" in instance.said()
    own = psutil.Process().nice()
    assert psutil.Process(instance.pid_of("worker")).nice() == min(own + WORKER_NICE, 19)
    assert psutil.Process(instance.pid_of("api")).nice() == own


def test_a_second_up_on_the_same_folder_is_refused_and_names_the_holder(instance: Up) -> None:
    second = plumbline("up", "--data", str(instance.data), "--port", str(free_port()))
    assert second.returncode == 3
    assert f"in use by process {instance.process.pid}" in second.stderr
    assert instance.healthy()


def test_a_taken_port_is_named(instance: Up, folder: Path) -> None:
    second = plumbline("up", "--data", str(folder / "data"), "--port", str(instance.port))
    assert second.returncode == 3
    assert f"Port {instance.port}" in second.stderr
    assert "PLUMBLINE_PORT" in second.stderr
    assert not (folder / "data" / "lock").exists()


def test_addresses_of_the_parts_are_for_their_owner_only(instance: Up) -> None:
    assert (instance.data / "run.json").stat().st_mode & 0o077 == 0
    assert instance.sockets().stat().st_mode & 0o077 == 0
    assert (instance.data / "logs").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("part", ["redis", "milvus", "postgres", "worker", "api"])
def test_a_part_that_is_killed_comes_back(instance: Up, part: str) -> None:
    before = instance.pid_of(part)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: instance.pid_of(part) != before, f"{part} was not started again")
    eventually(instance.healthy, f"not healthy after {part} was killed")


def test_parts_come_back_while_the_disk_is_full(instance: Up) -> None:
    def redis() -> int | None:
        found = [one.pid for one in instance.family() if one.name() == "redis-server"]
        return found[0] if found else None

    full = instance.data / "run.partial"
    full.symlink_to("/dev/full")
    try:
        seen: list[int | None] = [None]
        for _ in range(2):
            eventually(lambda: redis() not in seen, "redis was not started again")
            seen.append(redis())
            os.kill(seen[-1] or 0, signal.SIGKILL)
        eventually(lambda: redis() not in seen, "redis was not started again")
    finally:
        full.unlink()
    assert "run.json could not be written: No space left on device" in instance.said()
    eventually(instance.healthy, "not healthy after redis was killed twice")


def test_the_first_key_is_made_before_any_key_exists(instance: Up) -> None:
    made = plumbline("keys", "create", "alice", "--scope", "read", "--json", "--data", str(instance.data))
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["key"]

    def status(secret: str) -> int:
        url = f"http://127.0.0.1:{instance.port}/v1/documents"
        return httpx.get(url, headers={"Authorization": f"Bearer {secret}"}).status_code

    assert status(key) == 200
    rotated = plumbline("keys", "rotate", "alice", "--json", "--data", str(instance.data))
    assert rotated.returncode == 0, rotated.stderr
    after = json.loads(rotated.stdout)["key"]
    assert status(after) == 200
    # The name is the new key's: the old one opens nothing any more.
    assert plumbline("keys", "revoke", "alice", "--yes", "--data", str(instance.data)).returncode == 0
    eventually(lambda: status(key) == status(after) == 401, "a revoked key still opens")


def test_doctor_finds_every_part_of_a_running_instance(instance: Up) -> None:
    examined = plumbline("doctor", "--json", "--data", str(instance.data))
    findings = {each["name"]: each for each in json.loads(examined.stdout)["findings"]}
    assert examined.returncode == 0
    assert {
        findings[part]["state"] for part in ("postgres", "redis", "milvus", "api", "embedder", "index")
    } == {"ok"}
    assert "no authentication" in findings["milvus access"]["detail"]


def test_an_index_that_was_lost_is_found_and_nothing_is_erased_again_where_nothing_was(folder: Path) -> None:
    (folder / "papers").mkdir()
    (folder / "papers" / "wombats.md").write_text("# Wombats\n\nWombat droppings are cubes.\n")
    data = folder / "data"
    first = Up(data, "--no-sample").wait_ready()
    assert plumbline("ingest", str(folder / "papers"), "--data", str(data)).returncode == 0
    assert first.stop(signal.SIGINT) == 0, first.said()
    shutil.rmtree(data / "milvus")
    second = Up(data, "--no-sample").wait_ready()
    examined = plumbline("doctor", "--json", "--data", str(data))
    again = plumbline("erase", "reapply", "--data", str(data))
    parts = httpx.get(f"http://127.0.0.1:{second.port}/health/ready").json()["parts"]
    assert second.stop(signal.SIGINT) == 0, second.said()
    findings = {each["name"]: each for each in json.loads(examined.stdout)["findings"]}
    assert examined.returncode == 1
    assert (findings["milvus"]["state"], findings["index"]["state"]) == ("ok", "fail")
    assert {name for name, state in parts.items() if state != "up"} == {"index"}
    assert "0 rows can be read where 1 were written" in findings["index"]["detail"]
    assert (again.returncode, again.stdout.strip()) == (0, "There are no receipts.")


def test_documents_survive_a_stop_and_a_kill_and_nothing_is_left_running(folder: Path) -> None:
    (folder / "papers" / "deep").mkdir(parents=True)
    (folder / "papers" / "deep" / "wombats.md").write_text("# Wombats\n\nWombat droppings are cubes.\n")
    (folder / "papers" / "photo.xyz").write_bytes(b"\x00\x01")
    data = folder / "data"

    first = Up(data, "--no-sample").wait_ready()
    taken = plumbline("ingest", str(folder / "papers"), "--data", str(data), "--json")
    assert taken.returncode == 0, taken.stderr
    told = json.loads(taken.stdout)
    assert [each["document_id"] for each in told["outcomes"]] == ["deep:wombats.md"]
    assert told["left_out"] == 1
    family, sockets = first.family(), first.sockets()
    assert first.stop(signal.SIGINT) == 0, first.said()
    assert left_of(family) == []
    assert not sockets.exists()
    assert not (data / "lock").exists()
    assert not (data / "run.json").exists()

    second = Up(data, "--no-sample").wait_ready()
    assert found(second) == ["deep:wombats.md"]
    family, sockets = second.family(), second.sockets()
    second.process.kill()
    second.process.wait()
    eventually(lambda: left_of(family) == [], "children outlived a supervisor that was killed")

    third = Up(data, "--no-sample").wait_ready()
    try:
        assert found(third) == ["deep:wombats.md"]
        assert not sockets.exists()
        stopped = plumbline("stop", "--data", str(data))
        assert stopped.returncode == 0
        assert third.process.wait(PATIENCE) == 0
    finally:
        third.end()


def found(up: Up) -> list[str]:
    searched = plumbline("search", "shape of wombat droppings", "--data", str(up.data), "--json")
    assert searched.returncode == 0, searched.stderr
    return [hit["document_id"] for hit in json.loads(searched.stdout)["hits"]]


def test_a_new_instance_takes_in_the_sample_and_shows_a_cited_answer(sampled: Instance) -> None:
    said = sampled.log.read_text()
    assert "three days a week" in said
    assert "policies:remote-work.md" in said
    listed = plumbline("documents", "list", "--data", str(sampled.data), "--json")
    assert len(json.loads(listed.stdout)["documents"]) >= 20
    named = ("--named", "REMOTE work")
    found = plumbline("documents", "list", *named, "--data", str(sampled.data), "--json")
    assert [one["id"] for one in json.loads(found.stdout)["documents"]] == ["policies:remote-work.md"]
