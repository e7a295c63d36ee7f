"""SQL about filling a generation that is being built, beside those that serve.

Every document that readers can find has a job of its own for each such generation. It reads the version
that is visible, and its result is shown only if that version still is: a flip, a delete or a newer version
wins over it at any moment, and no ordinary job ever waits for one.

A generation that took the place of another at once, with another version of the product, is filled by
ordinary jobs, which bring the newest versions. Where one of these cannot be read, what readers saw before it
is kept when the other generation goes, and brought by a job of this kind.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion import epochs, generations, queue
from ingestion.revisions import retire_unseen
from ingestion.types import Build, GenerationState, Placed
from ingestion.written import Flip, Written, held, lock_documents, lock_jobs, places, succeed

CHARACTERS_PER_TOKEN = 4
REACH = 200
"""Visible revisions that are looked at for some of one generation."""

_THESE = "unnest(CAST(:tenants AS text[]), CAST(:documents AS text[])) AS t(tenant, document_id)"
# What readers see now, whichever generation they read.
REFERENCE = "(SELECT id FROM generations WHERE state = 'serving' ORDER BY created_at LIMIT 1)"
_TRAFFIC = "(SELECT id FROM generations WHERE state IN ('serving', 'rollback'))"


def _source(generation: str) -> str:
    """What a generation is filled from; for one that is read itself, that is what was kept."""
    return f"CASE WHEN {generation} IN {_TRAFFIC} THEN '{generations.KEPT}' ELSE {REFERENCE} END"


_AGAIN = text("DELETE FROM jobs WHERE generation = :id AND state IN ('failed', 'quarantined', 'cancelled')")
_QUEUE = text(
    f"""
    INSERT INTO jobs (id, tenant, document_id, version, priority, generation)
    SELECT gen_random_uuid(), s.tenant, s.document_id, s.version, :priority, :id FROM visibility s
    WHERE s.generation = {REFERENCE} AND (s.tenant, s.document_id) > (:tenant, :document)
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.tenant = s.tenant AND v.document_id = s.document_id
                      AND v.generation = :id)
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant = s.tenant AND j.document_id = s.document_id
                      AND j.generation = :id AND j.version = s.version AND j.state IN ('queued', 'running'))
    ORDER BY s.tenant, s.document_id LIMIT :limit RETURNING tenant, document_id
    """
)
_EMPTY = text(
    f"""
    DELETE FROM visibility v USING {_THESE}
    WHERE v.tenant = t.tenant AND v.document_id = t.document_id
      AND v.generation = ANY(CAST(:generations AS text[]))
    """
)
_OVERTAKE = text(
    f"""
    DELETE FROM jobs j USING {_THESE} WHERE j.tenant = t.tenant AND j.document_id = t.document_id
      AND j.generation = ANY(CAST(:generations AS text[])) AND j.state = 'queued'
    """
)
_FOLLOW = text(
    """
    INSERT INTO jobs (id, tenant, document_id, version, priority, generation)
    SELECT gen_random_uuid(), w.tenant, w.document_id, w.version, :priority, g.id
    FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]), CAST(:versions AS bigint[]))
      AS w(tenant, document_id, version)
    CROSS JOIN unnest(CAST(:generations AS text[])) AS g(id)
    """
)
# What readers see of these documents, or saw, and the generation, a job of its own or an ordinary one, lacks.
_LACKING = text(
    f"""
    SELECT j.id, s.version FROM jobs j
    JOIN visibility s ON s.tenant = j.tenant AND s.document_id = j.document_id
      AND s.generation = {_source("j.generation")}
    LEFT JOIN visibility v ON v.tenant = j.tenant AND v.document_id = j.document_id
      AND v.generation = j.generation AND v.version >= s.version
    WHERE j.id = ANY(CAST(:ids AS uuid[])) AND v.version IS NULL
    """
)
_SHOW = text(
    f"""
    INSERT INTO visibility (tenant, document_id, generation, revision, version, chunks, collection, groups,
                            title, called, filename, media_type, size, content_hash, metadata)
    SELECT s.tenant, s.document_id, w.generation, w.revision, s.version, w.chunks, s.collection, s.groups,
           s.title, s.called, s.filename, s.media_type, s.size, s.content_hash, s.metadata
    FROM unnest(CAST(:tenants AS text[]), CAST(:documents AS text[]), CAST(:revisions AS bigint[]),
                CAST(:generations AS text[]), CAST(:chunks AS int[]))
      AS w(tenant, document_id, revision, generation, chunks)
    JOIN visibility s ON s.tenant = w.tenant AND s.document_id = w.document_id
      AND s.generation = {_source("w.generation")}
    ON CONFLICT (tenant, document_id, generation) DO UPDATE
    SET revision = excluded.revision, version = excluded.version, chunks = excluded.chunks
    RETURNING tenant, collection AS name
    """
)
_SPEND = text(
    """
    UPDATE generations g SET tokens = g.tokens + w.tokens,
        embedding_seconds = g.embedding_seconds + w.seconds
    FROM (SELECT id, sum(tokens) AS tokens, sum(seconds) AS seconds
          FROM unnest(CAST(:generations AS text[]), CAST(:tokens AS bigint[]),
                      CAST(:seconds AS double precision[])) AS u(id, tokens, seconds) GROUP BY id) AS w
    WHERE g.id = w.id
    """
)
# A document counts as done only if the version that readers see is in it. Both sides are read once, in order,
# from an index that has all that is asked.
_STATUS = text(
    f"""
    SELECT {generations.STATE}, g.tokens, g.embedding_seconds, c.documents, c.done, c.chunks, c.held
    FROM generations g CROSS JOIN (
        SELECT count(s.version) AS documents, count(v.version) AS held,
               count(*) FILTER (WHERE v.version = s.version) AS done,
               coalesce(sum(v.chunks) FILTER (WHERE v.version = s.version), 0) AS chunks
        FROM (SELECT tenant, document_id, version FROM visibility WHERE generation = {REFERENCE}) AS s
        FULL JOIN (SELECT tenant, document_id, version, chunks FROM visibility WHERE generation = :id) AS v
          ON v.tenant = s.tenant AND v.document_id = s.document_id
    ) AS c WHERE g.id = :id
    """
)
_FAILED = text(
    f"""
    SELECT j.error ->> 'code' AS code, count(DISTINCT (j.tenant, j.document_id)) AS documents
    FROM jobs j JOIN visibility s ON s.tenant = j.tenant AND s.document_id = j.document_id
      AND s.version = j.version AND s.generation = {REFERENCE}
    WHERE j.generation = :id AND j.state IN ('failed', 'quarantined')
      AND NOT EXISTS (SELECT FROM visibility v WHERE v.tenant = j.tenant AND v.document_id = j.document_id
                      AND v.generation = :id)
    GROUP BY 1 ORDER BY 1
    """
)
_TROUBLE = text(
    "SELECT error ->> 'message' FROM jobs WHERE generation = :id AND state = 'queued' AND error IS NOT NULL "
    "ORDER BY seq LIMIT 1"
)
# Documents a second, over those that were done lately.
_RATE = text(
    """
    SELECT count(*) / nullif(extract(epoch FROM max(finished_at) - min(started_at)), 0) AS rate
    FROM (SELECT started_at, finished_at FROM jobs
          WHERE generation = :id AND state = 'succeeded' AND finished_at > now() - interval '5 minutes'
          ORDER BY finished_at DESC LIMIT 200) AS recent
    """
)
_SAMPLE = text(
    "SELECT tenant, document_id, revision, chunks FROM visibility WHERE generation = :id "
    "ORDER BY random() LIMIT :limit"
)
# From anywhere on: ordering all of them by chance would read all of them, and this is asked all the time. Of
# another generation's rows a few are passed over, and no more. And the newest, which a store lacks that was
# restored from a backup.
_SOME = text(
    """
    (SELECT tenant, document_id, revision, chunks FROM (
        SELECT * FROM visibility ORDER BY revision DESC LIMIT :reach
    ) AS newest WHERE generation = :id AND chunks > 0 ORDER BY revision DESC LIMIT 1)
    UNION ALL
    (SELECT tenant, document_id, revision, chunks FROM (
        SELECT * FROM visibility
        WHERE revision >= (SELECT CAST(floor(random() * max(revision)) AS bigint) FROM visibility)
        ORDER BY revision LIMIT :reach
    ) AS met WHERE generation = :id AND chunks > 0 ORDER BY revision LIMIT :limit - 1)
    """
)
# Whoever asks may have heard of it some time ago: one of the same name may be built since.
_RETIRED = text(
    """
    SELECT v.tenant, v.document_id FROM visibility v
    JOIN generations g ON g.id = v.generation AND g.state = 'retired'
    JOIN documents d ON d.tenant = v.tenant AND d.id = v.document_id
    WHERE v.generation = :id ORDER BY v.tenant, v.document_id LIMIT :limit FOR UPDATE OF d SKIP LOCKED
    """
)
_KEPT_OF = f"v.tenant = t.tenant AND v.document_id = t.document_id AND v.generation = '{generations.KEPT}'"
_KEEP = (
    text(
        f"""
        DELETE FROM visibility v USING {_THESE} JOIN visibility o USING (tenant, document_id)
        WHERE {_KEPT_OF} AND o.generation = :id AND o.version > v.version
        """
    ),
    text(
        f"""
        UPDATE visibility v SET generation = '{generations.KEPT}' FROM {_THESE}
        WHERE v.tenant = t.tenant AND v.document_id = t.document_id AND v.generation = :id
          AND NOT EXISTS (SELECT FROM visibility s WHERE s.tenant = v.tenant AND s.document_id = v.document_id
                          AND s.generation IN ({REFERENCE}, '{generations.KEPT}'))
        """
    ),
)
_KEPT = text(
    f"""
    SELECT v.tenant, v.document_id FROM visibility v
    JOIN documents d ON d.tenant = v.tenant AND d.id = v.document_id
    WHERE v.generation = '{generations.KEPT}' AND (v.tenant, v.document_id) > (:tenant, :document)
    ORDER BY v.tenant, v.document_id LIMIT :limit FOR UPDATE OF d SKIP LOCKED
    """
)
_LET_GO = text(
    f"""
    DELETE FROM visibility v USING {_THESE}
    WHERE {_KEPT_OF} AND NOT EXISTS (
        SELECT FROM {_TRAFFIC} AS g WHERE NOT EXISTS (
            SELECT FROM visibility s WHERE s.tenant = v.tenant AND s.document_id = v.document_id
              AND s.generation = g.id))
    """
)
# Once a generation: what could not be read stays kept for the next one.
_BRING = text(
    f"""
    INSERT INTO jobs (id, tenant, document_id, version, priority, generation)
    SELECT gen_random_uuid(), v.tenant, v.document_id, v.version, :priority, g.id
    FROM {_THESE} JOIN visibility v ON {_KEPT_OF}
    JOIN documents d ON d.tenant = v.tenant AND d.id = v.document_id CROSS JOIN {_TRAFFIC} AS g
    WHERE NOT EXISTS (SELECT FROM visibility s WHERE s.tenant = v.tenant AND s.document_id = v.document_id
                      AND s.generation = g.id)
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant = v.tenant AND j.document_id = v.document_id
                      AND (j.generation IS NULL AND j.version = d.newest_version
                           AND j.state IN ('queued', 'running')
                           OR j.generation = g.id AND j.version = v.version))
    """
)


async def again(connection: AsyncConnection, generation: str) -> None:
    """Forget what failed before, so that it is tried again."""
    await connection.execute(_AGAIN, {"id": generation})


async def enqueue(
    connection: AsyncConnection, generation: str, after: tuple[str, str], limit: int
) -> tuple[str, str] | None:
    """Queue a job for up to `limit` documents, after the (tenant, id) given, that lack one; the last of them,
    None if there was none left."""
    values = {"id": generation, "tenant": after[0], "document": after[1]}
    rows = await connection.execute(
        _QUEUE, {**values, "limit": limit, "priority": generations.REINDEX_PRIORITY}
    )
    return max(((row.tenant, row.document_id) for row in rows), default=None)


async def follow(connection: AsyncConnection, fresh: Sequence[Written], generation: str) -> None:
    """Take the older version of these documents (locked by the caller) out of a generation being built, and
    leave a job there to bring the one that is shown now."""
    if not fresh:
        return
    these = {**places(fresh), "generations": [generation]}
    await connection.execute(_EMPTY, these)
    await connection.execute(_OVERTAKE, these)
    versions = [one.job.version for one in fresh]
    await connection.execute(
        _FOLLOW, {**these, "versions": versions, "priority": generations.REINDEX_PRIORITY}
    )


async def fill(connection: AsyncConnection, written: Sequence[Written]) -> dict[str, Flip]:
    """Show each of these revisions in the generation that its job fills, if its fence holds, that is not
    given up and lacks the version that was read, which readers still see, or saw at last. The outcome of
    each, by job id."""
    await lock_documents(connection, written)
    jobs = await lock_jobs(connection, written)
    states = await generations.lock_states(connection)
    rows = await connection.execute(_LACKING, {"ids": [one.job.id for one in written]})
    lacking: dict[str, int] = {str(row.id): row.version for row in rows}
    outcomes: dict[str, Flip] = {
        one.job.id: _judge(one, jobs.get(one.job.id), states, lacking) for one in written
    }
    shown = {
        (one.job.tenant, one.job.document_id): one
        for one in written
        if outcomes[one.job.id] == "flipped" and jobs[one.job.id].state == "running"
    }
    if shown:
        await _show(connection, list(shown.values()), states)
    await queue.supersede(connection, outcomes)
    return outcomes


def _judge(
    written: Written,
    job: Row[Any] | None,
    states: Mapping[str, GenerationState],
    lacking: Mapping[str, int],
) -> Flip:
    ended = held(written, job)
    if ended:
        return ended
    wanted = lacking.get(written.job.id) == written.job.version
    return "flipped" if wanted and written.job.generation in states else "superseded"


async def _show(
    connection: AsyncConnection, shown: Sequence[Written], states: Mapping[str, GenerationState]
) -> None:
    filled = [str(one.job.generation) for one in shown]
    rows = {
        "revisions": [one.revision for one in shown],
        "generations": filled,
        "chunks": [one.chunks[generation] for one, generation in zip(shown, filled, strict=True)],
    }
    changed = await connection.execute(_SHOW, {**places(shown), **rows})
    if any(states[generation] in generations.TRAFFIC for generation in filled):
        await epochs.rise(connection, {(row.tenant, row.name) for row in changed})
        for generation in generations.being_built(states):
            await follow(connection, shown, generation)
    await succeed(connection, shown)
    await retire_unseen(connection, places(shown))
    spent = {
        "generations": filled,
        "tokens": [one.characters // CHARACTERS_PER_TOKEN for one in shown],
        "seconds": [one.seconds for one in shown],
    }
    await connection.execute(_SPEND, spent)


async def status(connection: AsyncConnection, generation: str) -> Build | None:
    """How far it is; None if there is no such generation."""
    key = {"id": generation}
    row = (await connection.execute(_STATUS, key)).one_or_none()
    if row is None:
        return None
    failed = {one.code: one.documents for one in await connection.execute(_FAILED, key)}
    rate = await connection.scalar(_RATE, key)
    left = max(0, row.documents - row.done - sum(failed.values()))
    return Build(
        generation=generation,
        state=row.state,
        documents=row.documents,
        done=row.done,
        extra=row.held - row.done,
        failed=failed,
        chunks=row.chunks,
        tokens=row.tokens,
        embedding_seconds=row.embedding_seconds,
        eta_seconds=0.0 if not left else left / float(rate) if rate else None,
        trouble=await connection.scalar(_TROUBLE, key),
    )


async def sample(connection: AsyncConnection, generation: str, limit: int) -> list[Placed]:
    """Some documents that are in the generation, chosen at random."""
    rows = await connection.execute(_SAMPLE, {"id": generation, "limit": limit})
    return [Placed(row.tenant, row.document_id, row.revision, row.chunks) for row in rows]


async def some(connection: AsyncConnection, generation: str, limit: int) -> list[Placed]:
    """As `sample`, but cheap, the newest among them, the others less random, and at times none."""
    rows = await connection.execute(_SOME, {"id": generation, "limit": limit, "reach": REACH})
    return [Placed(row.tenant, row.document_id, row.revision, row.chunks) for row in rows]


async def clear(connection: AsyncConnection, generation: str, limit: int) -> int:
    """Hide up to `limit` documents in a retired generation; how many that were. What readers of the one that
    serves do not see is kept, in the newest of the versions that there are."""
    rows = (await connection.execute(_RETIRED, {"id": generation, "limit": limit})).all()
    these = {"tenants": [row.tenant for row in rows], "documents": [row.document_id for row in rows]}
    for statement in _KEEP:
        await connection.execute(statement, {**these, "id": generation})
    await connection.execute(_EMPTY, {**these, "generations": [generation]})
    await retire_unseen(connection, these)
    return len(rows)


async def bring_back(
    connection: AsyncConnection, after: tuple[str, str], limit: int
) -> tuple[str, str] | None:
    """Of up to `limit` documents of which something is kept, after the (tenant, id) given: let it go where
    readers see the document, else queue a job that brings it back, unless something newer is under way. The
    last of them, None if there are no more."""
    values = {"tenant": after[0], "document": after[1], "limit": limit}
    rows = (await connection.execute(_KEPT, values)).all()
    if not rows:
        return None
    these = {"tenants": [row.tenant for row in rows], "documents": [row.document_id for row in rows]}
    await connection.execute(_LET_GO, these)
    await retire_unseen(connection, these)
    await connection.execute(_BRING, {**these, "priority": generations.REINDEX_PRIORITY})
    return (rows[-1].tenant, rows[-1].document_id) if len(rows) == limit else None
