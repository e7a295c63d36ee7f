from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from app.child import Child, StartFailed, delay_after
from app.embedded import NotReady, Part, free_port
from app.partlog import PartLog
from app.settings import load_settings
from app.standalone import Standalone
from app.supervisor import Supervisor

Said = list[str]


def python_part(
    name: str, code: str, folder: Path, ready: Callable[[], Awaitable[None]] | None = None, **more: float
) -> Part:
    script = folder / f"{name}.py"
    script.write_text(textwrap.dedent(code))

    async def at_once() -> None: ...

    return Part(
        name=name,
        command=(sys.executable, "-I", str(script)),
        url="",
        ready=ready or at_once,
        folder=folder,
        patience=more.get("patience", 10.0),
    )


def child(part: Part, folder: Path, said: Said) -> Child:
    return Child(part, PartLog(part.name, folder, said.append, always=False), said.append)


async def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


SLEEPS = "import time; print('up', flush=True); time.sleep(600)"


async def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    said: Said = []
    kept = child(python_part("p", SLEEPS, tmp_path), tmp_path, said)
    await kept.start(20)
    first = kept.pid
    assert first
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: kept.pid not in (None, first))
    await asyncio.wait_for(kept.ready.wait(), 20)
    await eventually(lambda: any("is back" in line for line in said))
    assert any("was ended by SIGKILL" in line for line in said)
    await kept.stop(asyncio.Event())


async def test_a_stopped_child_stays_stopped(tmp_path: Path) -> None:
    said: Said = []
    kept = child(python_part("p", SLEEPS, tmp_path), tmp_path, said)
    await kept.start(20)
    pid = kept.pid
    assert pid
    await kept.stop(asyncio.Event())
    assert not alive(pid)
    assert kept.pid is None
    assert said == []


