"""Files of versions that nobody needs are removed, others never; and a put of the same bytes meanwhile keeps
its file, however the two overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.blobs import Blobs
from ingestion.errors import NotFound
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.purger import Purger
from ingestion.sweeper import Sweeper
from ingestion.types import Job, Lease, NewDocument
from ingestion.written import Flip
from retrieval.errors import StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import IndexSpec

Show = Callable[[], Awaitable[tuple[Flip, int]]]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path))


@pytest.fixture
def intake(ledger: Ledger, blobs: Blobs) -> Intake:
    return Intake(ledger, blobs, upload_limit=2**20)


@pytest.fixture
def purger(ledger: Ledger, store: MemoryStore, blobs: Blobs) -> Purger:
    return Purger(ledger, store, blobs, window=0.0)


async def put(intake: Intake, content: bytes, name: str = "one", tenant: str = "acme") -> None:
    await intake.put(tenant, [NewDocument(content=content, id=name)])


def files(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_replaced_file_goes_once_the_new_version_is_shown(
    intake: Intake, purger: Purger, show: Show, tmp_path: Path
) -> None:
    await put(intake, b"first")
    await show()
    await put(intake, b"second")
    await purger.collect()
    assert files(tmp_path) == {b"first", b"second"}, "readers still see the first"
    await show()
    await purger.collect()
    assert files(tmp_path) == {b"second"}


async def test_a_deleted_documents_file_goes_and_another_documents_stays(
    intake: Intake, purger: Purger, tmp_path: Path
) -> None:
    await put(intake, b"shared")
    await put(intake, b"shared", "two")
    await put(intake, b"own", "three")
    await intake.delete("acme", None, "one")
    await intake.delete("acme", None, "three")
    assert await purger.collect() == 1
    assert files(tmp_path) == {b"shared"}
    await intake.delete("acme", None, "two")
    assert await purger.collect() == 1
    assert files(tmp_path) == set()
    assert await purger.collect() == 0, "what is gone is not removed again"


async def test_one_tenants_deletion_leaves_anothers_file(
    intake: Intake, purger: Purger, blobs: Blobs
) -> None:
    await put(intake, b"the same")
    await put(intake, b"the same", tenant="umbrella")
    await intake.delete("acme", None, "one")
    await purger.collect()
    document, content = await intake.original("umbrella", None, "one")
    assert content == b"the same"
    with pytest.raises(NotFound):
        await blobs.get("acme", document.content_hash)


async def test_a_file_is_not_removed_before_its_time(
    ledger: Ledger, store: MemoryStore, blobs: Blobs, intake: Intake, tmp_path: Path
) -> None:
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    await Purger(ledger, store, blobs, window=60.0).collect()
    assert files(tmp_path) == {b"content"}


async def test_files_that_were_loose_for_long_before_a_purger_came_go_all(
    intake: Intake, purger: Purger, engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.ledger.FILE_BATCH", 1)
    for name in ("one", "two", "three"):
        await put(intake, name.encode(), name)
        await intake.delete("acme", None, name)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE loose_files SET since = since - interval '2 days'"))
    while await purger.collect():
        pass
    assert files(tmp_path) == set()


async def test_a_put_waits_for_whoever_removes_the_file_that_it_found_there(
    intake: Intake,
    ledger: Ledger,
    blobs: Blobs,
    somebody_waits: Callable[[], Awaitable[None]],
) -> None:
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    async with ledger.loose_files(0.0) as due:
        putting = asyncio.create_task(put(intake, b"content", "two"))
        await somebody_waits()
        assert not putting.done()
        for tenant, digest in due:
            await blobs.remove(tenant, digest)
    await putting
    assert (await intake.original("acme", None, "two"))[1] == b"content"


async def test_a_put_that_found_the_file_there_keeps_it_though_it_is_removed_meanwhile(
    intake: Intake, ledger: Ledger, purger: Purger, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are stored, then removed as nobody's, and only then is the document accepted."""
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    accept = ledger.put

    async def late(*given: object) -> list[Job]:
        assert await purger.collect() == 1
        return await accept(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "put", late)
    await put(intake, b"content", "two")
    _, content = await intake.original("acme", None, "two")
    assert content == b"content"


