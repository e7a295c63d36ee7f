"""What a request needed is freed when it is over, and not when the collector comes: a body may be large, and
full collections stall whoever is being answered."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.service.http.house import Tenant

OURS = ("app.", "ingestion.", "llm.", "retrieval.", "uvicorn.", "starlette.")


@contextmanager
def collected() -> Iterator[list[str]]:
    """The types, of ours and of what serves them, of which the collector finds something after the block."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    found: list[str] = []
    try:
        yield found
        gc.collect()
        names = {f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage}
        found += sorted(name for name in names if name.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


QUESTION = [{"role": "user", "content": "When do owls hunt?"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": QUESTION}),
        ("/v1/chat/completions", {"messages": QUESTION, "stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user"}]}),
        ("/v1/search", {"query": "owls at night"}),
        ("/v1/summarize", {"text": "Owls hunt at night. They sleep by day. " * 5}),
        ("/v1/summarize", {"document_ids": ["owls"], "stream": True}),
        ("/v1/documents", {"documents": [{"id": "bats", "text": "Bats hunt at night, too."}]}),
    ],
    ids=["answer", "stream", "mistake", "search", "text", "summary", "document"],
)
async def test_a_request_leaves_nothing_to_the_collector(
    tenant: Tenant, path: str, body: dict[str, Any]
) -> None:
    await tenant.add({"id": "owls", "text": "Owls hunt at night. They sleep by day."})
    await tenant.http.post(path, json=body)
    with collected() as found:
        for _ in range(3):
            await tenant.http.post(path, json=body)
    assert found == []
