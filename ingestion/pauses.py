"""SQL about pauses: whose jobs are not leased now, and why. They outlive every process."""

from __future__ import annotations

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ingestion.types import Pause, PauseMode

EVERYBODY = "*"

_SET = text(
    """
    INSERT INTO pauses AS p (tenant, mode, reason, who) VALUES (:tenant, :mode, :reason, :who)
    ON CONFLICT (tenant) DO UPDATE SET mode = excluded.mode, reason = excluded.reason, who = excluded.who,
        since = CASE WHEN p.mode = excluded.mode THEN p.since ELSE now() END
    """
)
_END = text("DELETE FROM pauses WHERE tenant = :tenant")
_OF = text(
    "SELECT tenant, mode, reason, who, since FROM pauses WHERE tenant IN ('*', :tenant) ORDER BY tenant"
)


async def begin(
    connection: AsyncConnection, tenant: str | None, mode: PauseMode, reason: str, who: str
) -> None:
    """Lease nothing of this tenant (None: of anybody) from now on."""
    values = {"tenant": tenant or EVERYBODY, "mode": mode, "reason": reason, "who": who}
    await connection.execute(_SET, values)


async def end(connection: AsyncConnection, tenant: str | None) -> None:
    await connection.execute(_END, {"tenant": tenant or EVERYBODY})


async def of(connection: AsyncConnection, tenant: str | None) -> tuple[Pause, ...]:
    """Those that hold this tenant's jobs back (None: everybody's)."""
    rows = await connection.execute(_OF, {"tenant": tenant or EVERYBODY})
    return tuple(_pause(row) for row in rows)


def _pause(row: Row[tuple[object, ...]]) -> Pause:
    tenant = None if row.tenant == EVERYBODY else row.tenant
    return Pause(tenant=tenant, mode=row.mode, reason=row.reason, who=row.who, since=row.since)
