"""The vector stores that settings can name. A store's client is imported only where it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from app.settings import Settings, SettingsError
from retrieval.types import ServedStore

STORE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of store: `name` is what traces call it, `setting` the one that holds its address. `open`
    connects when the store is first used."""

    name: str
    setting: str
    open: Callable[[Settings], ServedStore]


def named(settings: Settings) -> Kind | None:
    """The store that the settings name, None for that of `plumbline up`. Raises `SettingsError` for two."""
    found = [kind for kind in KINDS if getattr(settings, kind.setting) is not None]
    if len(found) > 1:
        both = " and ".join(kind.setting.upper() for kind in found)
        raise SettingsError(f"{both} are both set; name one store.")
    return found[0] if found else None


def open_store(settings: Settings) -> ServedStore:
    """Connects when it is first used. Raises `SettingsError` unless exactly one store is named."""
    kind = named(settings)
    if kind is None:
        raise SettingsError(
            f"Not set: {ADDRESSES}. Set one of them in the environment, or run `plumbline up`, "
            "which starts Milvus Lite itself."
        )
    return kind.open(settings)


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


KINDS = (
    Kind(name="milvus", setting="milvus_uri", open=_milvus),
    Kind(name="weaviate", setting="weaviate_url", open=_weaviate),
)
ADDRESSES = " or ".join(kind.setting.upper() for kind in KINDS)
"""One of these says where the store is."""
