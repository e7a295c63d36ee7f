"""What is asked all the time costs what is looked for, not what has ever been handed in."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion import reads as sql
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import JobQuery
from retrieval.types import Filter, IndexSpec

DOCUMENTS = 10_000
PASSED_OVER = 300
"""Rows that may be read for nothing."""
Ask = Callable[[Ledger, str], Awaitable[Any]]

ASKED: dict[str, Ask] = {
    "what an operator watches": lambda ledger, _: ledger.operation(),
    "the queue of a tenant": lambda ledger, _: ledger.queue("acme"),
    "the queue of all": lambda ledger, _: ledger.queue(None),
    "some documents of an index": lambda ledger, generation: ledger.some(generation, 2),
    "collections": lambda ledger, _: ledger.collections("acme", None),
    "jobs by their reason": lambda ledger, _: ledger.jobs("acme", JobQuery(reason="needs_ocr"), limit=10),
    "jobs by state": lambda ledger, _: ledger.tally("acme", JobQuery()),
    "jobs of one state": lambda ledger, _: ledger.tally("acme", JobQuery(states=("queued", "running"))),
    "documents of a small collection": lambda ledger, _: ledger.matching(
        Filter(tenant="acme", groups=None, collections=("small",)), ""
    ),
    "the next erasure": lambda ledger, _: _next_erasure(ledger),
}


async def _next_erasure(ledger: Ledger) -> None:
    async with ledger.erasing.next() as erasure:
        assert erasure is None


@pytest.fixture
async def large(ledger: Ledger, engine: AsyncEngine, spec: IndexSpec) -> Ledger:
    """A ledger with documents that were all indexed, and jobs of each that ended before."""
    source = f"generate_series(1, {DOCUMENTS}) AS i"
    hour = "now() - interval '1 hour'"
    collection = "CASE WHEN i % 2000 = 7 THEN 'small' ELSE 'large' END"
    statements = [
        "INSERT INTO collections (tenant, name) VALUES ('acme', 'large'), ('acme', 'small')",
        f"""
        INSERT INTO documents (tenant, id, collection, newest_version, media_type, size, content_hash,
                               metadata, groups)
        SELECT 'acme', 'd' || i, {collection}, i, 'text/plain', 9, 'h' || i, '{{}}', '{{}}' FROM {source}
        """,
        f"""
        INSERT INTO jobs (id, tenant, document_id, version, state, created_at, leased_at, finished_at, work)
        SELECT gen_random_uuid(), 'acme', 'd' || i, i, 'succeeded', {hour}, {hour}, {hour}, 1 FROM {source}
        """,
        f"""
        INSERT INTO visibility (tenant, document_id, generation, revision, version, chunks, collection,
                                groups, media_type, size, content_hash, metadata)
        SELECT 'acme', 'd' || i, '{spec.generation}', i, i, 1, {collection}, '{{}}', 'text/plain', 9,
               'h' || i, '{{}}' FROM {source}
        """,
        """
        INSERT INTO generations (id, spec, embedder, state)
        SELECT 'new', spec, embedder, 'building' FROM generations
        """,
        f"""
        INSERT INTO visibility (tenant, document_id, generation, revision, version, chunks, collection,
                                groups, media_type, size, content_hash, metadata)
        SELECT 'acme', 'd' || i, 'new', {DOCUMENTS} + i, i, 1, {collection}, '{{}}', 'text/plain', 9,
               'h' || i, '{{}}' FROM {source} WHERE i % 2 = 0
        """,
        f"""
        INSERT INTO jobs (id, tenant, document_id, version, generation, state, created_at, started_at,
                          finished_at)
        SELECT gen_random_uuid(), 'acme', 'd' || i, i, 'new', CASE WHEN i % 2 = 0 THEN 'succeeded' ELSE
               'queued' END, {hour}, {hour}, {hour} FROM {source}
        """,
        f"""
        INSERT INTO erasures (id, tenant, scope, who, state)
        SELECT gen_random_uuid(), 'acme', 'documents', 'somebody', 'finished' FROM {source}
        """,
    ]
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    async with engine.connect() as connection:
        autonomous = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autonomous.execute(text("VACUUM ANALYZE"))
    return ledger


async def test_what_is_asked_often_reads_no_table_to_its_end(
    large: Ledger, engine: AsyncEngine, spec: IndexSpec
) -> None:
    for what, ask in ASKED.items():
        for plan in await _plans(engine, lambda ask=ask: ask(large, spec.generation)):  # type: ignore[misc]
            _require_frugal(what, plan)


async def test_how_far_an_index_is_is_counted_in_indexes_alone(large: Ledger, engine: AsyncEngine) -> None:
    """All of it is counted, so that a small table might as well be read to its end."""
    plans = await _plans(engine, lambda: large.build("new"), "SET LOCAL enable_seqscan = off")
    assert any("Index Only Scan using visibility_of_generation" in plan for plan in plans)
    for plan in plans:
        assert not re.search(r"Index Scan using \w+ on visibility", plan), plan
        _require_frugal("how far an index is", plan)


async def _plans(engine: AsyncEngine, ask: Callable[[], Awaitable[Any]], *before: str) -> list[str]:
    """How what is asked of the ledger is carried out."""
    heard: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        heard.append((statement, values))

    event.listen(engine.sync_engine, "after_cursor_execute", note)
    await ask()
    event.remove(engine.sync_engine, "after_cursor_execute", note)
    assert heard
    async with engine.begin() as connection:
        for statement in before:
            await connection.execute(text(statement))
        told = [await connection.exec_driver_sql(f"EXPLAIN (ANALYZE) {one}", values) for one, values in heard]
    return ["\n".join(row[0] for row in rows) for rows in told]


async def test_what_is_seen_of_some_documents_is_found_by_them_whatever_is_believed_of_the_table(
    large: Ledger, reads: Reads, spec: IndexSpec
) -> None:
    connection = (await reads._opened()).connection
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    for queries in (sql._CONTENTS, sql._ALL):
        for query, document_ids in zip(queries, ("'{d7}'", "'{}'"), strict=False):
            await connection.execute(f"PREPARE asked (text[], text[], text[], text, text, int) AS {query}")
            given = f"NULL, '{{small}}', {document_ids}, 'acme', '{spec.generation}', 100"
            told = await connection.fetch(f"EXPLAIN (ANALYZE) EXECUTE asked ({given})")
            _require_frugal(query, "\n".join(line[0] for line in told))
            await connection.execute("DEALLOCATE asked")
    await connection.close()


def _require_frugal(what: str, plan: str) -> None:
    assert not re.search(r"Seq Scan on (jobs|documents|visibility|erasures)\b.*actual", plan), (what, plan)
    passed = [int(rows) for rows in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
    assert max(passed, default=0) <= PASSED_OVER, (what, plan)


async def test_what_is_seen_is_the_same_however_it_is_asked_for(
    large: Ledger, reads: Reads, spec: IndexSpec
) -> None:
    small = Filter(tenant="acme", groups=None, collections=("small", "nothing"))
    seen = await reads.contents(spec.generation, small, 100)
    assert [one[0] for one in seen] == sorted(f"d{i}" for i in range(7, DOCUMENTS, 2_000))
    assert seen[:3] == await reads.contents(spec.generation, small, 3)
    one = Filter(tenant="acme", groups=None, collections=("small",), document_ids=("d7", "d8", "d7"))
    assert await reads.contents(spec.generation, one, 100) == [("d7", 7, 1)]
    _, revisions = await reads.all_visible(spec.generation, small, 100)
    assert sorted(revisions) == list(range(7, DOCUMENTS, 2_000))
    rival = Filter(tenant="rival", groups=None, collections=("small",))
    assert await reads.contents(spec.generation, rival, 100) == []
