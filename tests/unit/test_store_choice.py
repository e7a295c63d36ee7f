"""Which store the settings name."""

from __future__ import annotations

import pytest

from app.settings import _ADDRESSES, SettingsError, load_settings
from app.stores import ADDRESSES, KINDS, Kind, named, open_store


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"milvus_uri": "http://127.0.0.1:1"}, "milvus"),
        ({"weaviate_url": "http://127.0.0.1:1"}, "weaviate"),
    ],
)
def test_the_named_store_is_chosen(given: dict[str, str], expected: str | None) -> None:
    kind = named(load_settings({}, **given))
    assert (kind and kind.name) == expected


def test_no_store_is_told_in_one_sentence_with_every_name() -> None:
    assert "MILVUS_URI" in ADDRESSES
    with pytest.raises(SettingsError, match=f"Not set: {ADDRESSES}"):
        open_store(load_settings({}))


def test_two_stores_are_told_in_one_sentence_with_both_names() -> None:
    both = load_settings({}, milvus_uri="http://127.0.0.1:1", weaviate_url="http://127.0.0.1:2")
    with pytest.raises(SettingsError, match="MILVUS_URI and WEAVIATE_URL are both set"):
        open_store(both)


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEAVIATE_URL", "weaviate:8080")
    with pytest.raises(SettingsError, match=r"WEAVIATE_URL: .*is not a URL like"):
        load_settings({})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_store_is_named_by_the_variable_that_people_know(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in KINDS:
        monkeypatch.delenv(other.setting.upper(), raising=False)
    monkeypatch.setenv(kind.setting.upper(), _ADDRESSES[kind.setting][1])
    assert named(load_settings()) is kind
