"""An erasure takes out all that it says it did, whatever goes on beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import documents
from ingestion.blobs import Blobs
from ingestion.documents import Accepted
from ingestion.erase import Eraser, erase
from ingestion.erasesteps import FilesStep, LedgerStep
from ingestion.erasing import Erasing
from ingestion.errors import Conflict
from ingestion.forgetter import Forgetter
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.receipts import Receipts
from ingestion.types import Erasure, Job, Lease, NewDocument
from ingestion.written import Flip, Written
from retrieval.types import Filter

ACME = Filter(tenant="acme", groups=None)
ONE = Filter(tenant="acme", groups=None, document_ids=("one",))
TABLES = ("documents", "versions", "revisions", "jobs", "loose_files", "idempotency", "erased")


@pytest.fixture
def erasing(engine: AsyncEngine) -> Erasing:
    return Erasing(engine)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


@pytest.fixture
def intake(ledger: Ledger, blobs: Blobs) -> Intake:
    return Intake(ledger, blobs, upload_limit=2**20)


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    return Receipts(str(tmp_path / "receipts"))


@pytest.fixture
def eraser(erasing: Erasing, blobs: Blobs, receipts: Receipts) -> Eraser:
    return Eraser(erasing, [FilesStep(erasing, blobs), LedgerStep(erasing, receipts)], receipts)


async def put(intake: Intake, content: bytes, name: str = "one") -> None:
    once = f"{name}-{content.decode()}"
    await intake.put("acme", [NewDocument(content=content, id=name)], idempotency_key=once)


async def left(engine: AsyncEngine) -> dict[str, int]:
    """Rows of each table that knows of documents, where there are any."""
    async with engine.connect() as connection:
        counts = {name: await connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in TABLES}
    return {name: count for name, count in counts.items() if count}


async def test_what_is_put_again_between_the_choice_of_deleted_ones_and_of_others_is_erased_too(
    erasing: Erasing, eraser: Eraser, intake: Intake, engine: AsyncEngine, tmp_path: Path
) -> None:
    await put(intake, b"first")
    await intake.delete("acme", None, "one")
    erasure = await erasing.begin(ACME, "tenant", "test")
    await put(intake, b"second")
    await erasing.choose(erasure, ACME, "")
    await erasing.chosen(erasure)
    await eraser.work(asyncio.Event())
    assert await left(engine) == {}
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    done = await erasing.one("acme", erasure.id)
    assert (done.state, done.documents) == ("finished", 1)


async def test_what_is_handed_in_again_before_it_is_forgotten_stays_whole_and_out_of_the_receipt(
    erasing: Erasing,
    eraser: Eraser,
    receipts: Receipts,
    intake: Intake,
    engine: AsyncEngine,
    ledger: Ledger,
    lease_one: Callable[..., Awaitable[Lease]],
    written: Callable[[Lease], Awaitable[Written]],
    show: Callable[[], Awaitable[tuple[Flip, int]]],
) -> None:
    await put(intake, b"first")
    _, revision = await show()
    erasure = await erase(erasing, ONE, "documents", "test")
    (job,) = await intake.put("acme", [NewDocument(content=b"second", id="one")], idempotency_key="again")
    done = await written(await lease_one())
    await eraser.work(asyncio.Event())
    finished = await erasing.one("acme", erasure.id)
    assert finished.stores["files"].removed == 1
    receipt = receipts.get(erasure.id)
    assert receipt is not None
    assert [one["revisions"] for one in receipt.body["documents"]] == [[revision]]
    assert await ledger.flip([done]) == {job.id: "flipped"}
    assert (await intake.original("acme", None, "one"))[1] == b"second"
    assert await intake.put("acme", [NewDocument(content=b"second", id="one")], idempotency_key="again") == [
        await ledger.job("acme", job.id)
    ]
    assert {"documents": 1, "versions": 1, "jobs": 1}.items() <= (await left(engine)).items()


async def test_what_is_deleted_again_before_it_is_forgotten_can_be_erased_again(
    erasing: Erasing, eraser: Eraser, intake: Intake, engine: AsyncEngine
) -> None:
    await put(intake, b"first")
    await erase(erasing, ONE, "documents", "test")
    await put(intake, b"second")
    await intake.delete("acme", None, "one")
    await eraser.work(asyncio.Event())
    await intake.erase(ONE, "documents", "test")
    await eraser.work(asyncio.Event())
    assert await left(engine) == {}


async def test_whoever_chooses_and_stood_still_until_it_was_taken_on_without_him_is_told(
    erasing: Erasing, eraser: Eraser, intake: Intake, engine: AsyncEngine, ledger: Ledger
) -> None:
    """What comes after what a receipt is about is neither deleted nor said to be erased."""
    await put(intake, b"one", "one")
    erasure = await erasing.begin(ACME, "tenant", "test")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE erasures SET touched_at = now() - interval '61 s'"))
    await eraser.work(asyncio.Event())
    with pytest.raises(Conflict):
        await erasing.choose(erasure, ACME, "")
    assert (await erasing.one("acme", erasure.id)).documents == 0
    assert (await ledger.document("acme", None, "one")).status == "queued"


async def test_a_put_that_found_the_file_of_an_erased_document_there_keeps_it(
    erasing: Erasing, eraser: Eraser, intake: Intake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure leaves no note that the file is gone: that names its hash."""
    await put(intake, b"content")
    accept = ledger.put

    async def late(*given: object) -> list[Job]:
        erasure = await erasing.begin(ACME, "tenant", "test")
        await erasing.choose(erasure, ACME, "")
        await erasing.chosen(erasure)
        await eraser.work(asyncio.Event())
        return await accept(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "put", late)
    await put(intake, b"content", "two")
    _, content = await intake.original("acme", None, "two")
    assert content == b"content"


