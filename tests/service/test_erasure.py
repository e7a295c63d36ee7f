"""Erased is erased: planted text and its vector are in no byte of any store afterwards; and the scan that
says so finds them when any one step is left out."""

from __future__ import annotations

import asyncio
import json
import secrets
import string
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded, migrate
from app.database import connect_args, dsn, open_engine
from app.erasure import OutputsStep, RecordsStep
from ingestion.blobs import Blobs
from ingestion.erase import Eraser, Step, erase, reapply
from ingestion.erasesteps import FilesStep, IndexStep, LedgerStep, LogStep
from ingestion.errors import NotFound
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import ENDED, Intake
from ingestion.ledger import Ledger
from ingestion.parse import parse
from ingestion.reads import Reads
from ingestion.receipts import Receipts
from ingestion.sweeper import Sweeper
from ingestion.types import Attempt, Erasure, Generation, Job, NewDocument, Outcome, Parsed
from ingestion.vacuum import DatabaseStep
from ingestion.worker import Worker
from llm.outputs import RedisOutputs
from retrieval.analyze import analyzer
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Filter, IndexSpec, Row
from tests import canary
from tests.canary import Canary
from tests.conftest import running
from tests.service.ledger.conftest import HashingEmbedder

STORES = {
    "index": "milvus",
    "files": "blobs",
    "outputs": "redis",
    "logs": "logs",
    "ledger": "postgres",
    "database": "postgres",
}
"""What each step clears, and the folder in which the canary stays without it."""
WHOLE, AGAIN = "whole", "again"


class Reader:
    async def parse(
        self,
        content: bytes,
        filename: str | None,
        media_type: str | None,
        *,
        tenant: str | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Parsed:
        return parse(content, filename, media_type)


class Nobody:
    def finished(self, attempt: Attempt) -> None:
        """These tests look at the disk."""


@dataclass
class Bed:
    """An instance's parts, in its data folder, and what works on them in this process."""

    data: Path
    ledger: Ledger
    reads: Reads
    engine: AsyncEngine
    patient: AsyncEngine
    blobs: Blobs
    store: MilvusStore
    outputs: RedisOutputs
    spec: IndexSpec
    dimensions: set[int] = field(default_factory=set)
    """Those of the embedder into which planted words fall."""

    @property
    def intake(self) -> Intake:
        return Intake(self.ledger, self.blobs, upload_limit=2**20)

    @property
    def receipts(self) -> Receipts:
        return Receipts(str(self.data / "receipts"))

    def steps(self) -> list[Step]:
        erasing = self.ledger.erasing
        return [
            IndexStep(self.ledger, erasing, self.store),
            OutputsStep(erasing.documents, self.outputs, self.data),
            FilesStep(erasing, self.blobs),
            LogStep(erasing, self.data / "logs"),
            RecordsStep(self.engine),
            LedgerStep(erasing, self.receipts),
            DatabaseStep(self.patient, self.data),
        ]

    async def index(self, *documents: NewDocument, tenant: str) -> list[Job]:
        """Hand documents in and take them into the index."""

        async def opened(known: Generation) -> Indexer:
            return Indexer(known.spec, HashingEmbedder(), analyzer("plain"))

        jobs = await self.intake.put(tenant, documents)
        worker = Worker(
            self.ledger,
            self.blobs,
            Reader(),
            self.store,
            OpenIndexers(self.ledger, self.store, opened),
            name="w",
            lease=15.0,
            observer=Nobody(),
        )
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop))
        for job in jobs:
            while (await self.ledger.job(tenant, job.id)).state not in ENDED:
                await asyncio.sleep(0.02)
        stop.set()
        await working
        return [await self.ledger.job(tenant, job.id) for job in jobs]

    async def plant(self, tenant: str) -> Canary:
        """A document that says a word of its own everywhere, twice, after what came of it."""
        word = await self._word()
        said = f"# About {word}\n\nThe {word} is told here, and nowhere else.\n"
        for version in ("first", "second"):
            (job,) = await self.index(
                NewDocument(
                    content=f"{said}\nIn its {version} version.\n".encode(),
                    id=f"{word}.md",
                    title=f"All of {word}",
                    filename=f"{word}.md",
                    collection=f"of-{word}",
                    metadata={"code": word, "long": f"{word} " * 150},
                ),
                tenant=tenant,
            )
            assert job.state == "succeeded"
        answer = json.dumps({"question": f"What is {word}?", "answer": f"The {word} is told here."})
        await self.outputs.put(word, answer.encode(), 600.0, [f"{tenant}/{word}.md"])
        await self.outputs.settle()
        with (self.data / "logs" / "api.log").open("a") as log:
            log.write(f'{{"message": "GET /v1/documents/{word}.md 200 1.0 ms"}}\n')
        where = Filter(tenant=tenant, groups=None)
        ((_, revision, _),) = await self.reads.contents(self.spec.generation, where, 1)
        (source,) = await self.store.read(self.spec.generation, tenant, [f"{revision}-0"])
        (vector,) = await HashingEmbedder().embed([f"{source.title}\n{source.heading}\n{source.text}"])
        return Canary(word, vector)

    async def _word(self) -> str:
        """A word whose vector no other planted word has: 64 dimensions are few. It has no vowels: compression
        leaves out what the text around it has as well, and with a piece of English in it too little stays."""
        letters = [letter for letter in string.ascii_lowercase if letter not in "aeiouy"]
        while True:
            word = "".join(secrets.choice(letters) for _ in range(24))
            (vector,) = await HashingEmbedder().embed([word])
            if (dimension := int(vector.argmax())) not in self.dimensions:
                self.dimensions.add(dimension)
                return word

    async def stores_of(self, erasure: Erasure) -> set[str]:
        return set((await self.ledger.erasing.one(erasure.tenant, erasure.id)).stores)

    async def erase(self, which: Filter, *without: str) -> Erasure:
        """Erase it, these steps left out."""
        begun = await erase(self.ledger.erasing, which, "tenant", "test")
        return await self.finish(begun, *without)

    async def finish(self, begun: Erasure, *without: str) -> Erasure:
        sweeper = Sweeper(self.ledger, self.store, lease=0.0, call_deadline=0.0)
        steps = [step for step in self.steps() if step.store not in without]
        eraser = Eraser(self.ledger.erasing, steps, self.receipts)
        async with asyncio.timeout(60):
            while (await self.ledger.erasing.one(begun.tenant, begun.id)).state != "finished":
                await sweeper.sweep()
                await eraser.work(asyncio.Event())
        return await self.ledger.erasing.one(begun.tenant, begun.id)


