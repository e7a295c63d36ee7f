"""Search as the service offers it: the serving release's index, within a deadline."""

from __future__ import annotations

from app import deadline as time_left
from app.ladder import rung_of
from app.rerankers import rerank_seconds
from app.serving import Current, Serving
from retrieval.search import search
from retrieval.types import Filter, Found


class Search:
    def __init__(self, current: Current) -> None:
        self._current = current

    async def find(
        self,
        query: str,
        where: Filter,
        *,
        deadline: float,
        limit: int | None = None,
        group_by_document: bool = False,
        pressure: float = 0.0,
        serving: Serving | None = None,
    ) -> tuple[Found, str]:
        """What matches, best first, and the id of the release that searched: `serving`, by default the
        champion. `pressure` is the share of the queue that is taken."""
        serving = serving or self._current()
        rung = rung_of(serving.release, pressure)
        async with time_left.within(deadline, "search"):
            found = await search(
                serving.index,
                query,
                where,
                serving.release.search,
                limit=limit,
                group_by_document=group_by_document,
                rerank_seconds=rerank_seconds(serving.release, deadline, rung),
            )
        return found, serving.release.id
