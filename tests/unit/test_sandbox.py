from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ingestion.errors import ParserUnavailable, Quarantined, UnsupportedType
from ingestion.sandbox import Sandbox
from ingestion.types import Parsed

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


async def do(sandbox: Sandbox, wish: str) -> Parsed:
    return await sandbox.parse(wish.encode(), None, "text/plain")


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
    """Whether it ends within five seconds: the kernel takes a moment over a kill."""
    for _ in range(500):
        if not is_running(pid):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("wish", ["loop", "sleep"])
async def test_a_document_that_never_ends_is_stopped_and_the_next_one_is_read(make: Make, wish: str) -> None:
    sandbox = make(timeout=1.0)
    error = await fate(sandbox, wish)
    assert (error.reason, error.part) == ("timeout", "page 7")
    assert (await do(sandbox, "hello")).text == "hello"


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


async def test_a_reader_killed_from_outside_gets_another_try(make: Make, tmp_path: Path) -> None:
    marker = tmp_path / "first"
    marker.touch()
    assert (await do(make(), f"once {marker}")).text == "second try"


async def test_a_reader_that_died_between_documents_is_replaced(make: Make) -> None:
    sandbox = make()
    pid = int((await do(sandbox, "pid")).text)
    os.kill(pid, signal.SIGKILL)
    assert int((await do(sandbox, "pid")).text) != pid


async def test_a_reader_cannot_write_files(make: Make, tmp_path: Path) -> None:
    target = tmp_path / "written"
    assert (await do(make(), f"write {target}")).text == "OSError"
    assert not target.exists() or target.read_bytes() == b""


async def test_a_reader_sees_none_of_the_parents_environment(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    names = (await do(make(), "environment")).text.split()
    assert "PYTHONPATH" in names
    assert not {"DATABASE_URL", "HOME", "PATH"} & set(names)


async def test_a_small_document_starts_no_process_of_its_own(make: Make) -> None:
    sandbox = make()
    pids = {(await do(sandbox, "pid")).text for _ in range(50)}
    assert len(pids) == 1


async def test_a_reader_is_replaced_after_its_number_of_documents(make: Make) -> None:
    sandbox = make(recycle=2)
    pids = [(await do(sandbox, "pid")).text for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not is_running(int(pids[0]))


async def test_several_documents_are_read_at_once_by_as_many_processes(make: Make) -> None:
    sandbox = make(timeout=1.0, children=2)
    outcomes = await asyncio.gather(
        do(sandbox, "sleep"), *(do(sandbox, "pid") for _ in range(10)), return_exceptions=True
    )
    assert isinstance(outcomes[0], Quarantined)
    assert {type(o) for o in outcomes[1:]} == {Parsed}


async def test_after_close_no_process_is_left(make: Make) -> None:
    sandbox = make(children=2)
    answers = await asyncio.gather(do(sandbox, "pid"), do(sandbox, "pid"))
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
    pid = int((await do(sandbox, "pid")).text)
    under_way = asyncio.create_task(do(sandbox, "sleep"))
    await asyncio.sleep(0.2)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert not is_running(pid)
    assert (await do(sandbox, "hello")).text == "hello"


async def test_what_a_reader_started_ends_with_it(make: Make) -> None:
    sandbox = make()
    forked = int((await do(sandbox, "fork")).text)
    await sandbox.close()
    assert forked == 0 or await has_ended(forked)


async def test_a_busy_reader_ends_when_its_parent_is_killed() -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        sys.path.append(sys.argv[1])
        from ingestion.sandbox import Sandbox
        async def main():
            sandbox = Sandbox(60, 2**29, reader="hostile_reader:parse")
            print((await sandbox.parse(b"pid", None, "text/plain")).text, flush=True)
            await sandbox.parse(b"loop", None, "text/plain")
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