class Ended(Exception):
    """The process is gone."""


class Killed:
    store = "none"

    async def run(self, erasure: Erasure) -> Outcome:
        raise Ended


@pytest.fixture(scope="module")
def parts(parts_folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    data = parts_folder / "erased"
    sockets = data / "sockets"
    for folder in (data, data / "logs", sockets):
        folder.mkdir(mode=0o711)
    with ExitStack() as stack:
        made = {
            "postgres": embedded.postgres(data / "postgres", sockets),
            "redis": embedded.redis(data / "redis", sockets),
            "milvus": embedded.milvus(data / "milvus", embedded.free_port()),
        }
        urls = {
            name: stack.enter_context(running(part, data / "logs" / f"{name}.log")).url
            for name, part in made.items()
        }
        yield data, urls


@pytest.fixture(scope="module")
async def bed(parts: tuple[Path, dict[str, str]]) -> AsyncIterator[Bed]:
    data, urls = parts
    await migrate.upgrade(urls["postgres"])
    engine, patient = open_engine(urls["postgres"]), open_engine(urls["postgres"], command_timeout=None)
    spec = IndexSpec(
        embedder="hashing",
        dimension=64,
        chunker="structure",
        chunk_tokens=64,
        chunk_overlap=0,
        header_template="{title}\n{heading}\n",
        analyzer="plain",
        parser="1",
    )
    store = MilvusStore(urls["milvus"], flush_seconds=0.01)
    outputs = RedisOutputs(urls["redis"], timeout=5)
    ledger, reads = Ledger(engine), Reads(dsn(urls["postgres"]), connect_args())
    await ledger.ensure_generation(spec, "hashing")
    await store.prepare(spec.generation, spec)
    yield Bed(data, ledger, reads, engine, patient, Blobs(str(data / "blobs")), store, outputs, spec)
    await reads.close()
    await store.close()
    await outputs.aclose()
    await patient.dispose()
    await engine.dispose()


async def test_the_scan_finds_nothing_and_finds_what_any_one_step_would_leave(bed: Bed) -> None:
    canaries = {tenant: await bed.plant(tenant) for tenant in (WHOLE, *STORES)}
    planted = await asyncio.to_thread(canary.found, bed.data, canaries)
    assert all(places >= set(STORES.values()) for places in planted.values()), planted

    # Rewriting the database, and purging the index, serve whatever was erased before: who does without comes
    # after those who do not.
    for store in ("files", "outputs", "logs", "ledger"):
        await bed.erase(Filter(tenant=store, groups=None), store, "database")
    await bed.erase(Filter(tenant=WHOLE, groups=None))
    await bed.erase(Filter(tenant="database", groups=None), "database")
    left = await asyncio.to_thread(canary.found, bed.data, canaries)
    del left["index"]
    assert left == {WHOLE: set()} | {name: {folder} for name, folder in STORES.items() if name != "index"}

    await bed.erase(Filter(tenant="index", groups=None), "index")
    left = await asyncio.to_thread(canary.found, bed.data, canaries)
    assert left["index"] == {STORES["index"]}


async def test_a_receipt_names_every_store_and_its_signature_holds_for_what_it_says(
    bed: Bed, tmp_path: Path
) -> None:
    await bed.plant(AGAIN)
    done = await bed.erase(Filter(tenant=AGAIN, groups=None))
    receipt = bed.receipts.get(done.id)
    assert receipt is not None
    assert (receipt.signed, receipt.ours, receipt.tenant) == (True, True, AGAIN)
    assert set(receipt.body["stores"]) == {step.store for step in bed.steps()}
    assert {one["state"] for one in receipt.body["stores"].values()} == {"done"}
    (named,) = receipt.body["documents"]
    assert named["revisions"]
    assert "md" not in json.dumps(receipt.body["documents"])

    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({**receipt.whole, "count": 7}))
    assert not bed.receipts.read(changed).signed
    assert not Receipts(str(tmp_path)).read(bed.data / "receipts" / f"{done.id}.json").ours


