"""What a search finds while documents change, rights differ and parts fail: the real embedder and analyzer
over the store in memory, and a ledger of a dictionary."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

import pytest

from retrieval.analyze import analyzer
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.embedders.prefixed import Prefixed
from retrieval.errors import EmbedderUnavailable, FilterInvalid, StoreUnavailable
from retrieval.search import Index, search
from retrieval.stores.memory import MemoryStore
from retrieval.types import (
    Dense,
    EmbedderSpec,
    Filter,
    Found,
    Hit,
    Keyword,
    Look,
    Matrix,
    OneOf,
    Prefixes,
    Query,
    Row,
    SearchParams,
)
from tests.passages import INDEX, passage

ACME = Filter(tenant="acme", groups=frozenset())
WORDS = analyzer("snowball-english")
LEAVE = "Employees are entitled to 28 days of paid leave a year."
PUMP = "The display shows E-1042 when the pump is blocked."
ROOF = "Solar panels on the roof are inspected every spring."
PRICE = "The small pump costs 310 euros without tax."


class Board:
    """Who may see what: tenant and document to the visible revision and the groups that may read it."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str], int] = {}
        self.groups: dict[tuple[str, str], frozenset[str]] = {}
        self.asked = 0

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        self.asked += 1
        return frozenset(
            revision for document, revision in candidates if self._may(where, document, revision)
        )

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        epoch = await self.epoch(where)
        return Look(
            epoch=epoch, ages=dict.fromkeys(await self.visible(generation, where, candidates), math.inf)
        )

    def _may(self, where: Filter, document: str, revision: int) -> bool:
        key = (where.tenant, document)
        groups = self.groups.get(key, frozenset())
        readable = where.groups is None or not groups or not groups.isdisjoint(where.groups)
        return readable and self.shown.get(key) == revision

    async def epoch(self, where: Filter) -> str:
        return f"{sorted(self.shown.items())} {sorted(self.groups.items())}"

    async def all_visible(self, generation: str, where: Filter, limit: int) -> tuple[str, Sequence[int]]:
        shown = [(d, r) for (_, d), r in self.shown.items() if self._may(where, d, r)]
        return await self.epoch(where), [r for _, r in shown][:limit]

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        mine = sorted((document, revision) for (_, document), revision in self.shown.items())
        return [(*found, 1) for found in mine if self._may(where, *found)][:limit]


