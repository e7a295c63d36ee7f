"""SQL about how long jobs take: what one costs in seconds of work, and when those that wait will be done.

What a document of each type costs, and each byte of it, is learned from the jobs that succeeded lately, and
so is how many seconds of work the workers get through in one second while there is more than they can do.
Estimates are worked out when they are read. Nothing is promised that is not known: before the first job
succeeded, while leasing is paused or no worker is heard of, there is no estimate.
"""

# SQL is put together from this file's constants only; every value is bound.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.types import Job

LEARN_FROM = 400
UNKNOWN_FIXED, UNKNOWN_RATE = 0.005, 1e-5
"""Seconds a document and, besides, a byte of plain text, before any was measured."""
BELIEF_SECONDS = 0.5
"""Of work, that what was believed of a byte before counts as; of a document, one document."""
LEAST_SHARE = 0.05
"""Of what was believed, that a document costs at least: noise may say less than nothing."""
ODD = 8.0
"""Times what was believed: a document that took longer says no more than that about other types."""
FIRST_LATENCY, MOST_LATENCY = 0.5, 2.0
MOST_UNTOLD = 0.7
"""Of what runs, so much may have been done without being told."""
LEAST_EMBEDDED = 0.3
"""Reading takes no larger part of the work than the rest of this."""
DEBT_SECONDS = 3600
"""A tenant that had nothing to do for so long begins anew."""

WAITING = "q.state = 'queued' AND q.generation IS NULL"
OPEN = "NOT EXISTS (SELECT FROM pauses p WHERE p.tenant = '*' OR p.tenant = {tenant})"

# How much text a byte holds, by rule of thumb, for types that were not met lately.
_DENSITY = (
    "CASE WHEN {0}.media_type LIKE 'text/html%' THEN 0.4 "
    "WHEN {0}.media_type LIKE 'text/%' OR {0}.media_type LIKE 'application/json%' THEN 1.0 ELSE 0.15 END"
)
_DONE = "state = 'succeeded' AND generation IS NULL AND finished_at > now() - interval '7 days'"


def _fit(fixed: str, rate: str, work: str = "work", of: str = "size", where: str = "true") -> str:
    """What a document and a byte cost, as columns of a query, from what was believed and what was measured of
    recent jobs: each says as much about bytes as they were believed to make up of its cost, so that tiny ones
    say little, and of what is left of it the rest."""
    return f"""
        WITH believed AS (
            SELECT bytes, cost, {work} AS work, {rate} * bytes / cost AS share
            FROM (
                SELECT r.work, {of} AS bytes, {fixed} + {rate} * {of} AS cost FROM recent r WHERE {where}
            ) AS measured
        ), learned AS (
            SELECT {rate} * ({BELIEF_SECONDS} + coalesce(sum(work * share * share), 0))
                / ({BELIEF_SECONDS} + coalesce(sum(cost * share * share), 0)) AS a_byte FROM believed
        )
        SELECT max(a_byte) AS rate, greatest({LEAST_SHARE} * {fixed},
            ({fixed} + coalesce(sum((work - a_byte * bytes) * (1 - share)), 0))
            / (1 + coalesce(sum(1 - share), 0))) AS fixed
        FROM learned LEFT JOIN believed ON true
    """


RATES = f"""
    recent AS MATERIALIZED (
        SELECT r.media_type, r.size, r.work, {_DENSITY.format("r")} AS density
        FROM jobs r WHERE {_DONE} AND r.work > 0 ORDER BY finished_at DESC LIMIT {LEARN_FROM}
    ), mean AS MATERIALIZED (
        {_fit(str(UNKNOWN_FIXED), str(UNKNOWN_RATE), f"least(work, {ODD} * cost)", "size * density")}
    ), rates AS MATERIALIZED (
        SELECT types.media_type, fitted.fixed, fitted.rate
        FROM mean CROSS JOIN (SELECT DISTINCT media_type, density FROM recent) AS types CROSS JOIN LATERAL (
            {_fit("mean.fixed", "(mean.rate * types.density)", where="r.media_type = types.media_type")}
        ) AS fitted
    )
"""
"""Seconds of work a document and a byte: by type, and of plain text where a type was not met lately."""