async def test_what_a_restore_brings_back_is_erased_again_by_its_receipt(bed: Bed) -> None:
    """The ledger is set back by hand to how it was before the erasure."""
    planted = await bed.plant(AGAIN)
    where = Filter(tenant=AGAIN, groups=None)
    ((name, revision, _),) = await bed.reads.contents(bed.spec.generation, where, 1)
    (source,) = await bed.store.read(bed.spec.generation, AGAIN, [f"{revision}-0"])
    done = await bed.erase(where)
    receipt = bed.receipts.get(done.id)
    assert receipt is not None

    await bed.store.upsert(
        bed.spec.generation, [Row(chunk=source, vector=planted.vector, terms=planted.word)]
    )
    await bed.index(NewDocument(content=planted.word.encode(), id=name), tenant=AGAIN)
    async with bed.engine.begin() as connection:
        await connection.execute(text("UPDATE documents SET updated_at = now() - interval '1 day'"))
        await connection.execute(text("DELETE FROM erasures"))
    assert bed.receipts.ids() - await bed.ledger.erasing.finished() >= {done.id}

    again = await bed.finish(await reapply(bed.ledger.erasing, receipt, "test"))

    assert again.documents == 1
    assert done.id in await bed.ledger.erasing.finished()
    assert await bed.store.read(bed.spec.generation, AGAIN, [f"{revision}-0"]) == []
    left = await asyncio.to_thread(canary.found, bed.data, {AGAIN: planted})
    assert left == {AGAIN: set()}


async def test_a_file_that_another_document_has_stays(bed: Bed) -> None:
    shared = NewDocument(content=b"The same bytes.", id="one", collection="shared")
    await bed.index(shared, replace(shared, id="other"), tenant=AGAIN)
    await bed.erase(Filter(tenant=AGAIN, groups=None, document_ids=("one",)))
    document, content = await bed.intake.original(AGAIN, None, "other")
    assert (document.visible, content) == (True, b"The same bytes.")
    with pytest.raises(NotFound):
        await bed.intake.get(AGAIN, None, "one")


async def test_an_erasure_that_was_killed_after_any_step_goes_on_where_it_was(bed: Bed) -> None:
    planted = await bed.plant(AGAIN)
    begun = await erase(bed.ledger.erasing, Filter(tenant=AGAIN, groups=None), "tenant", "test")
    sweeper = Sweeper(bed.ledger, bed.store, lease=0.0, call_deadline=0.0)
    while await sweeper.sweep():
        pass
    for n in range(1, len(bed.steps()) + 1):
        # A process that does so many steps of those left, and ends.
        left = [step for step in bed.steps() if step.store not in await bed.stores_of(begun)]
        with pytest.raises(Ended):
            await Eraser(bed.ledger.erasing, [*left[:1], Killed()], bed.receipts).work(asyncio.Event())
        assert len(await bed.stores_of(begun)) == n
    done = await bed.finish(begun)
    receipt = bed.receipts.get(done.id)
    assert receipt is not None
    assert len(receipt.body["documents"]) == done.documents
    left_over = await asyncio.to_thread(canary.found, bed.data, {AGAIN: planted})
    assert left_over == {AGAIN: set()}


async def test_a_document_handed_in_again_meanwhile_stays(bed: Bed) -> None:
    await bed.index(NewDocument(content=b"The old text.", id="again.txt"), tenant=AGAIN)
    begun = await erase(
        bed.ledger.erasing,
        Filter(tenant=AGAIN, groups=None, document_ids=("again.txt",)),
        "documents",
        "test",
    )
    await bed.index(NewDocument(content=b"The new text.", id="again.txt"), tenant=AGAIN)
    await bed.finish(begun)
    document, content = await bed.intake.original(AGAIN, None, "again.txt")
    assert (document.visible, content) == (True, b"The new text.")
