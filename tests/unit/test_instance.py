from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app import instance
from app.instance import InstanceBusy, InstanceError, Running
from app.partlog import PartLog
from app.standalone import PortTaken, check_port


def test_a_held_folder_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    with instance.hold(tmp_path, "http://127.0.0.1:1"):
        told = f"process {os.getpid()}, which answers at http://127.0.0.1:1"
        with pytest.raises(InstanceBusy, match=told), instance.hold(tmp_path, ""):
            pass
        assert instance.is_held(tmp_path)
    assert not instance.is_held(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_a_lock_left_by_a_killed_process_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:1"}))
    with instance.hold(tmp_path, ""):
        assert instance.is_held(tmp_path)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    with pytest.raises(InstanceError, match=f"{tmp_path} cannot be used"), instance.hold(tmp_path, ""):
        pass
    assert not (tmp_path / "lock").exists()


def test_what_runs_is_known_only_while_it_runs(tmp_path: Path) -> None:
    now = Running(pid=os.getpid(), url="http://127.0.0.1:1", processes={"api": (1, 2.0)})
    with instance.hold(tmp_path, now.url):
        instance.announce(tmp_path, now)
        assert instance.running(tmp_path) == now
        assert (tmp_path / "run.json").stat().st_mode & 0o077 == 0
    assert instance.running(tmp_path) is None


def test_processes_of_a_killed_run_are_ended_and_others_are_not(tmp_path: Path) -> None:
    left, other = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2))
    try:
        started = psutil.Process(left.pid).create_time()
        processes = {"redis": (left.pid, started), "milvus": (other.pid, started - 1_000)}
        instance.announce(tmp_path, Running(pid=1, url="", processes=processes))
        assert instance.clear_away(tmp_path, patience=1) == ["redis"]
        left.wait(10)
        assert other.poll() is None
    finally:
        for each in (left, other):
            each.kill()
            each.wait()


def test_stopping_a_folder_that_nobody_uses_says_so(tmp_path: Path) -> None:
    assert instance.stop(tmp_path) is False


def test_facts_are_remembered_between_runs(tmp_path: Path) -> None:
    assert instance.remembered(tmp_path) == {}
    instance.remember(tmp_path, sample="ingested")
    instance.remember(tmp_path, other="fact")
    assert instance.remembered(tmp_path) == {"sample": "ingested", "other": "fact"}


def test_the_sockets_folder_is_private_short_and_gone_afterwards() -> None:
    with instance.sockets_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) < 90
    assert not folder.exists()


async def test_a_port_that_is_taken_is_named() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(PortTaken, match=f"Port {port}.*PLUMBLINE_PORT"):
        check_port("127.0.0.1", port)
    server.close()
    await server.wait_closed()
    check_port("127.0.0.1", port)


def test_our_own_json_lines_are_shown_as_sentences(tmp_path: Path) -> None:
    shown: list[str] = []
    log = PartLog("worker", tmp_path, shown.append, always=False)
    log.shown = True
    log.feed(b'{"level": "info", "message": "no error at all"}\n')
    log.feed(b'{"level": "error", "message": "Disk full.", "exception": "a\\nb"}\n')
    log.close()
    assert shown == ["worker | error: Disk full.\n  a\n  b"]
