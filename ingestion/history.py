"""SQL about what is over: jobs, revisions and versions that newer versions of their documents replaced.

A document's newest version stays with its job, whatever came of it, and so does the version that readers see;
so the ledger grows with documents, and not with how often they are updated. Versions are walked in the order
of their numbers, a page a transaction. What was replaced stays replaced, so no document need be locked.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ALONE = text("SELECT pg_try_advisory_xact_lock(7140560)")
_PAGE = text(
    """
    SELECT v.version, v.version < d.newest_version AND NOT EXISTS (
        SELECT FROM visibility s
        WHERE s.tenant = v.tenant AND s.document_id = v.document_id AND s.version = v.version) AS replaced
    FROM (SELECT version, tenant, document_id FROM versions
          WHERE version > :after AND created_at < now() - make_interval(secs => :age)
          ORDER BY version LIMIT :limit) AS v
    JOIN documents d ON d.tenant = v.tenant AND d.id = v.document_id
    ORDER BY v.version
    """
)
_OLD = """
    USING versions v WHERE v.version = ANY(CAST(:versions AS bigint[]))
      AND t.tenant = v.tenant AND t.document_id = v.document_id AND t.version = v.version
"""
_JOBS = text(
    f"DELETE FROM jobs t {_OLD} AND t.state NOT IN ('queued', 'running') "  # noqa: S608  (constants only)
    "AND t.finished_at < now() - make_interval(secs => :age)"
)
_REVISIONS = text(f"DELETE FROM revisions t {_OLD} AND t.state = 'swept'")  # noqa: S608
# While something of it may be left, an erasure must know of it.
_VERSIONS = text(
    """
    DELETE FROM versions v WHERE v.version = ANY(CAST(:versions AS bigint[]))
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant = v.tenant AND j.document_id = v.document_id
                      AND j.version = v.version)
      AND NOT EXISTS (SELECT FROM revisions r WHERE r.tenant = v.tenant AND r.document_id = v.document_id
                      AND r.version = v.version)
      AND NOT EXISTS (SELECT FROM loose_files f WHERE f.tenant = v.tenant
                      AND f.content_hash = v.content_hash COLLATE "C" AND NOT f.gone)
    """
)


async def forget(connection: AsyncConnection, after: int, age: float, limit: int) -> int | None:
    """Forget what is over of the next `limit` versions after this number, of those accepted more than `age`
    seconds ago; the last one that was looked at, None at the end or while somebody else is at it."""
    if not await connection.scalar(_ALONE):
        return None
    page = (await connection.execute(_PAGE, {"after": after, "age": age, "limit": limit})).all()
    await _forget(connection, [row.version for row in page if row.replaced], age)
    return page[-1].version if page else None


async def _forget(connection: AsyncConnection, versions: Sequence[int], age: float) -> None:
    if versions:
        these = {"versions": list(versions)}
        await connection.execute(_JOBS, {**these, "age": age})
        await connection.execute(_REVISIONS, these)
        await connection.execute(_VERSIONS, these)
