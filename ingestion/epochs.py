"""SQL about epochs of collections: each rises with every change that readers of the collection see."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_RISE = text(
    """
    UPDATE collections SET epoch = epoch + 1
    FROM (SELECT c.tenant, c.name FROM collections c
          JOIN unnest(CAST(:tenants AS text[]), CAST(:names AS text[])) AS n(tenant, name)
            ON c.tenant = n.tenant AND c.name = n.name
          ORDER BY c.tenant, c.name FOR UPDATE OF c) AS changed
    WHERE collections.tenant = changed.tenant AND collections.name = changed.name
    """
)


async def rise(connection: AsyncConnection, changed: Collection[tuple[str, str]]) -> None:
    """Those of these collections, each a tenant and a name."""
    names = {"tenants": [tenant for tenant, _ in changed], "names": [name for _, name in changed]}
    await connection.execute(_RISE, names)
