"""The vector store that the settings name."""

from __future__ import annotations

from typing import Protocol

from app.settings import Settings
from retrieval.stores.milvus import MilvusStore
from retrieval.types import Store

STORE_TIMEOUT = 5.0


class ServedStore(Store, Protocol):
    """A store behind a connection."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when it does not answer now."""
        ...

    async def close(self) -> None: ...


def open_store(settings: Settings) -> ServedStore:
    """Connects when it is first used. Raises `SettingsError` when no store is named."""
    settings.require("milvus_uri")
    token = settings.milvus_token
    return MilvusStore(
        settings.milvus_uri or "", token.get_secret_value() if token else None, timeout=STORE_TIMEOUT
    )
