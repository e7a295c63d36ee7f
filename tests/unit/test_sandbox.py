from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.doctor import _parsing
from app.settings import load_settings
from ingestion import sandbox_pace, sandbox_process
from ingestion.errors import ParserUnavailable, Quarantined, UnsupportedType
from ingestion.sandbox import Sandbox
from ingestion.types import Containment, Parsed

HOSTILE = "hostile_reader:parse"
MEMORY = 512 * 2**20
Make = Callable[..., Sandbox]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Sandboxes whose reader does what the document says; closed at the end."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made: list[Sandbox] = []

    def build(timeout: float = 30.0, **options: int) -> Sandbox:
        made.append(Sandbox(timeout, MEMORY, reader=HOSTILE, **options))
        return made[-1]

    yield build
    for sandbox in made:
        await sandbox.close()


async def do(sandbox: Sandbox, wish: str, tenant: str | None = None) -> Parsed:
    return await sandbox.parse(wish.encode(), None, "text/plain", tenant=tenant)


async def fate(sandbox: Sandbox, wish: str) -> Quarantined:
    with pytest.raises(Quarantined) as caught:
        await do(sandbox, wish)
    return caught.value


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def has_ended(pid: int) -> bool:
    """Whether it ends within half a minute: the kernel takes a moment over a kill."""
    for _ in range(3_000):
        if not is_running(pid):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("wish", ["loop", "sleep"])
async def test_a_document_that_never_ends_is_stopped_and_the_next_one_is_read(make: Make, wish: str) -> None:
    sandbox = make(timeout=3.0)
    error = await fate(sandbox, wish)
    assert (error.reason, error.part) == ("timeout", "page 7")
    assert (await do(sandbox, "hello")).text == "hello"


async def test_a_document_that_takes_long_shows_which_part_is_read(make: Make) -> None:
    told: list[str] = []
    with pytest.raises(Quarantined):
        await make(timeout=1.5).parse(b"sleep", None, "text/plain", told=told.append)
    assert told == ["page 7"]


async def test_a_small_document_gets_less_time_than_a_large_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_pace, "SECONDS", 1.0)
    monkeypatch.setattr(sandbox_pace, "SECONDS_PER_MIB", 1.0)
    sandbox = make(timeout=30.0)
    assert "over 1 seconds" in str(await fate(sandbox, "sleep"))
    assert "over 2 seconds" in str(await fate(sandbox, "sleep " + "x" * 2**20))


async def test_a_document_that_goes_on_is_not_stopped_for_being_long(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_pace, "SECONDS", 1.0)
    assert (await do(make(timeout=30.0), "pages 30 0.1")).text == "30 pages"


