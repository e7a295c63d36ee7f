"""Measurements run on the embedder that the service would have: here one that only a server has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import build
from eval.ablation import Remembering
from eval.bench.embed import embed
from eval.encoders import encoder
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.errors import EmbedderUnavailable
from tests.embedding_server import EmbeddingServer, embedding_server
from tests.unit.test_openvino_embedder import small_model


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddingServer]:
    """Of the model `remote`, to which the settings point."""
    small_model(tmp_path / "small", find_model("all-MiniLM-L6-v2", None))
    tokenizer = tmp_path / "models" / "remote"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "config.json"):
        (tokenizer / name).write_bytes((tmp_path / "small" / name).read_bytes())
    async with embedding_server(OpenVinoEmbedder.load(tmp_path / "small", tmp_path / "graphs")) as server:
        monkeypatch.setenv("PLUMBLINE_EMBEDDER_URL", server.url)
        monkeypatch.setenv("PLUMBLINE_EMBEDDER_PATH", str(tmp_path / "models"))
        yield server


async def test_the_settings_decide_and_what_a_run_embedded_is_known_to_the_next(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    async with encoder("remote", tmp_path / "cache") as first:
        assert (first.spec.name, first.spec.dimension) == ("remote", 32)
        remembering = Remembering(first, tmp_path / "cache")
        made = await remembering.embed(["leave"])
        remembering.save()
    asked = len(server.asked)
    server.spoil = lambda data: [
        {**each, "embedding": [x * (1 + 1e-4 * n) for n, x in enumerate(each["embedding"])]} for each in data
    ]
    async with encoder("remote", tmp_path / "cache") as again:
        assert again.spec == first.spec
        assert np.array_equal(await Remembering(again, tmp_path / "cache").embed(["leave"]), made)
    assert len(server.asked) == asked + 1


async def test_a_bench_of_a_server_has_no_floor_on_this_machine(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    told = await embed("remote", 64, tmp_path / "cache", lambda line: None)
    assert told["model"] == "remote"
    assert told["tokens_a_second"] > 0
    assert "ratio_to_floor" not in told


async def test_the_bench_names_its_release_s_model(
    server: EmbeddingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release.toml"
    release.write_text('name = "r"\nmodels = [{name = "extractive"}]\n[index]\nembedder = "remote"\n')
    monkeypatch.setenv("PLUMBLINE_RELEASE", str(release))
    assert (await embed(None, 64, tmp_path / "cache", lambda line: None))["model"] == "remote"


def test_the_commands_say_in_a_sentence_that_there_is_no_such_embedder(tmp_path: Path) -> None:
    release = tmp_path / "release.toml"
    release.write_text('name = "r"\nmodels = [{name = "extractive"}]\n[index]\nembedder = "absent:int8"\n')
    told = CliRunner().invoke(build(), ["bench", "embed", "--model", "absent:int8"])
    assert told.exit_code == 2
    assert "PLUMBLINE_EMBEDDER_URL" in " ".join(told.output.split())
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "1", "title": "", "text": "Leave."}) + "\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "Leave?"}) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    told = CliRunner().invoke(
        build(),
        ["eval", "ablate", str(tmp_path), "--release", str(release), "--cache", str(tmp_path / "cache")],
    )
    assert told.exit_code == 2
    assert "PLUMBLINE_EMBEDDER_URL" in told.output


async def test_an_embedder_that_is_nowhere_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable):
        async with encoder("absent:int8", tmp_path):
            pass