async def test_a_put_that_found_the_file_there_keeps_it_though_whoever_removed_it_was_killed(
    intake: Intake, ledger: Ledger, purger: Purger, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing says that it is gone; and another purger may look before the put is over."""
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    accept, restore = ledger.put, ledger.restore_files

    async def late(*given: object) -> list[Job]:
        with pytest.raises(asyncio.CancelledError):
            async with ledger.loose_files(0.0) as due:
                for tenant, digest in due:
                    await blobs.remove(tenant, digest)
                raise asyncio.CancelledError
        return await accept(*given)  # type: ignore[arg-type]

    async def later(*given: object) -> None:
        await purger.collect()
        await restore(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "put", late)
    monkeypatch.setattr(ledger, "restore_files", later)
    await put(intake, b"content", "two")
    _, content = await intake.original("acme", None, "two")
    assert content == b"content"


async def test_a_file_that_was_stored_again_by_a_put_that_broke_off_goes_with_its_document(
    intake: Intake, ledger: Ledger, purger: Purger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still noted as gone."""
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    await purger.collect()

    async def killed(*given: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
        patched.setattr(ledger, "restore_files", killed)
        await put(intake, b"content", "two")
    assert files(tmp_path) == {b"content"}
    await intake.delete("acme", None, "two")
    await purger.collect()
    assert files(tmp_path) == set()


async def test_a_file_that_a_document_has_again_is_looked_at_no_more_in_time(
    intake: Intake, purger: Purger, engine: AsyncEngine
) -> None:
    await put(intake, b"content")
    await intake.delete("acme", None, "one")
    await put(intake, b"content")
    for seconds, left in ((0, 1), (3_700, 0)):
        async with engine.begin() as connection:
            past = f"UPDATE documents SET updated_at = updated_at - interval '{seconds} s'"
            await connection.execute(text(past))
        await purger.collect()
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM loose_files")) == left


async def test_puts_and_deletions_of_the_same_bytes_at_once_lose_no_accepted_file(
    intake: Intake, purger: Purger
) -> None:
    stop = asyncio.Event()

    async def collecting() -> None:
        while not stop.is_set():
            await purger.collect()
            await asyncio.sleep(0)

    async def going_on(name: str) -> None:
        for _ in range(8):
            await put(intake, b"the same bytes", name)
            assert (await intake.original("acme", None, name))[1] == b"the same bytes"
            await intake.delete("acme", None, name)
        await put(intake, b"the same bytes", name)

    async with asyncio.TaskGroup() as group:
        group.create_task(collecting())
        async with asyncio.TaskGroup() as writers:
            for n in range(4):
                writers.create_task(going_on(f"writer-{n}"))
        stop.set()
    for n in range(4):
        assert (await intake.original("acme", None, f"writer-{n}"))[1] == b"the same bytes"


async def test_what_was_removed_is_purged_soon_and_again_when_the_store_was_away(
    ledger: Ledger, blobs: Blobs, spec: IndexSpec
) -> None:
    asked: list[str] = []

    class Store(MemoryStore):
        async def purge(self, generation: str) -> bool:
            asked.append(generation)
            if len(asked) == 1:
                raise StoreUnavailable("away")
            return True

    purger = Purger(ledger, Store(), blobs, window=0.0, quiet=0.0)
    stop = asyncio.Event()
    running = asyncio.create_task(purger.run(stop))
    async with asyncio.timeout(20):
        while len(asked) < 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.5)
    stop.set()
    await running
    assert asked == [spec.generation] * 2, "nothing was removed since"


async def test_the_sweeper_tells_when_it_removed_rows(
    ledger: Ledger,
    store: MemoryStore,
    engine: AsyncEngine,
    accept: Callable[..., Awaitable[Job]],
    lease_one: Callable[..., Awaitable[Lease]],
    show: Show,
) -> None:
    told: list[bool] = []
    sweeper = Sweeper(ledger, store, lease=0, call_deadline=0, removed=lambda: told.append(True))
    await accept("handbook")
    await show()
    await sweeper.sweep()
    assert told == []
    await ledger.delete("acme", None, "handbook")
    await sweeper.sweep()
    assert told == [True]
    async with engine.connect() as connection:
        states = await connection.scalars(text("SELECT state FROM revisions"))
        assert set(states) <= {"retired", "swept"}