async def test_an_eraser_that_was_killed_after_it_signed_leaves_the_receipt_as_it_is(
    erasing: Erasing,
    eraser: Eraser,
    receipts: Receipts,
    intake: Intake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the receipt says of the documents is known from its draft only, which is gone."""
    await put(intake, b"content")
    erasure = await erase(erasing, ACME, "tenant", "test")

    async def killed(*given: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
        patched.setattr(erasing, "finish", killed)
        await eraser.work(asyncio.Event())
    signed = receipts.get(erasure.id)
    assert signed is not None
    assert len(signed.body["documents"]) == 1
    await eraser.work(asyncio.Event())
    assert (await erasing.one("acme", erasure.id)).state == "finished"
    assert receipts.get(erasure.id) == signed
    assert {path.suffix for path in (tmp_path / "receipts").glob(f"{erasure.id}*")} == {".json"}


async def test_an_eraser_that_begins_at_once_takes_the_collections_name_along(
    erasing: Erasing, eraser: Eraser, intake: Intake, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(intake, b"content")
    chosen = Erasing.chosen

    async def and_erased(self: Erasing, erasure: Erasure) -> None:
        await chosen(self, erasure)
        await eraser.work(asyncio.Event())

    monkeypatch.setattr(Erasing, "chosen", and_erased)
    which = Filter(tenant="acme", groups=None, collections=("default",))
    assert (await intake.erase(which, "collection", "test")).state == "finished"
    async with engine.connect() as connection:
        assert (await connection.scalars(text("SELECT name FROM collections"))).all() == []


async def test_a_collection_that_is_filled_again_while_it_is_forgotten_stays_known(
    erasing: Erasing,
    intake: Intake,
    ledger: Ledger,
    engine: AsyncEngine,
    somebody_waits: Callable[[], Awaitable[None]],
) -> None:
    """Without its row nothing raises its epoch, and what was answered from it before is answered again."""
    await put(intake, b"content")
    erasure = await erase(erasing, ACME, "tenant", "test")
    while await erasing.forget(erasure):
        pass
    again = Accepted(
        id="again",
        collection="default",
        title=None,
        filename=None,
        media_type="text/plain",
        size=1,
        content_hash=64 * "0",
        metadata={},
        groups=frozenset(),
    )
    async with engine.begin() as connection:
        await documents.put(connection, "acme", [again], None, None)
        forgetting = asyncio.create_task(erasing.forget_collections(erasure))
        await somebody_waits()
    await forgetting
    assert await ledger.known_collections("acme", None, ["default"]) == {"default"}


async def test_an_eraser_at_work_keeps_no_forgetter_away(
    erasing: Erasing,
    ledger: Ledger,
    engine: AsyncEngine,
    accept: Callable[..., Awaitable[Job]],
    show: Callable[[], Awaitable[tuple[Flip, int]]],
) -> None:
    """It looks for work every second; whoever walks through a large ledger would never come to the end."""
    for n in range(3):
        await accept("pay", f"text {n}")
        await show()
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM loose_files"))
        for column in ("versions SET created_at = created_at", "jobs SET finished_at = finished_at"):
            await connection.execute(text(f"UPDATE {column} - interval '31 days'"))
        await connection.execute(text("UPDATE revisions SET state = 'swept' WHERE state = 'retired'"))
    async with erasing.next():
        await Forgetter(ledger, age=30 * 86_400.0).forget(asyncio.Event())
    assert (await left(engine))["versions"] == 1
