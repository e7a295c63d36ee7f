"""What is accepted is durable, what is refused leaves no trace, and the same key means the same request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion import documents
from ingestion.blobs import Blobs
from ingestion.documents import Claim
from ingestion.errors import (
    Conflict,
    DocumentInvalid,
    DocumentTooLarge,
    EmptyDocument,
    IdempotencyConflict,
    NotFound,
    Refused,
    StorageUnavailable,
    UnsupportedType,
)
from ingestion.intake import Intake
from ingestion.ledger import Ledger
from ingestion.types import Job, JobQuery, NewDocument
from ingestion.written import Flip

Show = Callable[[], Awaitable[tuple[Flip, int]]]
PAGE = NewDocument(id="page", content=b"text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def intake(ledger: Ledger, folder: Path) -> Intake:
    return Intake(ledger, Blobs(str(folder)), upload_limit=1_000)


async def _nothing_recorded(intake: Intake) -> bool:
    documents, _ = await intake.list_documents("acme", None, collection=None, after=None, limit=10)
    return not documents and not await intake.jobs("acme", JobQuery(), limit=10)


async def test_an_accepted_document_is_recorded_with_all_that_was_said(intake: Intake) -> None:
    document = NewDocument(
        id="leave",
        content=b"thirty days",
        collection="policies",
        title="Paid leave",
        filename="leave.md",
        metadata={"year": 2026, "draft": False, "share": 0.5, "tags": ["hr", "ü"]},
        groups=frozenset({"staff"}),
    )
    (job,) = await intake.put("acme", [document])
    assert (job.state, job.stage, job.document_id) == ("queued", "waiting", "leave")
    found, content = await intake.original("acme", None, "leave")
    assert content == b"thirty days"
    assert (found.title, found.filename, found.media_type) == ("Paid leave", "leave.md", "text/markdown")
    assert (found.metadata, found.groups) == (document.metadata, document.groups)
    assert (found.size, found.content_hash) == (11, hashlib.sha256(b"thirty days").hexdigest())
    assert (found.version, found.visible, found.chunks) == (job.version, False, 0)


async def test_a_thousand_documents_are_accepted_in_their_order(intake: Intake) -> None:
    documents = [NewDocument(id=f"p{n * 7919 % 1000}", content=b"%d" % n) for n in range(1000)]
    jobs = await intake.put("acme", documents)
    assert [job.document_id for job in jobs] == [document.id for document in documents]
    assert [job.state for job in jobs] == ["queued"] * 1000
    now = await intake.queue(None)
    assert (now.queued, now.running) == (1000, 0)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("handbook/paid leave (2026).md", "handbook:paid-leave--2026-.md"),
        ("///", "doc-" + hashlib.sha256(b"text").hexdigest()[:16]),
        (None, "doc-" + hashlib.sha256(b"text").hexdigest()[:16]),
    ],
)
async def test_a_document_without_an_id_gets_one(intake: Intake, filename: str | None, expected: str) -> None:
    (job,) = await intake.put("acme", [NewDocument(content=b"text", filename=filename)])
    assert job.document_id == expected


async def test_file_names_of_other_alphabets_stay_apart(intake: Intake) -> None:
    names = ("日本.txt", "中国.txt", "ü.txt", "u\u0308.txt")
    jobs = [await intake.put("acme", [NewDocument(content=b"text", filename=name)]) for name in names]
    ids = [job.document_id for (job,) in jobs]
    assert len(set(ids)) == 3
    assert ids[2] == ids[3]


async def test_long_file_names_that_begin_alike_stay_apart(intake: Intake) -> None:
    documents = [NewDocument(content=b"text", filename="x" * 250 + f"{n}.txt") for n in range(2)]
    ids = {job.document_id for job in await intake.put("acme", documents)}
    assert len(ids) == 2
    assert all(len(one) <= 200 for one in ids)


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"content": b""}, EmptyDocument, "documents[0].content"),
        ({"content": b"x" * 1_001}, DocumentTooLarge, "documents[0].content"),
        ({"content": b"\x89PNG\r\n\x1a\n\0\0"}, UnsupportedType, "documents[0].content"),
        ({"content": b"text", "filename": "a.pdf"}, UnsupportedType, "documents[0].content"),
        ({"id": "a/b"}, DocumentInvalid, "documents[0].id"),
        ({"id": ""}, DocumentInvalid, "documents[0].id"),
        ({"id": "x" * 201}, DocumentInvalid, "documents[0].id"),
        ({"collection": "Policies"}, DocumentInvalid, "documents[0].collection"),
        ({"collection": ""}, DocumentInvalid, "documents[0].collection"),
        ({"title": "a\0b"}, DocumentInvalid, "documents[0].title"),
        ({"title": "\ud800"}, DocumentInvalid, "documents[0].title"),
        ({"filename": "a\0b"}, DocumentInvalid, "documents[0].filename"),
        ({"groups": frozenset({"a b"})}, DocumentInvalid, "documents[0].groups"),
        ({"groups": frozenset(map(str, range(65)))}, DocumentInvalid, "documents[0].groups"),
        ({"metadata": {"a-b": 1}}, DocumentInvalid, "documents[0].metadata"),
        ({"metadata": {f"k{n}": 1 for n in range(65)}}, DocumentInvalid, "documents[0].metadata"),
        ({"metadata": {f"k{n}": n for n in range(17)}}, DocumentInvalid, "documents[0].metadata"),
        ({"metadata": {"k": float("nan")}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": 2**63}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": None}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": {"a": 1}}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": ["a", 1]}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": "a\0"}}, DocumentInvalid, "documents[0].metadata.k"),
        ({"metadata": {"k": "x" * 16_385}}, DocumentInvalid, "documents[0].metadata"),
    ],
)
async def test_what_cannot_be_accepted_is_refused_by_name_and_nothing_is_recorded(
    intake: Intake, changes: dict[str, Any], error: type[Refused], param: str
) -> None:
    with pytest.raises(error) as raised:
        await intake.put("acme", [replace(PAGE, **changes), NewDocument(id="good", content=b"text")])
    assert raised.value.param == param
    assert await _nothing_recorded(intake)


async def test_two_documents_of_one_request_with_the_same_id_are_refused(intake: Intake) -> None:
    with pytest.raises(DocumentInvalid, match="same id 'page'"):
        await intake.put("acme", [PAGE, replace(PAGE, content=b"other")])


async def test_storage_that_cannot_be_written_refuses_and_records_nothing(
    intake: Intake, folder: Path
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        await intake.put("acme", [PAGE])
    assert await _nothing_recorded(intake)
    folder.unlink()
    assert len(await intake.put("acme", [PAGE])) == 1


async def test_the_same_key_and_documents_lead_to_the_same_jobs(intake: Intake) -> None:
    documents = [PAGE, NewDocument(id="other", content=b"text")]
    first = await intake.put("acme", documents, idempotency_key="k1")
    again = await intake.put("acme", documents, idempotency_key="k1")
    assert [job.id for job in again] == [job.id for job in first]
    other = await intake.put("acme", documents, idempotency_key="k2")
    assert not {job.id for job in other} & {job.id for job in first}


async def test_the_same_key_sent_twice_at_once_is_accepted_once(intake: Intake) -> None:
    answers = await asyncio.gather(*(intake.put("acme", [PAGE], idempotency_key="k") for _ in range(5)))
    assert len({job.id for jobs in answers for job in jobs}) == 1
    assert len(await intake.jobs("acme", JobQuery(), limit=10)) == 1


async def test_a_key_that_is_forgotten_while_it_is_sent_again_accepts_anew(
    intake: Intake, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await intake.put("acme", [PAGE], idempotency_key="k")
    asked: list[bool] = []

    async def forgotten(connection: AsyncConnection, tenant: str, claim: Claim) -> list[Job] | None:
        asked.append(True)
        if len(asked) == 2:
            async with engine.begin() as another:
                await another.execute(text("DELETE FROM idempotency"))
        return None

    monkeypatch.setattr(documents, "replayed", forgotten)
    (again,) = await intake.put("acme", [PAGE], idempotency_key="k")
    assert again.id != first.id
    assert len(asked) == 2


async def test_the_same_key_with_other_documents_is_a_conflict(intake: Intake) -> None:
    await intake.put("acme", [PAGE], idempotency_key="k")
    for changed in (
        replace(PAGE, content=b"other"),
        replace(PAGE, metadata={"a": 1}),
        replace(PAGE, groups=frozenset({"hr"})),
    ):
        with pytest.raises(IdempotencyConflict):
            await intake.put("acme", [changed], idempotency_key="k")


async def test_a_key_belongs_to_one_tenant(intake: Intake) -> None:
    await intake.put("acme", [PAGE], idempotency_key="k")
    (job,) = await intake.put("other", [replace(PAGE, content=b"other")], idempotency_key="k")
    assert job.tenant == "other"


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "a\0"])
async def test_a_malformed_key_is_refused(intake: Intake, key: str) -> None:
    with pytest.raises(DocumentInvalid):
        await intake.put("acme", [PAGE], idempotency_key=key)


async def test_documents_are_listed_page_by_page(intake: Intake) -> None:
    await intake.put("acme", [NewDocument(id=f"p{n}", content=b"text") for n in range(5)])
    await intake.put("acme", [NewDocument(id="z", content=b"text", collection="other")])
    await intake.delete("acme", None, "p3")
    ids: list[str] = []
    after: str | None = None
    for _ in range(3):
        page, after = await intake.list_documents("acme", None, collection="default", after=after, limit=2)
        ids += [document.id for document in page]
        if after is None:
            break
    assert ids == ["p0", "p1", "p2", "p4"]
    assert after is None


@pytest.mark.parametrize(
    ("named", "ids"),
    [
        ("leave", ["hr:leave.md", "policy", "x"]),
        ("LEAVE  paid", ["policy"]),
        ("über", ["x"]),
        ("hr:", ["hr:leave.md"]),
        ("%", []),
        ("", ["hr:leave.md", "other", "policy", "x"]),
    ],
)
async def test_documents_are_found_by_words_of_their_names(
    intake: Intake, named: str, ids: list[str]
) -> None:
    await intake.put(
        "acme",
        [
            NewDocument(content=b"text", filename="hr/leave.md"),
            NewDocument(id="policy", content=b"text", title="Paid leave"),
            NewDocument(id="x", content=b"text", filename="über Leave.txt"),
            NewDocument(id="other", content=b"leave", title="Expenses"),
        ],
    )
    await intake.put("globex", [NewDocument(id="theirs", content=b"text", title="Paid leave")])
    found: list[str] = []
    after: str | None = None
    while True:
        page, after = await intake.list_documents(
            "acme", None, collection="default", after=after, limit=1, named=named
        )
        found += [document.id for document in page]
        if after is None:
            break
    assert found == ids


@pytest.mark.parametrize("document_id", ["unknown", "a/b", "\0", "x" * 500])
async def test_an_unknown_document_is_not_found(intake: Intake, document_id: str) -> None:
    for ask in (intake.get, intake.original, intake.delete):
        with pytest.raises(NotFound):
            await ask("acme", None, document_id)


async def test_a_deleted_document_is_not_found(intake: Intake) -> None:
    await intake.put("acme", [PAGE])
    deleted = await intake.delete("acme", None, "page")
    assert deleted.id == "page"
    for ask in (intake.get, intake.original, intake.delete):
        with pytest.raises(NotFound):
            await ask("acme", None, "page")


async def test_collections_are_known_from_their_first_document_on(intake: Intake) -> None:
    await intake.require_collections("acme", None, [])
    with pytest.raises(NotFound, match="default"):
        await intake.require_collections("acme", None, ["default"])
    await intake.put("acme", [PAGE])
    await intake.require_collections("acme", None, ["default"])
    for name in ("other", "\0", "Default"):
        with pytest.raises(NotFound):
            await intake.require_collections("acme", None, ["default", name])
    with pytest.raises(NotFound):
        await intake.require_collections("other", None, ["default"])


async def test_a_watched_job_is_told_at_once_and_after_every_change(
    intake: Intake, ledger: Ledger, show: Show
) -> None:
    (job,) = await intake.put("acme", [PAGE])
    states = []
    async for now in intake.watch("acme", job.id):
        states.append(now.state)
        if now.state == "queued":
            await show()
    assert states == ["queued", "succeeded"]
    with pytest.raises(Conflict):
        await intake.cancel("acme", job.id)


async def test_a_cancelled_job_can_be_tried_again(intake: Intake) -> None:
    (job,) = await intake.put("acme", [PAGE])
    assert (await intake.cancel("acme", job.id)).state == "cancelled"
    assert (await intake.retry("acme", job.id)).state == "queued"


async def test_intake_answers_a_ping(intake: Intake) -> None:
    await intake.ping()


async def test_two_documents_swap_their_contents_at_once(intake: Intake) -> None:
    """Both files are loose already, so each put takes up what the other puts down."""
    contents = (b"one", b"two")
    for name in ("a", "b"):
        for content in (*contents, b"neither"):
            await intake.put("acme", [NewDocument(id=name, content=content)])
    for turn in range(60):
        first, second = contents[turn % 2], contents[1 - turn % 2]
        await asyncio.gather(
            intake.put("acme", [NewDocument(id="a", content=first)]),
            intake.put("acme", [NewDocument(id="b", content=second)]),
        )
