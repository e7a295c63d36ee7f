"""What `plumbline doctor` says of the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from app.doctor import Finding, examine
from app.settings import load_settings
from tests.weaviate_stand_in import stand_in


async def _findings(data: Path, url: str, grpc_url: str | None = None) -> dict[str, Finding]:
    settings = load_settings({}, data=data, weaviate_url=url, weaviate_grpc_url=grpc_url)
    return {finding.name: finding for finding in await examine(settings)}


async def test_a_store_that_answers_is_in_order_and_none_other_is_asked_for(tmp_path: Path) -> None:
    with stand_in() as address:
        found = await _findings(tmp_path, address.url, address.grpc_url)
    assert found["weaviate"].state == "ok"
    assert address.url in found["weaviate"].detail
    assert not {"milvus", "milvus-lite", "milvus access"} & found.keys()


async def test_a_store_that_is_away_is_told_with_its_reason(tmp_path: Path) -> None:
    found = await _findings(tmp_path, "http://127.0.0.1:9")
    assert found["weaviate"].state == "fail"
    assert "Weaviate failed" in found["weaviate"].detail