@pytest.mark.parametrize("wish", ["loop", "sleep", "pages 1 60"])
async def test_a_document_that_stays_at_a_part_is_stopped_long_before_the_limit_for_all(
    make: Make, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setattr(sandbox_pace, "SECONDS", 1.0)
    error = await fate(make(timeout=600.0), wish)
    assert (error.reason, error.part) == ("timeout", "page 1" if "pages" in wish else "page 7")
    assert "makes no progress" in str(error)


async def test_a_document_that_goes_on_for_ever_is_stopped_at_the_limit_for_all(make: Make) -> None:
    error = await fate(make(timeout=2.0), "pages 1000000 0.1")
    assert (error.reason, (error.part or "")[:5]) == ("timeout", "page ")
    assert "over 2 seconds, which is the limit for any" in str(error)


async def test_time_for_which_a_reader_waits_for_a_processor_does_not_count(make: Make) -> None:
    """It shares one with others that keep it busy, and so takes longer than its limit by the clock."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    hog = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(8)]
    try:
        assert (await do(make(timeout=2.0), "work 1.5")).text == "done"
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.parametrize("wish", ["hog", "hog-in-c"])
async def test_a_document_that_eats_memory_is_stopped_and_the_next_one_is_read(make: Make, wish: str) -> None:
    sandbox = make()
    error = await fate(sandbox, wish)
    assert (error.reason, error.part) == ("memory", "page 7")
    assert (await do(sandbox, "hello")).text == "hello"


async def test_a_document_may_take_memory_up_to_the_limit_and_no_more(make: Make) -> None:
    sandbox = make()
    assert (await do(sandbox, f"take {MEMORY // 4}")).text == f"took {MEMORY // 4}"
    assert (await fate(sandbox, f"take {MEMORY}")).reason == "memory"


@pytest.mark.parametrize("wish", ["abort", "segfault", "exit", "fail"])
async def test_a_document_that_crashes_its_reader_has_a_reason_and_a_place(make: Make, wish: str) -> None:
    sandbox = make()
    error = await fate(sandbox, wish)
    assert (error.reason, error.part) == ("crashed", "page 7")
    assert "secret" not in str(error)
    assert (await do(sandbox, "hello")).text == "hello"


async def test_an_answer_that_is_not_what_a_child_says_is_a_crash(make: Make) -> None:
    assert (await fate(make(timeout=10.0), "lie")).reason == "crashed"


async def test_a_reader_killed_from_outside_gets_another_try(make: Make) -> None:
    sandbox = make()
    await do(sandbox, "hello")
    assert (await do(sandbox, f"once {time.monotonic() + 0.3}")).text == "second try"


async def test_a_reader_that_died_between_documents_is_replaced(make: Make) -> None:
    sandbox = make()
    pid = int((await do(sandbox, "pid", "ours")).text)
    os.kill(pid, signal.SIGKILL)
    assert int((await do(sandbox, "pid", "ours")).text) != pid


async def test_a_nursery_that_died_is_replaced(make: Make) -> None:
    sandbox = make()
    nursery = int((await do(sandbox, "parent")).text)
    os.kill(nursery, signal.SIGKILL)
    assert int((await do(sandbox, "parent")).text) != nursery


async def test_a_nursery_that_hangs_is_replaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_process, "_SILENCE", 3.0)
    monkeypatch.setattr(sandbox_process, "_END_SECONDS", 0.2)
    sandbox = make()
    nursery = int((await do(sandbox, "parent")).text)
    os.kill(nursery, signal.SIGSTOP)
    assert int((await do(sandbox, "parent")).text) != nursery
    assert not is_running(nursery)


async def test_a_reader_is_kept_from_all_but_its_file(make: Make) -> None:
    """Where the kernel has seccomp and Landlock, as every one that the tests run on."""
    assert await make().containment() == Containment(network=True, files=True, processes=True)


async def test_a_reader_cannot_write_or_remove_files(make: Make, tmp_path: Path) -> None:
    target, other = tmp_path / "written", tmp_path / "other"
    other.touch()
    sandbox = make()
    assert (await do(sandbox, f"write {target}")).text == "PermissionError"
    assert (await do(sandbox, f"remove {other}")).text == "PermissionError"
    assert (target.exists(), other.exists()) == (False, True)


async def test_a_reader_cannot_read_files_of_others(make: Make, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    sandbox = make()
    for path in (secret, f"/proc/{os.getpid()}/environ", "/etc/passwd", "/proc/self/maps"):
        assert (await do(sandbox, f"read {path}")).text == "PermissionError"


async def test_a_reader_cannot_reach_the_network(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert (await do(make(), f"connect {port}")).text == "PermissionError"


def test_without_the_filter_a_network_of_its_own_leads_nowhere() -> None:
    script = textwrap.dedent("""
        import os, socket, sys
        from ingestion import sandbox_rights as rights
        before = os.readlink("/proc/self/ns/net")
        rights.leave_network()
        if os.readlink("/proc/self/ns/net") == before:
            sys.exit("no namespaces")
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
        except OSError as error:
            print(type(error).__name__)
    """)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", script, str(server.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if "no namespaces" in done.stderr:
        pytest.skip("this kernel gives ordinary users no network namespaces")
    assert done.stdout.strip() == "OSError", done.stderr


async def test_the_doctor_tells_what_readers_are_kept_from() -> None:
    found = await _parsing(load_settings({}))
    assert (found.name, found.state) == ("parsing", "ok")
    assert "the network" in found.detail
    broken = await _parsing(load_settings({}, parse_memory=2**24))
    assert (broken.state, bool(broken.remedy)) == ("fail", True)


async def test_a_reader_can_neither_start_nor_signal_processes(make: Make) -> None:
    sandbox = make()
    assert (await do(sandbox, "fork")).text == "PermissionError"
    assert (await do(sandbox, "run /bin/true")).text == "PermissionError"
    assert (await do(sandbox, f"kill {os.getpid()}")).text == "PermissionError"


async def test_a_reader_sees_none_of_the_parents_environment(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    names = (await do(make(), "environment")).text.split()
    assert "PYTHONPATH" in names
    assert not {"DATABASE_URL", "HOME", "PATH"} & set(names)


async def test_every_file_has_a_reader_of_its_own_unless_it_is_plain_text_of_one_tenant(make: Make) -> None:
    sandbox = make()
    assert len({(await do(sandbox, "pid")).text for _ in range(5)}) == 5
    assert len({(await do(sandbox, "pid", "ours")).text for _ in range(5)}) == 1
    page = [await sandbox.parse(b"pid", "a.html", None, tenant="ours") for _ in range(3)]
    assert len({parsed.text for parsed in page}) == 3


async def test_no_tenant_gets_a_reader_that_has_seen_anothers_text(make: Make) -> None:
    sandbox = make()
    await do(sandbox, "secret-of-theirs", "theirs")
    assert (await do(sandbox, "seen", "theirs")).text == "secret-of-theirs"
    assert (await do(sandbox, "seen", "ours")).text == "nothing"
    assert (await do(sandbox, "seen")).text == "nothing"


async def test_a_shared_reader_is_replaced_after_its_number_of_documents(make: Make) -> None:
    sandbox = make(share=2)
    pids = [(await do(sandbox, "pid", "ours")).text for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not is_running(int(pids[0]))


async def test_a_shared_reader_that_was_harmed_reads_nothing_more(make: Make) -> None:
    sandbox = make()
    await do(sandbox, "secret-of-before", "ours")
    with pytest.raises(Quarantined):
        await do(sandbox, "fail", "ours")
    assert (await do(sandbox, "seen", "ours")).text == "nothing"


async def test_few_readers_wait_for_more_of_their_tenants_however_many_there_are(make: Make) -> None:
    sandbox = make()
    pids = [int((await do(sandbox, "pid", f"tenant-{n}")).text) for n in range(12)]
    assert sum(map(is_running, pids)) <= 4


async def test_what_reading_took_is_told(make: Make) -> None:
    sandbox = make()
    small = await sandbox.read(b"hello", None, "text/plain")
    large = await sandbox.read(f"take {MEMORY // 4}".encode(), None, "text/plain")
    killed = await sandbox.read(b"hog-in-c", None, "text/plain")
    assert 0 < small.peak < MEMORY // 8 < large.peak < killed.peak <= MEMORY


async def test_several_documents_are_read_at_once_by_as_many_processes(make: Make) -> None:
    sandbox = make(timeout=3.0, children=2)
    outcomes = await asyncio.gather(
        do(sandbox, "sleep"), *(do(sandbox, "pid") for _ in range(10)), return_exceptions=True
    )
    assert isinstance(outcomes[0], Quarantined)
    assert {type(o) for o in outcomes[1:]} == {Parsed}


async def test_after_close_no_process_is_left(make: Make) -> None:
    sandbox = make(children=2)
    answers = await asyncio.gather(*(do(sandbox, wish, "ours") for wish in ("pid", "pid", "parent")))
    await sandbox.close()
    assert not any(is_running(int(answer.text)) for answer in answers)
    with pytest.raises(ParserUnavailable):
        await do(sandbox, "hello")


async def test_close_ends_documents_under_way(make: Make) -> None:
    sandbox = make()
    await do(sandbox, "hello")
    under_way = asyncio.create_task(do(sandbox, "sleep"))
    await asyncio.sleep(0.2)
    await sandbox.close()
    with pytest.raises(ParserUnavailable):
        await under_way


async def test_a_cancelled_document_does_not_disturb_the_next(make: Make) -> None:
    sandbox = make()
    pid = int((await do(sandbox, "pid", "ours")).text)
    under_way = asyncio.create_task(do(sandbox, "sleep", "ours"))
    await asyncio.sleep(0.2)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert not is_running(pid)
    assert (await do(sandbox, "hello", "ours")).text == "hello"


async def test_a_busy_reader_ends_when_its_parent_is_killed() -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        sys.path.append(sys.argv[1])
        from ingestion.sandbox import Sandbox
        async def main():
            sandbox = Sandbox(60, 2**29, reader="hostile_reader:parse")
            print((await sandbox.parse(b"pid", None, "text/plain", tenant="ours")).text, flush=True)
            await sandbox.parse(b"loop", None, "text/plain", tenant="ours")
        asyncio.run(main())
    """)
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", script, str(here)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=here.parents[1])
    assert parent.stdout is not None
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert is_running(pid)
    await asyncio.sleep(0.2)  # Let it begin the document that never ends.
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended = await has_ended(pid)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended


async def test_a_limit_that_leaves_no_room_to_start_is_told() -> None:
    sandbox = Sandbox(10, 2**29, reader="no_such_module:parse")
    with pytest.raises(ParserUnavailable, match="no_such_module"):
        await sandbox.parse(b"hello", None, "text/plain")
    await sandbox.close()


async def test_refusals_and_text_come_through_as_they_are() -> None:
    sandbox = Sandbox(30, MEMORY)
    try:
        parsed = await sandbox.parse("# Título\n\nß 日本 😀\n".encode(), "a.md", None)
        assert (parsed.title, parsed.text) == ("Título", "Título\n\nß 日本 😀")
        assert [(b.kind, b.level) for b in parsed.blocks] == [("heading", 1), ("paragraph", 0)]
        with pytest.raises(UnsupportedType, match="PNG"):
            await sandbox.parse(b"\x89PNG\r\n\x1a\n" + bytes(20), "a.pdf", None)
        with pytest.raises(Quarantined) as caught:
            await sandbox.parse(b"%PDF-1.4 nothing", "a.pdf", None)
        assert caught.value.reason == "damaged"
    finally:
        await sandbox.close()