class Corpus:
    """A store and a board that are filled together, as ingestion does."""

    def __init__(self, embedder: OpenVinoEmbedder, store: MemoryStore | None = None) -> None:
        self.spec = replace(
            INDEX,
            embedder=embedder.spec.artefact,
            dimension=embedder.spec.dimension,
            analyzer=WORDS.name,
        )
        self.store = store or MemoryStore()
        self.board = Board()
        self.embedder = embedder
        self.index = Index(self.spec.generation, self.store, Prefixed(embedder), WORDS, self.board)

    async def write(
        self,
        document: str,
        revision: int,
        *texts: str,
        tenant: str = "acme",
        groups: frozenset[str] = frozenset(),
    ) -> None:
        """Rows in the store, not yet visible."""
        vectors = await self.embedder.embed(texts)
        rows = []
        for ordinal, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            chunk = passage(
                text,
                document_id=document,
                revision=revision,
                ordinal=ordinal,
                tenant=tenant,
                title=document,
                groups=groups,
            )
            rows.append(Row(chunk=chunk, vector=vector, terms=WORDS.terms(text)))
        await self.store.prepare(self.spec.generation, self.spec)
        await self.store.upsert(self.spec.generation, rows)

    def flip(self, document: str, revision: int, tenant: str = "acme") -> None:
        self.board.shown[tenant, document] = revision

    async def add(self, document: str, revision: int, *texts: str, tenant: str = "acme") -> None:
        await self.write(document, revision, *texts, tenant=tenant)
        self.flip(document, revision, tenant)

    async def find(
        self, query: str, where: Filter = ACME, candidates: int = 50, limit: int = 5, *, group: bool = False
    ) -> Found:
        params = SearchParams(limit=limit, candidates=candidates, dense_weight=0.5)
        return await search(self.index, query, where, params, group_by_document=group)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search takes so long on a busy machine that it looks at its hits for that."""
    monkeypatch.setattr("retrieval.search._FRESH", 60.0)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    return OpenVinoEmbedder.load(find_model("all-MiniLM-L6-v2", None), tmp_path_factory.mktemp("models"))


@pytest.fixture
async def corpus(embedder: OpenVinoEmbedder) -> Corpus:
    corpus = Corpus(embedder)
    await corpus.add("leave", 1, LEAVE)
    await corpus.add("pump", 2, PUMP)
    await corpus.add("prices", 3, PRICE)
    return corpus


def documents(found: Found) -> list[str]:
    return [hit.chunk.document_id for hit in found.hits]


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("How much vacation do I get?", "leave"),
        ("E1042", "pump"),
        ("What does the small pump cost?", "prices"),
    ],
)
async def test_a_passage_is_found_by_its_meaning_and_by_its_words(
    question: str, document: str, corpus: Corpus
) -> None:
    found = await corpus.find(question)
    assert documents(found)[0] == document
    assert found.degraded == ()
    assert found.hits[0].score == max(hit.score for hit in found.hits) <= 1


async def test_the_limit_is_the_releases_unless_the_caller_names_one(corpus: Corpus) -> None:
    params = SearchParams(limit=2, candidates=2, dense_weight=0.5)
    assert len((await search(corpus.index, "pump", ACME, params)).hits) == 2
    assert len((await search(corpus.index, "pump", ACME, params, limit=1)).hits) == 1
    assert len((await search(corpus.index, "pump", ACME, params, limit=3)).hits) == 3


async def test_an_old_revision_gives_way_to_the_visible_one_that_it_crowded_out(corpus: Corpus) -> None:
    await corpus.write("leave", 4, LEAVE.replace("28", "30"))
    corpus.flip("leave", 4)
    found = await corpus.find(LEAVE, candidates=1, limit=1)
    assert [(hit.chunk.revision, hit.chunk.text[26:28]) for hit in found.hits] == [(4, "30")]
    assert found.degraded == ()


class Interrupted(MemoryStore):
    """The store in memory; once, after a search was answered, something happens."""

    then: Callable[[], Awaitable[None]] | None = None

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        hits = await super().search(generation, query, where, limit, exclude)
        if self.then is not None:
            then, self.then = self.then, None
            await then()
        return hits


async def test_a_document_updated_during_the_search_is_still_found(embedder: OpenVinoEmbedder) -> None:
    store = Interrupted()
    corpus = Corpus(embedder, store)
    await corpus.add("leave", 1, LEAVE)

    async def update() -> None:
        await corpus.add("leave", 2, LEAVE.replace("28", "30"))
        await store.remove(corpus.spec.generation, [1])

    store.then = update
    found = await corpus.find(LEAVE, candidates=1, limit=1)
    assert [hit.chunk.revision for hit in found.hits] == [2]
    assert found.degraded == ()


async def test_a_document_deleted_during_the_search_is_not_found(embedder: OpenVinoEmbedder) -> None:
    store = Interrupted()
    corpus = Corpus(embedder, store)
    await corpus.add("leave", 1, LEAVE)
    await corpus.add("pump", 2, PUMP)

    async def delete() -> None:
        del corpus.board.shown["acme", "leave"]

    store.then = delete
    found = await corpus.find(LEAVE)
    assert documents(found) == ["pump"]
    assert found.degraded == ()


async def test_hits_that_were_seen_are_not_looked_up_again_while_nothing_changes(corpus: Corpus) -> None:
    first = await corpus.find("paid leave")
    assert corpus.board.asked == 1
    assert await corpus.find("paid leave") == first
    assert documents(await corpus.find("the price of the pump"))[0] == "prices"
    assert corpus.board.asked == 1
    other = replace(ACME, collections=("default",))
    assert documents(await corpus.find("paid leave", other)) == documents(first)
    assert corpus.board.asked == 2


async def test_what_nobody_asked_for_becomes_known_too_while_nothing_changes(corpus: Corpus) -> None:
    await corpus.add("roof", 4, ROOF)
    for question in ("paid leave", "blocked pump"):
        await corpus.find(question, candidates=1, limit=1)
    assert corpus.index.seen.learning is not None
    await corpus.index.seen.learning
    asked = corpus.board.asked
    assert documents(await corpus.find("solar panels", candidates=1, limit=1)) == ["roof"]
    assert corpus.board.asked == asked


async def test_what_was_seen_and_is_gone_is_not_found_again(corpus: Corpus) -> None:
    await corpus.find("paid leave")
    del corpus.board.shown["acme", "leave"]
    assert "leave" not in documents(await corpus.find("paid leave"))
    corpus.board.groups["acme", "pump"] = frozenset({"hr"})
    assert documents(await corpus.find("blocked pump")) == ["prices"]
    await corpus.add("prices", 9, PRICE.replace("310", "320"))
    assert [hit.chunk.revision for hit in (await corpus.find("small pump costs")).hits] == [9]


async def test_a_known_document_deleted_during_a_search_is_as_it_was_when_the_search_began(
    embedder: OpenVinoEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Interrupted()
    corpus = Corpus(embedder, store)
    await corpus.add("leave", 1, LEAVE)
    await corpus.add("pump", 2, PUMP)
    await corpus.find(LEAVE)

    async def delete() -> None:
        await asyncio.sleep(0.01)  # The ledger has been asked by then.
        del corpus.board.shown["acme", "leave"]

    store.then = delete
    assert documents(await corpus.find(LEAVE)) == ["leave", "pump"]
    assert documents(await corpus.find(LEAVE)) == ["pump"]
    await corpus.add("leave", 3, LEAVE)
    await store.remove(corpus.spec.generation, [1])
    await corpus.find(LEAVE)
    # The rows of what is deleted while a long search goes on may be gone before its end.
    monkeypatch.setattr("retrieval.search._FRESH", 0.0)
    store.then = delete
    assert documents(await corpus.find(LEAVE)) == ["pump"]


async def test_rows_that_keep_changing_are_declared_and_never_shown(corpus: Corpus) -> None:
    for revision in range(10, 20):
        await corpus.write(f"new-{revision}", revision, ROOF)
    found = await corpus.find(ROOF, candidates=1, limit=1)
    assert found == Found((), ("visibility",))
    assert corpus.board.asked == 3


async def test_what_is_visible_among_changing_rows_is_still_shown(corpus: Corpus) -> None:
    for revision in range(10, 20):
        await corpus.write(f"new-{revision}", revision, ROOF)
    found = await corpus.find(f"{ROOF} {PUMP}", candidates=3, limit=3)
    assert documents(found)[0] == "pump"
    assert all(hit.chunk.revision < 10 for hit in found.hits)


class Leaky(MemoryStore):
    """A store that forgets whose text was asked for."""

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        own = await super().search(generation, query, where, limit, exclude)
        other = await super().search(generation, query, replace(where, tenant="rival"), limit, exclude)
        return own + other


@pytest.mark.parametrize("store", [MemoryStore, Leaky])
async def test_a_tenant_never_sees_anothers_text(
    embedder: OpenVinoEmbedder, store: type[MemoryStore]
) -> None:
    corpus = Corpus(embedder, store())
    await corpus.add("leave", 1, LEAVE)
    await corpus.add("leave", 2, "Rival's secret: 40 days of paid leave.", tenant="rival")
    found = await corpus.find("paid leave")
    assert [hit.chunk.tenant for hit in found.hits] == ["acme"]


async def test_rights_taken_away_count_before_the_store_knows(corpus: Corpus) -> None:
    corpus.board.groups["acme", "leave"] = frozenset({"hr"})
    hr = replace(ACME, groups=frozenset({"hr"}))
    assert "leave" not in documents(await corpus.find("paid leave"))
    assert documents(await corpus.find("paid leave", hr))[0] == "leave"


class NoEmbedder:
    """An embedder whose server is gone."""

    def __init__(self, spec: EmbedderSpec) -> None:
        self.spec = spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        raise EmbedderUnavailable("no embedder")

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        raise EmbedderUnavailable("no embedder")


class Limping(MemoryStore):
    """A store of which one kind of search, or both, fails."""

    fails: tuple[type[Query], ...] = ()
    calls = 0

    async def search(
        self, generation: str, query: Query, where: Filter, limit: int, exclude: frozenset[int]
    ) -> list[Hit]:
        self.calls += 1
        if isinstance(query, self.fails):
            raise StoreUnavailable("no answer in time")
        return await super().search(generation, query, where, limit, exclude)


async def test_without_an_embedder_words_still_find_and_the_answer_says_so(corpus: Corpus) -> None:
    corpus.index = replace(corpus.index, embedder=Prefixed(NoEmbedder(corpus.embedder.spec)))
    found = await corpus.find("pump E-1042")
    assert documents(found)[0] == "pump"
    assert found.degraded == ("dense",)


async def test_without_an_embedder_a_question_without_words_is_a_typed_error(corpus: Corpus) -> None:
    corpus.index = replace(corpus.index, embedder=Prefixed(NoEmbedder(corpus.embedder.spec)))
    with pytest.raises(EmbedderUnavailable):
        await corpus.find("?!")


@pytest.mark.parametrize("failing", [Dense, Keyword])
async def test_one_kind_of_search_failing_leaves_the_other(
    embedder: OpenVinoEmbedder, failing: type[Query]
) -> None:
    store = Limping()
    corpus = Corpus(embedder, store)
    await corpus.add("pump", 1, PUMP)
    store.fails = (failing,)
    found = await corpus.find("blocked pump")
    assert documents(found) == ["pump"]
    assert found.degraded == ("dense",) if failing is Dense else ("keyword",)


async def test_a_store_that_is_down_is_a_typed_error(embedder: OpenVinoEmbedder) -> None:
    store = Limping()
    corpus = Corpus(embedder, store)
    await corpus.add("pump", 1, PUMP)
    store.fails = (Dense, Keyword)
    with pytest.raises(StoreUnavailable):
        await corpus.find("blocked pump")


async def test_a_malformed_filter_is_the_callers_error(corpus: Corpus) -> None:
    with pytest.raises(FilterInvalid):
        await corpus.find("pump", replace(ACME, where=OneOf("kind", ())))


async def test_an_error_of_the_ledger_is_not_swallowed(corpus: Corpus) -> None:
    class Down(Board):
        async def visible(
            self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
        ) -> frozenset[int]:
            raise ConnectionError("ledger down")

    corpus.index = replace(corpus.index, visibility=Down())
    with pytest.raises(ConnectionError):
        await corpus.find("pump")


async def test_a_revision_that_was_passed_over_and_has_become_visible_is_found(corpus: Corpus) -> None:
    class Flipping(Board):
        async def visible(
            self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
        ) -> frozenset[int]:
            seen = await super().visible(generation, where, candidates)
            self.shown["acme", "roof"] = 41
            return seen

    board = Flipping()
    corpus.index = replace(corpus.index, visibility=board)
    await corpus.add("roof", 41, ROOF)
    await corpus.add("roof", 40, ROOF)
    board.shown["acme", "roof"] = 40
    found = await corpus.find("solar panels")
    assert [hit.chunk.revision for hit in found.hits] == [41]
    assert found.degraded == ()


async def test_a_revision_that_was_completed_while_it_was_searched_is_found_whole(corpus: Corpus) -> None:
    class Late(Board):
        async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
            first = not self.asked
            seen = await super().look(generation, where, candidates)
            if first:
                await corpus.add("roof", 40, ROOF, PUMP)
                return replace(seen, ages=dict.fromkeys(seen.ages, 0.0))
            return seen

    board = Late()
    board.shown.update(corpus.board.shown)  # Nothing else is a reason to search again.
    corpus.index = replace(corpus.index, visibility=board)
    await corpus.add("roof", 40, ROOF)
    board.shown["acme", "roof"] = 40
    found = await corpus.find("solar pump")
    assert sorted(hit.chunk.ordinal for hit in found.hits if hit.chunk.document_id == "roof") == [0, 1]
    assert found.degraded == ()


async def test_a_question_longer_than_the_window_is_searched_by_its_beginning(corpus: Corpus) -> None:
    found = await corpus.find("How much vacation do I get? " + "Please tell me soon. " * 200)
    assert documents(found)[0] == "leave"
    assert found.degraded == ("query_truncated",)


async def test_a_question_is_embedded_behind_its_prefix_and_cut_to_what_fits_with_it(corpus: Corpus) -> None:
    read: list[str] = []

    class Noting(OpenVinoEmbedder):
        def __init__(self) -> None:
            pass

        spec = corpus.embedder.spec
        token_spans = corpus.embedder.token_spans

        async def embed(self, texts: Sequence[str]) -> Matrix:
            vectors = await corpus.embedder.embed(texts)
            read.extend(texts)
            return vectors

    prefixed = Prefixed(Noting(), Prefixes(query="query: ", document="passage: "))
    corpus.index = replace(corpus.index, embedder=prefixed)
    assert (await corpus.find("vacation")).degraded == ()
    assert (await corpus.find("vacation please " * 200)).degraded == ("query_truncated",)
    assert read[0] == "query: vacation"
    assert read[1].startswith("query: vacation please")
    assert len(corpus.embedder.token_spans(read[1])) == corpus.embedder.spec.max_tokens - 2


async def test_a_question_without_words_is_answered_by_meaning_alone(corpus: Corpus) -> None:
    found = await corpus.find("???")
    assert len(found.hits) == 3
    assert found.degraded == ()


async def test_grouped_hits_name_each_document_once_though_one_has_many_passages(corpus: Corpus) -> None:
    await corpus.add(
        "manual", 9, *[f"Pump chapter {number}: the pump must be vented." for number in range(40)]
    )
    found = await corpus.find("pump", candidates=3, limit=3, group=True)
    assert documents(found)[0] == "manual"
    assert sorted(documents(found)[1:]) == ["prices", "pump"]
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)


async def test_grouping_ends_when_there_are_fewer_documents_than_asked_for(corpus: Corpus) -> None:
    found = await corpus.find("pump", candidates=3, limit=20, group=True)
    assert sorted(documents(found)) == ["leave", "prices", "pump"]


async def test_an_empty_index_finds_nothing(embedder: OpenVinoEmbedder) -> None:
    corpus = Corpus(embedder)
    await corpus.store.prepare(corpus.spec.generation, corpus.spec)
    assert await corpus.find("pump") == Found(())
