"""The stores that the contract is tried on, each under its name. A new one needs a line in `_TRIED`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest

from retrieval.stores.memory import MemoryStore
from retrieval.stores.milvus import MilvusStore
from retrieval.stores.weaviate import WeaviateStore
from retrieval.types import ServedStore
from tests.weaviate_stand_in import Address

MakeStore = Callable[[], ServedStore]
"""Makes a client of one and the same store each time; `memory` alone makes a store of its own."""
At = Callable[[str, float], ServedStore]
"""Makes a client of whatever is at an address, whose requests may take so many seconds."""


@dataclass(frozen=True, slots=True)
class Tried:
    """`make` gives clients of a real store, or of what stands in for it."""

    make: Callable[[pytest.FixtureRequest], MakeStore]
    at: At


HOSTILE = (
    '" or tenant != "',
    "' or 1 == 1 --",
    '\\" or true or \\"',
    "back\\slash\\",
    "line\nfeed\r\ttab",
    "100%_like|x|",
    "日本語 🎉 ñ",
    "\u2028\u200b\x00\x1b",
    "$meta['x'] {y} ]})",
    " ",
)
"""Names and values that would be code, were they ever read as an expression."""


def _milvus(request: pytest.FixtureRequest) -> MakeStore:
    return partial(MilvusStore, request.getfixturevalue("milvus_uri"), flush_seconds=0.05)


def _weaviate(request: pytest.FixtureRequest) -> MakeStore:
    address: Address = request.getfixturevalue("weaviate_address")
    key = os.environ.get("WEAVIATE_API_KEY")
    return partial(WeaviateStore, address.url, key, grpc_url=address.grpc_url)


_TRIED: Mapping[str, Tried] = {
    "milvus": Tried(_milvus, lambda url, timeout: MilvusStore(url, timeout=timeout)),
    "weaviate": Tried(_weaviate, lambda url, timeout: WeaviateStore(url, timeout=timeout)),
}

SERVED = tuple(_TRIED)
EVERY = ("memory", *SERVED)
"""Those that are compared with the oracle in memory, and the oracle itself."""


def maker(request: pytest.FixtureRequest) -> MakeStore:
    """What makes the store that a fixture's parameter names."""
    return MemoryStore if request.param == "memory" else _TRIED[request.param].make(request)


def opener(request: pytest.FixtureRequest) -> At:
    """The same for an address at which there may be none."""
    return _TRIED[request.param].at