FIXED = "coalesce(rates.fixed, mean.fixed)"
RATE = f"coalesce(rates.rate, mean.rate * {_DENSITY.format('q')})"
COST = f"({FIXED} + q.size * {RATE})"
"""The seconds of work of a job `q`, in a statement that has `RATES` and joins `COSTS` to it."""
COSTS = "LEFT JOIN rates ON rates.media_type = q.media_type CROSS JOIN mean"


HAD = f"CASE WHEN s.at > now() - make_interval(secs => {DEBT_SECONDS}) THEN s.finish END"
TAG = f"greatest({HAD}, floor.tag, 0)"
FLOOR = "(SELECT max(start) AS tag FROM shares) AS floor"
"""Where a tenant's next work begins (of its row `s` of `shares`): after what it had, and not before what
others began at last, so that nobody saves up turns."""

# Times at which jobs were worked on without a gap; of those in which some had to wait, how much got done.
_LEARNED = text(
    f"""
    WITH recent AS (
        SELECT work, leased_at, finished_at, worker, split_part(worker, '/', 1) AS host,
               leased_at - greatest(created_at, run_after) > interval '1 second' AS waited
        FROM jobs WHERE {_DONE} AND leased_at IS NOT NULL ORDER BY finished_at DESC LIMIT {LEARN_FROM}
    ), marked AS (
        SELECT *, max(finished_at) OVER (ORDER BY leased_at, finished_at
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM recent
    ), placed AS (
        SELECT *, count(*) FILTER (WHERE before IS NULL OR leased_at > before)
            OVER (ORDER BY leased_at, finished_at) AS stretch FROM marked
    ), stretches AS (
        SELECT sum(work) AS work, extract(epoch FROM max(finished_at) - min(leased_at)) AS seconds,
               bool_or(waited) AS busy, min(leased_at) AS begun, max(finished_at) AS ended
        FROM placed GROUP BY stretch
    )
    SELECT
        (SELECT count(*) FROM recent) AS finished,
        (SELECT sum(work) / nullif(sum(seconds), 0) FROM stretches WHERE busy) AS capacity,
        last.work AS last_work, last.begun AS last_begun, last.ended AS last_finish, now() AS now,
        (SELECT min(extra) FROM (
            SELECT extract(epoch FROM max(finished_at) - leased_at) - sum(work) AS extra
            FROM recent GROUP BY leased_at, worker) AS batches WHERE extra > 0) AS latency,
        (SELECT count(DISTINCT host) FROM recent) AS hosts_then,
        (SELECT count(DISTINCT host) FROM workers
         WHERE beat_at > now() - make_interval(secs => lease) AND NOT stopping) AS hosts,
        NOT {OPEN.format(tenant=":tenant")} AS paused
    FROM (VALUES (1)) AS always LEFT JOIN LATERAL (
        SELECT work, begun, ended FROM stretches ORDER BY ended DESC LIMIT 1) AS last ON true
    """
)
_RUNNING = text(
    f"""
    WITH {RATES} SELECT q.stage, q.done, q.total, q.leased_at, q.moved_at, {COST} AS work FROM jobs q {COSTS}
    WHERE q.state = 'running' AND q.generation IS NULL AND q.leased_at IS NOT NULL
    """
)
_QUEUES = text(
    f"""
    WITH {RATES}, sizes AS MATERIALIZED (
        SELECT q.tenant, q.media_type, count(*) AS jobs, sum(q.size) AS bytes
        FROM jobs q WHERE {WAITING} GROUP BY q.tenant, q.media_type
    ), waiting AS (
        SELECT q.tenant, sum(q.jobs) AS jobs, sum(q.jobs * {FIXED} + q.bytes * {RATE}) AS work
        FROM sizes q {COSTS} WHERE {OPEN.format(tenant="q.tenant")} GROUP BY q.tenant
    )
    SELECT w.tenant, w.jobs, w.work, {TAG} AS tag
    FROM waiting w LEFT JOIN shares s ON s.tenant = w.tenant CROSS JOIN {FLOOR}
    """
)
_PLACES = text(
    f"""
    WITH {RATES}, waiting AS (
        SELECT q.id, q.priority, q.seq, {COST} AS cost FROM jobs q {COSTS}
        WHERE {WAITING} AND q.tenant = :tenant
    ), queue AS (
        SELECT id, cost, row_number() OVER turn - 1 AS place, sum(cost) OVER turn - cost AS ahead
        FROM waiting WINDOW turn AS (ORDER BY priority, seq)
    )
    SELECT id, place, ahead, cost FROM queue WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)


@dataclass(frozen=True, slots=True)
class Line:
    """A tenant's jobs that wait: `work` in seconds, the first of it beginning at `tag`."""

    tenant: str
    jobs: int
    work: float
    tag: float

    def before(self, tag: float) -> tuple[float, float]:
        """Of this line, the jobs and the work whose turn comes before work that begins at `tag`."""
        if self.work <= 0:
            return 0, 0.0
        work = min(max(tag - self.tag, 0.0), self.work)
        return self.jobs * work / self.work, work


@dataclass(frozen=True, slots=True)
class Pace:
    """`capacity` is seconds of work that get done in one second, None while nothing can be told; `latency`
    what the work itself does not explain; `left` is what is still to do of the jobs that run, by when they
    were leased."""

    capacity: float | None
    latency: float
    left: tuple[tuple[datetime, float], ...]

    def until(self, work: float, since: datetime | None = None) -> float | None:
        """Seconds until so much work is done, after what runs (or what runs and was leased up to `since`)."""
        if self.capacity is None:
            return None
        running = sum(left for leased, left in self.left if since is None or leased <= since)
        return self.latency + (running + work) / self.capacity


async def pace(connection: AsyncConnection, tenant: str) -> Pace:
    """How fast the work of this tenant (`*`: of all) goes now."""
    learned = (await connection.execute(_LEARNED, {"tenant": tenant})).one()
    running = (await connection.execute(_RUNNING)).all()
    latency = FIRST_LATENCY if learned.latency is None else min(float(learned.latency), MOST_LATENCY)
    together: dict[datetime, list[Row[Any]]] = {}
    for row in running:
        together.setdefault(row.leased_at, []).append(row)
    batches = [together[leased] for leased in sorted(together)]
    capacity = _capacity(learned, batches)
    return Pace(capacity, latency, _left(batches, learned, capacity or 0.0))


def _left(
    batches: Sequence[Sequence[Row[Any]]], learned: Row[Any], capacity: float
) -> tuple[tuple[datetime, float], ...]:
    """What is still to do of the jobs that were leased together, the first first. They end in that order, so
    what got done since the last one ended was done on the first; how much that is, a job itself tells only
    while it is long."""
    if not batches:
        return ()
    first: datetime = batches[0][0].leased_at
    done = capacity * max(0.0, (learned.now - max(first, learned.last_finish or first)).total_seconds())
    left: list[tuple[datetime, float]] = []
    for rows in batches:
        work = _told(rows, capacity)
        if work is None:
            work = _of_batch(rows)
            spent = min(done, MOST_UNTOLD * work)
            done = max(0.0, done - work)
        else:
            untold = capacity * max(0.0, (learned.now - rows[0].moved_at).total_seconds())
            spent, done = min(untold, MOST_UNTOLD * work), 0.0
        left.append((rows[0].leased_at, work - spent))
    return tuple(left)


def _told(rows: Sequence[Row[Any]], capacity: float) -> float | None:
    """What is left of a job of which nothing else is worked on in its batch, by how long it took for what it
    says is done: what its bytes promised no longer matters. None before it says so."""
    if len(rows) != 1 or rows[0].stage != "embed" or not rows[0].done:
        return None
    undone = _undone(rows[0])
    took = (rows[0].moved_at - rows[0].leased_at).total_seconds()
    return float(capacity * took * undone / (1 - undone))


def _of_batch(rows: Sequence[Row[Any]]) -> float:
    """What is left of jobs that were leased together, as far as they tell."""
    work = sum(float(row.work) for row in rows)
    left = sum(float(row.work) * _undone(row) for row in rows)
    return max(left - _read(rows), min(left, LEAST_EMBEDDED * work))


def _read(rows: Sequence[Row[Any]]) -> float:
    """The seconds for which jobs that now wait to be embedded were read."""
    if any(row.stage != "embed" or row.done for row in rows):
        return 0.0
    return float(max((row.moved_at - row.leased_at).total_seconds() for row in rows))


def _capacity(learned: Row[Any], batches: Sequence[Sequence[Row[Any]]]) -> float | None:
    """More hosts do more, more processes of one host hardly. Before there was more to do than could be done
    at once, it is what was done since the work began, what is under way included."""
    if not learned.finished or not learned.hosts or learned.paused:
        return None
    if learned.capacity:
        return float(learned.capacity * learned.hosts) / max(1, int(learned.hosts_then))
    under_way = [rows for rows in batches if rows[0].leased_at < learned.last_finish]
    end = learned.now if under_way else learned.last_finish
    done = float(learned.last_work) + sum(_read(rows) for rows in under_way)
    seconds = max(0.1, float((end - learned.last_begun).total_seconds()))
    return max(1.0, done / seconds) * float(learned.hosts)


def _undone(row: Row[Any]) -> float:
    """The part of a running job's work that is still to do: most of it is embedding."""
    match row.stage:
        case "parse":
            return 1.0
        case "embed":
            return float(0.95 - 0.85 * row.done / max(1, row.total))
    return 0.3


async def lines(connection: AsyncConnection) -> dict[str, Line]:
    """What waits, by tenant, of those whose jobs are leased now."""
    rows = await connection.execute(_QUEUES)
    return {row.tenant: Line(row.tenant, int(row.jobs), float(row.work), float(row.tag)) for row in rows}


def elsewhere(others: Sequence[Line], tag: float) -> tuple[int, float]:
    """Of other tenants, the jobs and the work whose turn comes before work that begins at `tag`."""
    found = [line.before(tag) for line in others]
    return round(sum(jobs for jobs, _ in found)), sum(work for _, work in found)


async def estimated(connection: AsyncConnection, tenant: str, jobs: Sequence[Job]) -> list[Job]:
    """These jobs of one tenant, with position and estimate where they have not ended."""
    if all(job.state not in ("queued", "running") for job in jobs):
        return list(jobs)
    now = await pace(connection, tenant)
    waiting = [job.id for job in jobs if job.state == "queued"]
    places = await _places(connection, tenant, waiting, now) if waiting else {}

    def estimate(job: Job) -> Job:
        if job.state == "running":
            return replace(job, eta_seconds=now.until(0.0, job.leased_at))
        if job.id not in places:
            return job
        position, eta = places[job.id]
        return replace(job, position=position, eta_seconds=eta)

    return [estimate(job) for job in jobs]


async def _places(
    connection: AsyncConnection, tenant: str, ids: Sequence[str], now: Pace
) -> dict[str, tuple[int, float | None]]:
    """Position and estimate of each of these queued jobs. Tenants share by work: ahead of a job is its own
    tenant's work before it, and as much of every other's."""
    waiting = await lines(connection)
    own = waiting.pop(tenant, None)
    others = list(waiting.values())
    found: dict[str, tuple[int, float | None]] = {}
    for row in await connection.execute(_PLACES, {"tenant": tenant, "ids": ids}):
        jobs, work = elsewhere(others, (own.tag if own else 0.0) + float(row.ahead))
        eta = now.until(work + float(row.ahead + row.cost))
        found[str(row.id)] = (row.place + jobs, eta)
    return found
