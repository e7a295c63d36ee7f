"""SQL about which workers there are: each tells of itself as often as it renews its leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.jobs import loads
from ingestion.types import WorkerStatus

REMEMBERED = 24 * 3600.0
"""Seconds after which a worker that is not heard of is forgotten."""

_TOLD = text(
    """
    INSERT INTO workers AS w (name, host, pid, version, lease, stopping, started_at, beat_at)
    VALUES (:name, :host, :pid, :version, :lease, :stopping, now(), now())
    ON CONFLICT (name) DO UPDATE SET host = excluded.host, pid = excluded.pid, version = excluded.version,
        lease = excluded.lease, stopping = excluded.stopping, beat_at = now(),
        started_at = CASE WHEN :fresh THEN now() ELSE w.started_at END
    """
)
_FORGET = text("DELETE FROM workers WHERE beat_at < now() - make_interval(secs => :age)")
_GONE = text("DELETE FROM workers WHERE name = :name")
_ALL = text(
    """
    SELECT w.name, w.host, w.pid, w.version, w.started_at, w.beat_at, held.jobs,
           CASE WHEN w.beat_at < now() - make_interval(secs => w.lease) THEN 'lost'
                WHEN w.stopping THEN 'stopping' WHEN held.jobs IS NULL THEN 'idle' ELSE 'working' END AS state
    FROM workers w LEFT JOIN (
        SELECT worker, jsonb_object_agg(stage, jobs) AS jobs
        FROM (SELECT worker, stage, count(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY 1, 2) AS s
        GROUP BY worker
    ) AS held ON held.worker = w.name
    ORDER BY w.host, w.started_at, w.name
    """
)


async def tell(connection: AsyncConnection, name: str, about: Mapping[str, Any]) -> None:
    """Note that this worker is there: `host`, `pid`, `version`, `lease`, whether it is `stopping`, and
    whether it is `fresh`: its first words."""
    await connection.execute(_TOLD, {"name": name, **about})
    if about["fresh"]:
        await connection.execute(_FORGET, {"age": REMEMBERED})


async def leave(connection: AsyncConnection, name: str) -> None:
    await connection.execute(_GONE, {"name": name})


async def listed(connection: AsyncConnection) -> list[WorkerStatus]:
    return [_status(row) for row in await connection.execute(_ALL)]


def _status(row: Row[Any]) -> WorkerStatus:
    return WorkerStatus(
        name=row.name,
        host=row.host,
        pid=row.pid,
        version=row.version,
        state=row.state,
        started_at=row.started_at,
        beat_at=row.beat_at,
        jobs=loads(row.jobs) or {},
    )
