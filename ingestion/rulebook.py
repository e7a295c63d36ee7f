"""SQL about what collections ask of their documents: the rules, what broke them, known paragraphs."""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.jobs import loads
from ingestion.rules import (
    NONE,
    Breach,
    Count,
    Rules,
    RulesReport,
    breaches_json,
    rules_json,
    rules_of,
)
from ingestion.types import Job

EXAMPLES = 10
_GET = text(
    """
    SELECT now() AS now, r.rules FROM (VALUES (1)) AS one(n)
    LEFT JOIN collection_rules r ON r.tenant = :tenant AND r.collection = :collection
    """
)
_REFUSING = text(
    """
    SELECT collection, rules FROM collection_rules
    WHERE tenant = :tenant AND collection = ANY(CAST(:collections AS text[]))
    """
)
_PUT = text(
    """
    INSERT INTO collection_rules (tenant, collection, rules)
    VALUES (:tenant, :collection, CAST(:rules AS jsonb))
    ON CONFLICT (tenant, collection) DO UPDATE SET rules = excluded.rules, updated_at = now()
    """
)
_DROP = text("DELETE FROM collection_rules WHERE tenant = :tenant AND collection = :collection")
_DROP_PARAGRAPHS = text(
    """
    DELETE FROM paragraphs p USING documents d
    WHERE d.tenant = :tenant AND d.collection = :collection AND p.tenant = d.tenant AND p.document_id = d.id
    """
)
_ELSEWHERE = text(
    """
    SELECT count(DISTINCT p.hash) FROM paragraphs p
    JOIN documents d ON d.tenant = p.tenant AND d.id = p.document_id
    WHERE p.tenant = :tenant AND p.hash = ANY(CAST(:hashes AS bigint[])) AND p.document_id <> :document_id
      AND d.collection = :collection AND NOT d.deleted
    """
)
# The document's row is locked first, as everywhere; what is not its newest version any more says nothing.
_NEWEST = text(
    """
    SELECT 1 FROM documents WHERE tenant = :tenant AND id = :document_id AND newest_version = :version
      AND NOT deleted FOR UPDATE
    """
)
_WARN_DOCUMENT = text(
    """
    UPDATE documents SET warnings = CAST(:warnings AS jsonb)
    WHERE tenant = :tenant AND id = :document_id AND warnings <> CAST(:warnings AS jsonb)
    """
)
_WARN_JOB = text(
    """
    UPDATE jobs SET warnings = CAST(:warnings AS jsonb)
    WHERE id = :id AND fence = :fence AND state = 'running' AND warnings <> CAST(:warnings AS jsonb)
    """
)
_FORGET = text("DELETE FROM paragraphs WHERE tenant = :tenant AND document_id = ANY(CAST(:ids AS text[]))")
_REMEMBER = text(
    """
    INSERT INTO paragraphs (tenant, hash, document_id)
    SELECT :tenant, hash, :document_id FROM unnest(CAST(:hashes AS bigint[])) AS h(hash)
    """
)
_REPORT = text(
    f"""
    SELECT 'warned' AS outcome, w ->> 'rule' AS rule, count(*) AS documents,
        (array_agg(d.id ORDER BY d.updated_at DESC))[1:{EXAMPLES}] AS examples
    FROM documents d CROSS JOIN LATERAL jsonb_array_elements(d.warnings) AS w
    WHERE d.tenant = :tenant AND d.collection = :collection AND NOT d.deleted GROUP BY 2
    UNION ALL
    SELECT 'refused', j.error ->> 'part', count(DISTINCT d.id),
        (array_agg(d.id ORDER BY j.finished_at DESC))[1:{EXAMPLES}]
    FROM documents d JOIN jobs j ON j.tenant = d.tenant AND j.document_id = d.id
      AND j.version = d.newest_version AND j.generation IS NULL
    WHERE d.tenant = :tenant AND d.collection = :collection AND NOT d.deleted
      AND j.state = 'quarantined' AND j.error ->> 'code' = 'validation' GROUP BY 2
    ORDER BY 1, 3 DESC, 2
    """
)
_DOCUMENTS = text(
    """
    SELECT count(*) AS documents, count(*) FILTER (WHERE warnings <> '[]') AS warned
    FROM documents WHERE tenant = :tenant AND collection = :collection AND NOT deleted
    """
)


async def get(connection: AsyncConnection, tenant: str, collection: str) -> tuple[Rules, datetime]:
    """The rules now, and the ledger's time at which they held."""
    row = (await connection.execute(_GET, {"tenant": tenant, "collection": collection})).one()
    return (rules_of(loads(row.rules)) if row.rules else NONE), row.now


async def of_all(connection: AsyncConnection, tenant: str, collections: Sequence[str]) -> Mapping[str, Rules]:
    rows = await connection.execute(_REFUSING, {"tenant": tenant, "collections": list(collections)})
    return {row.collection: rules_of(loads(row.rules)) for row in rows}


async def put(connection: AsyncConnection, tenant: str, collection: str, rules: Rules) -> None:
    """Asked nothing more, a collection forgets what it knew for that."""
    key = {"tenant": tenant, "collection": collection}
    if rules.max_duplicate_share is None:
        await connection.execute(_DROP_PARAGRAPHS, key)
    if rules == NONE:
        await connection.execute(_DROP, key)
    else:
        await connection.execute(_PUT, {**key, "rules": json.dumps(rules_json(rules))})


async def elsewhere(
    connection: AsyncConnection, tenant: str, collection: str, document_id: str, hashes: Sequence[int]
) -> int:
    """How many of these paragraphs another document of the collection has."""
    values = {"tenant": tenant, "collection": collection, "document_id": document_id, "hashes": list(hashes)}
    return int(await connection.scalar(_ELSEWHERE, values) or 0)


async def validated(
    connection: AsyncConnection, job: Job, found: Sequence[Breach], hashes: Sequence[int]
) -> None:
    """Note what a document's newest version broke, and its paragraphs, if any are asked for."""
    key = {"tenant": job.tenant, "document_id": job.document_id}
    if (await connection.execute(_NEWEST, {**key, "version": job.version})).first() is None:
        return
    warnings = json.dumps(breaches_json(found))
    await connection.execute(_WARN_DOCUMENT, {**key, "warnings": warnings})
    await connection.execute(_WARN_JOB, {"id": job.id, "fence": job.fence, "warnings": warnings})
    await forget(connection, job.tenant, [job.document_id])
    if hashes:
        await connection.execute(_REMEMBER, {**key, "hashes": list(hashes)})


async def forget(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> None:
    """Forget the paragraphs of documents that were deleted."""
    await connection.execute(_FORGET, {"tenant": tenant, "ids": list(ids)})


async def report(connection: AsyncConnection, tenant: str, collection: str) -> RulesReport:
    key = {"tenant": tenant, "collection": collection}
    total = (await connection.execute(_DOCUMENTS, key)).one()
    rows = await connection.execute(_REPORT, key)
    counts = tuple(Count(row.outcome, row.rule, row.documents, tuple(row.examples)) for row in rows)
    return RulesReport(total.documents, total.warned, counts)
