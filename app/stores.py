"""The vector store that the settings name. A store's client is imported only where it is used."""

from __future__ import annotations

from typing import Protocol

from pydantic import SecretStr

from app.settings import Settings, SettingsError
from retrieval.types import Store

STORE_TIMEOUT = 5.0


class ServedStore(Store, Protocol):
    """A store behind a connection."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when it does not answer now."""
        ...

    async def close(self) -> None: ...


def open_store(settings: Settings) -> ServedStore:
    """Connects when it is first used. Raises `SettingsError` unless exactly one store is named."""
    match settings.store():
        case "milvus":
            return _milvus(settings)
        case "weaviate":
            return _weaviate(settings)
        case None:
            raise SettingsError(
                "Not set: MILVUS_URI or WEAVIATE_URL. Set one of them in the environment, or run "
                "`plumbline up`, which starts Milvus Lite itself."
            )


def _milvus(settings: Settings) -> ServedStore:
    from retrieval.stores.milvus import MilvusStore

    return MilvusStore(settings.milvus_uri or "", _plain(settings.milvus_token), timeout=STORE_TIMEOUT)


def _weaviate(settings: Settings) -> ServedStore:
    try:
        from retrieval.stores.weaviate import WeaviateStore
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"WEAVIATE_URL is set, and {error.name} is not installed: `pip install 'plumbline[weaviate]'`."
        ) from None
    return WeaviateStore(
        settings.weaviate_url or "",
        _plain(settings.weaviate_api_key),
        grpc_url=settings.weaviate_grpc_url,
        timeout=STORE_TIMEOUT,
    )


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
