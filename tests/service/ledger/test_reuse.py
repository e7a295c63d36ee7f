"""What was embedded is not embedded again for the same tenant, and never for another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ingestion.blobs import Blobs
from ingestion.errors import LedgerUnavailable
from ingestion.indexers import Indexer, OpenIndexers
from ingestion.intake import ENDED, Intake
from ingestion.ledger import Ledger
from ingestion.parse import parse
from ingestion.types import Attempt, Generation, Job, NewDocument, Parsed
from ingestion.worker import BACKFILL, Worker
from retrieval.errors import StoreUnavailable
from retrieval.stores.memory import MemoryStore
from retrieval.types import Dense, EmbedderSpec, Encoder, Filter, IndexSpec, Matrix, Vector

SECTIONS = [f"# Part {n}\n\nThe paragraph about number {n} says things of its own.\n" for n in range(8)]
Put = Callable[..., Awaitable[int]]


@dataclass
class Counting:
    """Counts the texts that reach the embedder."""

    inner: Encoder
    texts: list[str] = field(default_factory=list)

    @property
    def spec(self) -> EmbedderSpec:
        return self.inner.spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        self.texts += texts
        return await self.inner.embed(texts)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self.inner.token_spans(text)


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
        """These tests look at the ledger."""


@pytest.fixture
def embedder(indexer: Indexer) -> Counting:
    return Counting(indexer.embedder)


@pytest.fixture
def work(
    ledger: Ledger, indexer: Indexer, embedder: Counting, store: MemoryStore, tmp_path: Path
) -> Callable[..., Worker]:
    async def opened(known: Generation) -> Indexer:
        return replace(indexer, spec=known.spec, embedder=embedder)

    def work(**options: object) -> Worker:
        return Worker(
            ledger,
            Blobs(str(tmp_path)),
            Reader(),
            store,
            OpenIndexers(ledger, store, opened),
            name="w",
            lease=15.0,
            observer=Nobody(),
            **options,  # type: ignore[arg-type]
        )

    return work


@pytest.fixture
def put(ledger: Ledger, work: Callable[..., Worker], embedder: Counting, tmp_path: Path) -> Put:
    """Hand one document in and wait until it is found; how many texts were embedded for it."""
    intake = Intake(ledger, Blobs(str(tmp_path)), upload_limit=2**20)

    async def put(content: str, *, tenant: str = "acme", name: str = "long.md", **said: object) -> int:
        before = len(embedder.texts)
        new = NewDocument(content=content.encode(), id=name, title="Title", media_type="text/markdown")
        jobs = await intake.put(tenant, [replace(new, **said)])  # type: ignore[arg-type]
        await ended(ledger, work(), jobs)
        return len(embedder.texts) - before

    return put


async def ended(ledger: Ledger, worker: Worker, jobs: Sequence[Job]) -> list[Job]:
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(30):
        for job in jobs:
            while (await ledger.job(job.tenant, job.id)).state not in ENDED:
                await asyncio.sleep(0.02)
    stop.set()
    await running
    found = [await ledger.job(job.tenant, job.id) for job in jobs]
    assert [job.state for job in found] == ["succeeded"] * len(jobs)
    return found


async def test_an_update_of_one_paragraph_embeds_that_one(put: Put) -> None:
    assert await put("\n".join(SECTIONS)) == 8
    changed = [*SECTIONS[:3], "# Part 3\n\nThis one is new.\n", *SECTIONS[4:]]
    assert await put("\n".join(changed)) == 1


async def test_what_is_reused_is_the_vector_of_that_text(
    put: Put, store: MemoryStore, spec: IndexSpec, embedder: Counting
) -> None:
    await put("\n".join(SECTIONS))
    await put("\n".join(reversed(SECTIONS)))
    for said in list(embedder.texts):
        (vector,) = await embedder.inner.embed([said])
        where = Filter(tenant="acme", groups=None)
        best, *_ = await store.search(spec.generation, Dense(vector), where, 1, frozenset())
        assert best.score == pytest.approx(1.0, abs=1e-5)
        assert best.chunk.text.strip() in said


@pytest.mark.parametrize(
    "said",
    [{}, {"metadata": {"year": 2026}}, {"groups": frozenset({"hr"})}, {"collection": "other"}],
    ids=["handed in again", "metadata", "rights", "collection"],
)
async def test_the_same_text_is_not_embedded_again(put: Put, said: dict[str, object]) -> None:
    await put("\n".join(SECTIONS))
    assert await put("\n".join(SECTIONS), **said) == 0


async def test_the_same_file_under_another_id_is_not_embedded_again(put: Put) -> None:
    await put("\n".join(SECTIONS))
    assert await put("\n".join(SECTIONS), name="moved.md") == 0


async def test_another_tenants_text_is_embedded_though_it_is_the_same(put: Put) -> None:
    await put("\n".join(SECTIONS))
    assert await put("\n".join(SECTIONS), tenant="umbrella") == 8


async def test_nor_is_another_tenants_vector_taken_in_a_batch_that_both_have_documents_in(
    put: Put, ledger: Ledger, work: Callable[..., Worker], embedder: Counting, tmp_path: Path
) -> None:
    await put("\n".join(SECTIONS), tenant="umbrella")
    intake = Intake(ledger, Blobs(str(tmp_path)), upload_limit=2**20)
    content = "\n".join(SECTIONS).encode()
    new = NewDocument(content=content, id="copy.md", title="Title", media_type="text/markdown")
    jobs = [job for tenant in ("acme", "umbrella") for job in await intake.put(tenant, [new])]
    before = len(embedder.texts)
    first, second = await ended(ledger, work(), jobs)
    assert (first.reused, second.reused) == (0, 8)
    assert len(embedder.texts) - before == 8


async def test_a_text_that_occurs_again_in_a_batch_is_embedded_once(put: Put) -> None:
    assert await put("\n".join([SECTIONS[0]] * 5 + SECTIONS[1:3])) == 3


@pytest.mark.parametrize(
    ("change", "embedded"),
    [({"analyzer": "english"}, 0), ({"document_prefix": "passage: "}, 8), ({"embedder": "another"}, 8)],
    ids=["another analyzer", "another prefix", "another embedder"],
)
async def test_a_new_index_takes_the_vectors_of_the_same_embedder_behind_the_same_prefix(
    change: dict[str, str],
    embedded: int,
    put: Put,
    ledger: Ledger,
    store: MemoryStore,
    spec: IndexSpec,
    embedder: Counting,
    work: Callable[..., Worker],
) -> None:
    await put("\n".join(SECTIONS))
    before = len(embedder.texts)
    other = replace(spec, **change)  # type: ignore[arg-type]
    await store.prepare(other.generation, other)
    await ledger.build_generation(other, "hashing")
    stop = asyncio.Event()
    running = asyncio.create_task(work(crew=BACKFILL).run(stop))
    async with asyncio.timeout(30):
        while not (build := await ledger.build(other.generation)) or build.done < 1:
            await asyncio.sleep(0.05)
    stop.set()
    await running
    new = embedder.texts[before:]
    assert len(new) == embedded
    assert all(text.startswith(other.document_prefix) for text in new)
    where = Filter(tenant="acme", groups=None)
    for said in new:
        (vector,) = await embedder.inner.embed([said])
        best, *_ = await store.search(other.generation, Dense(vector), where, 1, frozenset())
        assert best.score == pytest.approx(1.0, abs=1e-5)
        assert "passage" not in best.chunk.text


async def test_the_job_and_the_ledger_say_how_much_was_saved(put: Put, ledger: Ledger) -> None:
    await put("\n".join(SECTIONS))
    await put("\n".join([*SECTIONS[:7], "# New\n\nNew.\n"]))
    assert await ledger.embeddings_reused() == 7


async def test_where_the_index_cannot_be_read_everything_is_embedded(
    put: Put, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put("\n".join(SECTIONS))

    async def away(generation: str, tenant: str, ids: Sequence[str]) -> dict[str, Vector]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "vectors", away)
    assert await put("\n".join(SECTIONS)) == 8


async def test_a_ledger_that_does_not_answer_saves_nothing_and_breaks_nothing(
    put: Put, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put("\n".join(SECTIONS))

    async def away(*asked: object) -> list[object]:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(ledger, "embedded_before", away)
    assert await put("\n".join(SECTIONS)) == 8