async def test_a_child_that_never_gets_up_fails_the_start_with_its_last_words(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    code = "import sys; print('the disk is on fire', flush=True); sys.exit(1)"
    kept = child(python_part("p", code, tmp_path, never), tmp_path, [])
    with pytest.raises(StartFailed, match="the disk is on fire"):
        await kept.start(60)
    await kept.stop(asyncio.Event())


async def test_a_child_that_says_another_start_is_hopeless_is_not_started_again(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    code = "import pathlib, sys; pathlib.Path('starts').open('a').write('x'); sys.exit(3)"
    kept = child(python_part("p", code, tmp_path, never), tmp_path, [])
    with pytest.raises(StartFailed, match="exit code 3"):
        await kept.start(60)
    assert (tmp_path / "starts").read_text() == "x"
    await kept.stop(asyncio.Event())


async def test_a_child_that_ignores_the_signal_is_killed_with_all_its_own(tmp_path: Path) -> None:
    code = """
        import signal, subprocess, sys, time, pathlib
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
        pathlib.Path('own').write_text(str(own.pid))
        time.sleep(600)
    """
    kept = child(python_part("p", code, tmp_path, patience=0.5), tmp_path, [])
    await kept.start(20)
    await eventually(lambda: (tmp_path / "own").exists() and (tmp_path / "own").read_text() != "")
    pid, own = kept.pid, int((tmp_path / "own").read_text())
    assert pid
    await kept.stop(asyncio.Event())
    assert not alive(pid)
    await eventually(lambda: not alive(own))


async def test_hurry_cuts_the_patience_short(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
    part = python_part("p", code + "time.sleep(600)", tmp_path, patience=600)
    kept = child(part, tmp_path, [])
    await kept.start(20)
    await eventually(lambda: "deaf" in kept.log.tail())
    hurry = asyncio.Event()
    stopping = asyncio.create_task(kept.stop(hurry))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    hurry.set()
    await asyncio.wait_for(stopping, 20)


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
        import asyncio, pathlib, sys
        from app.child import Child
        from app.embedded import Part
        from app.partlog import PartLog
        async def ready(): pass
        async def main():
            command = (sys.executable, "-c", "import time; time.sleep(600)")
            part = Part(name="c", command=command, url="", ready=ready)
            child = Child(part, PartLog("c", pathlib.Path({str(tmp_path)!r}), print, always=True), print)
            await child.start(20)
            await asyncio.sleep(0.5)
            print(child.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
    """
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout
    pid = int(await supervisor.stdout.readline())
    assert alive(pid)
    supervisor.kill()
    await supervisor.wait()
    await eventually(lambda: not alive(pid))


async def test_stages_stop_in_the_reverse_order(tmp_path: Path) -> None:
    code = """
        import pathlib, signal, sys, time
        name = pathlib.Path(sys.argv[0]).stem
        def end(*_):
            pathlib.Path('order').open('a').write(name + ' '); sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        pathlib.Path(name + '.up').touch()
        time.sleep(600)
    """
    supervisor = Supervisor(lambda line: None)
    for name in ("store", "api"):
        await supervisor.start([child(python_part(name, code, tmp_path), tmp_path, [])])
    await eventually(lambda: (tmp_path / "store.up").exists() and (tmp_path / "api.up").exists())
    await supervisor.stop()
    assert (tmp_path / "order").read_text().split() == ["api", "store"]
    assert supervisor.children == []


async def test_a_start_that_fails_is_told_as_one_failure_however_many_parts_there_are(tmp_path: Path) -> None:
    async def never() -> None:
        raise NotReady("no")

    hopeless = "import sys; print('there is no such file', flush=True); sys.exit(3)"
    parts = [python_part("worker", SLEEPS, tmp_path), python_part("api", hopeless, tmp_path, never)]
    supervisor = Supervisor(lambda line: None)
    with pytest.raises(StartFailed, match="there is no such file"):
        await supervisor.start([child(part, tmp_path, []) for part in parts])
    await supervisor.stop()


@pytest.mark.parametrize("written", [None, "models = 7", "[["])
async def test_a_release_that_cannot_serve_is_told_before_anything_is_made(
    tmp_path: Path, written: str | None
) -> None:
    release, said = tmp_path / "release.toml", Said()
    if written is not None:
        release.write_text(written)
    settings = load_settings({}, data=tmp_path / "data", port=free_port(), release=release)
    with pytest.raises(StartFailed, match=r"release\.toml"):
        await Standalone(settings, said.append).run()
    assert not (tmp_path / "data").exists()
    assert said == []


async def test_a_part_that_yields_to_others_does_so_between_sessions_too(tmp_path: Path) -> None:
    part = replace(python_part("meek", SLEEPS, tmp_path), nice=7)
    meek = child(part, tmp_path, [])
    supervisor = Supervisor(lambda line: None)
    await supervisor.start([meek])
    pid = meek.pid
    assert pid is not None
    nice = min(psutil.Process().nice() + 7, 19)
    await eventually(lambda: psutil.Process(pid).nice() == nice)
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        await eventually(lambda: group.read_text().strip().endswith("nice 7"))
    await supervisor.stop()


def test_a_process_that_yields_does_so_with_all_its_threads() -> None:
    code = """
import os, threading
from app.launcher import yield_to_others
end = threading.Event()
threading.Thread(target=end.wait).start()
yield_to_others(7)
threads = os.listdir("/proc/self/task")
print(len(threads), {os.getpriority(os.PRIO_PROCESS, int(each)) for each in threads})
end.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"2 {{{min(psutil.Process().nice() + 7, 19)}}}\n"


async def test_warnings_reach_the_terminal_and_chatter_only_the_file(tmp_path: Path) -> None:
    shown: Said = []
    log = PartLog("p", tmp_path, shown.append, always=False)
    log.shown = True
    log.feed(b"all is well\nWARN")
    log.feed(b"ING: 100% full\n")
    log.close()
    assert shown == ["p | WARNING: 100% full"]
    assert "all is well" in (tmp_path / "p.log").read_text()


async def test_a_log_goes_on_after_the_disk_was_full_and_can_be_closed_while_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.log"
    path.symlink_to("/dev/full")
    log = PartLog("p", tmp_path, print, always=False)
    log.feed(b"lost\n")
    path.unlink()
    log.feed(b"kept\n")
    path.rename(tmp_path / "before.log")
    log.close()
    assert (tmp_path / "before.log").read_text() == "kept\n"
    path.symlink_to("/dev/full")
    log = PartLog("p", tmp_path, print, always=False)
    log.feed(b"lost\n")
    log.close()


async def test_a_child_that_cannot_be_started_for_a_while_comes_back(tmp_path: Path) -> None:
    said: Said = []
    kept = child(python_part("p", SLEEPS, tmp_path), tmp_path, said)
    await kept.start(20)
    first = kept.pid
    assert first
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: any("could not be started (Too many open files)" in one for one in said))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await eventually(lambda: kept.pid not in (None, first))
    await kept.stop(asyncio.Event())


async def test_what_a_caller_sent_begins_no_line_and_moves_no_cursor(tmp_path: Path) -> None:
    shown: Said = []
    log = PartLog("api", tmp_path, shown.append, always=True)
    said = {"level": "info", "message": "GET /\x1b[31mX\r\napi | GET /forged 200\u202e\u2028\x00\x9b 404"}
    log.feed(json.dumps(said).encode() + b"\n")
    log.feed(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    log.feed("WARNING:\tgrüße\x1b[2J\u202e\n".encode())
    broken = {"level": "error", "message": "Oh.", "exception": "Traceback\nKeyError: '\x1b\napi | forged'"}
    log.feed(json.dumps(broken).encode() + b"\n")
    log.close()
    assert shown == [
        *[r"api | GET /\u001b[31mX\u000d\u000aapi | GET /forged 200\u202e\u2028\u0000\u009b 404"] * 2,
        "api | WARNING:\tgrüße\\u001b[2J\\u202e",
        "api | error: Oh.\n  Traceback\n  KeyError: '\\u001b\n  api | forged'",
    ]
    assert not any(set("\x1b\u202e\x9b") & set(line) for line in log.tail())


async def test_a_log_without_line_ends_stays_bounded(tmp_path: Path) -> None:
    log = PartLog("p", tmp_path, lambda line: None, always=True)
    for _ in range(50):
        log.feed(b"x" * 10_000)
    log.close()
    assert max(len(line) for line in log.tail()) < 40_000


def test_delays_between_starts_grow_and_are_bounded() -> None:
    assert delay_after(1) <= 0.2
    assert 2.5 <= delay_after(50) <= 5.0
