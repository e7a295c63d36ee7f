"""The embedder behind a URL, against a real server that fails in every way, and which embedder names get."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app import embedders
from app.doctor import _embedder
from app.embedders import Choice, choose
from app.settings import load_settings
from retrieval.embedders import http
from retrieval.embedders.checkpoint import declared_prefixes
from retrieval.embedders.http import EmbeddingServer, HttpEmbedder, Known
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.embedders.tokens import read_window
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Prefixes
from tests.embedding_server import EmbeddingServer as Server
from tests.embedding_server import MemoryRecords, embedding_server
from tests.unit.test_openvino_embedder import small_model

Data = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT."""
    folder = tmp_path_factory.mktemp("models") / "small"
    small_model(folder, find_model("all-MiniLM-L6-v2", None))
    return folder


@pytest.fixture(scope="module")
def small(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    return OpenVinoEmbedder.load(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture
async def server(small: OpenVinoEmbedder) -> AsyncIterator[Server]:
    async with embedding_server(small) as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


Open = Callable[..., Any]


@pytest.fixture
def opened(server: Server, client: httpx.AsyncClient, folder: Path) -> Open:
    records = MemoryRecords()

    async def open_(name: str = "small", **options: Any) -> HttpEmbedder:
        model = EmbeddingServer(server.url, name.partition("@")[0], client, **{"pause": 0.0, **options})
        return await HttpEmbedder.open(name, model, folder, records)

    return open_


async def test_batches_are_bounded_and_so_are_requests_at_once(opened: Open, server: Server) -> None:
    embedder = await opened(key="secret")
    server.delay = 0.02
    assert (await embedder.embed([f"text {n}" for n in range(400)])).shape == (400, 32)
    assert max(map(len, server.asked)) == 32
    assert server.most == 4
    assert set(server.keys) == {"Bearer secret"}
    assert len(set(server.peers)) <= 4


async def test_a_server_that_takes_fewer_texts_at_once_gets_no_more_from_then_on(
    opened: Open, server: Server, small: OpenVinoEmbedder
) -> None:
    embedder, texts = await opened(), [f"text {n}" for n in range(100)]
    server.most_texts = 8
    vectors = await embedder.embed(texts)
    assert np.all((vectors * await small.embed(texts)).sum(1) > 0.99)
    before = len(server.asked)
    await embedder.embed(texts)
    assert max(map(len, server.asked[before:])) <= 8
    assert len(server.asked) - before <= 25


async def test_one_text_that_the_server_finds_too_long_is_an_error_and_makes_no_batch_smaller(
    opened: Open, server: Server
) -> None:
    embedder, texts = await opened(), [f"text {n}" for n in range(31)]
    server.longest = 20
    with pytest.raises(EmbedderUnavailable, match=r"413.*shorter"):
        await embedder.embed([*texts[:30], "a text that is longer than it takes"])
    before = len(server.asked)
    await embedder.embed(texts)
    assert len(server.asked) == before + 1


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/embeddings"])
async def test_the_base_url_and_the_endpoint_both_work(
    path: str, server: Server, client: httpx.AsyncClient
) -> None:
    url = server.url.removesuffix("/v1") + path
    assert (await EmbeddingServer(url, "small", client).embed(["leave"])).shape == (1, 32)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status: int, opened: Open, server: Server) -> None:
    embedder = await opened()
    server.statuses = [status, status]
    assert (await embedder.embed(["leave"])).shape == (1, 32)


async def test_retries_end_and_have_a_budget(opened: Open, server: Server) -> None:
    embedder = await opened()
    server.statuses, before = [503] * 100, len(server.asked)
    for _ in range(20):
        with pytest.raises(EmbedderUnavailable, match="503"):
            await embedder.embed(["leave"])
    assert len(server.asked) - before == 20 + 10


@pytest.mark.parametrize(
    ("status", "hint"),
    [(500, ""), (401, "KEY"), (404, "URL"), (400, "shorter"), (413, "shorter"), (424, "log")],
)
async def test_other_refusals_are_told_at_once(status: int, hint: str, opened: Open, server: Server) -> None:
    embedder = await opened()
    server.statuses, before = [status], len(server.asked)
    with pytest.raises(EmbedderUnavailable, match=f"{status}.*{hint}"):
        await embedder.embed(["leave"])
    assert len(server.asked) == before + 1


def _of(value: Any) -> Callable[[Data], Data]:
    return lambda data: [{**each, "embedding": value(each["embedding"])} for each in data]


@pytest.mark.parametrize(
    "spoil",
    [
        _of(lambda vector: vector[:16]),
        _of(lambda vector: [float("nan"), *vector[1:]]),
        _of(lambda vector: [None, *vector[1:]]),
        _of(lambda vector: [0.0] * 32),
        _of(lambda vector: "text"),
        lambda data: data[1:],
        lambda data: [*data, {"index": len(data), "embedding": data[0]["embedding"]}],
        lambda data: [{**each, "index": 0} for each in data],
        lambda data: [{**data[0], "embedding": data[0]["embedding"][1:]}, *data[1:]],
        lambda data: "all good",
        lambda data: [{"index": each["index"]} for each in data],
    ],
)
async def test_a_reply_without_a_usable_vector_for_every_text_is_a_typed_error(
    spoil: Callable[[Data], Any], opened: Open, server: Server
) -> None:
    embedder = await opened()
    server.spoil = spoil
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(["leave", "pay"])
    server.spoil = lambda data: data
    assert (await embedder.embed(["leave"])).shape == (1, 32)


async def test_a_slow_server_is_given_up_and_left_alone_for_a_moment(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_SECONDS_A_TEXT", 0.0)
    embedder = await opened(seconds=1.0, pause=60.0)
    server.delay, before = 3, len(server.asked)
    with pytest.raises(EmbedderUnavailable, match="in time"):
        await embedder.embed(["leave"])
    with pytest.raises(EmbedderUnavailable, match="left alone"):
        await embedder.embed(["leave"])
    assert len(server.asked) == before + 1


async def test_a_server_that_is_down_keeps_only_a_model_that_is_not_known_yet_from_opening(
    small: OpenVinoEmbedder, client: httpx.AsyncClient, folder: Path
) -> None:
    records = MemoryRecords()
    nowhere = EmbeddingServer("http://127.0.0.1:9/v1", "small", client)
    with pytest.raises(EmbedderUnavailable, match="/v1/embeddings cannot be reached"):
        await HttpEmbedder.open("small", nowhere, folder, records)
    async with embedding_server(small) as server:
        first = await HttpEmbedder.open(
            "small", EmbeddingServer(server.url, "small", client), folder, records
        )
    second = await HttpEmbedder.open("small", nowhere, folder, records)
    assert second.spec == first.spec
    with pytest.raises(EmbedderUnavailable):
        await second.embed(["leave"])


class Other:
    """A model whose vectors differ from another's by some noise."""

    def __init__(self, embedder: OpenVinoEmbedder, noise: float) -> None:
        self._embedder, self._noise = embedder, noise
        self.spec = embedder.spec
        self._random = np.random.default_rng(3)

    async def embed(self, texts: Any) -> Any:
        vectors = await self._embedder.embed(texts)
        return vectors + self._random.normal(0, self._noise, vectors.shape) / np.sqrt(vectors.shape[1])

    def token_spans(self, text: str) -> Any:
        return self._embedder.token_spans(text)


async def test_another_model_of_the_same_name_is_refused_while_it_is_there_and_at_a_start(
    opened: Open, server: Server, small: OpenVinoEmbedder
) -> None:
    embedder = await opened()
    server.embedder = Other(small, 0.3)
    for texts in (["leave"], [f"text {n}" for n in range(100)]):
        with pytest.raises(EmbedderUnavailable, match=r"another model.*small@2"):
            await embedder.embed(texts)
    with pytest.raises(EmbedderUnavailable, match="another model"):
        await opened()
    server.embedder = small
    assert (await embedder.embed(["leave"])).shape == (1, 32)


async def test_what_half_precision_changes_is_no_other_model(
    opened: Open, server: Server, small: OpenVinoEmbedder
) -> None:
    first = await opened()
    server.embedder = Other(small, 0.03)
    again = await opened()
    assert again.spec == first.spec
    assert (await again.embed([f"text {n}" for n in range(100)])).shape == (100, 32)


async def test_a_mark_makes_another_embedder_of_what_the_server_calls_the_same(
    opened: Open, server: Server, small: OpenVinoEmbedder
) -> None:
    first = await opened()
    server.embedder = Other(small, 0.3)
    with pytest.raises(EmbedderUnavailable):
        await opened()
    server.embedder = small
    marked = await opened("small@2")
    assert marked.spec.artefact != first.spec.artefact
    assert set(server.models) == {"small"}


async def test_another_tokenizer_is_refused(
    opened: Open, folder: Path, tmp_path: Path, server: Server
) -> None:
    embedder = await opened()
    known = embedder._known
    copied = shutil.copytree(folder, tmp_path / "other")
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
    with pytest.raises(EmbedderUnavailable, match="not the tokenizer"):
        await HttpEmbedder.open("small", embedder._server, copied, MemoryRecords({"small": known}))


def test_each_part_of_what_is_known_is_in_the_artefact() -> None:
    vectors = np.eye(4, 8, dtype=np.float32)
    one = Known(name="a", tokenizer="t", vectors=vectors)
    others = [
        Known(name="b", tokenizer="t", vectors=vectors),
        Known(name="a", tokenizer="u", vectors=vectors),
        Known(name="a", tokenizer="t", vectors=vectors[:, ::-1]),
        Known(name="a", tokenizer="t", vectors=np.eye(4, 16, dtype=np.float32)),
    ]
    assert len({known.artefact for known in (one, *others)}) == 5


async def test_calls_that_fail_leave_no_request_behind(opened: Open, server: Server) -> None:
    embedder = await opened()
    server.delay, server.statuses, before = 0.05, [500], len(server.asked)
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed([f"text {n}" for n in range(1000)])
    await asyncio.sleep(0.3)
    assert len(server.asked) - before <= 8


def test_a_folder_without_a_window_says_what_belongs_there(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tokenizer.json", tmp_path)
    with pytest.raises(EmbedderUnavailable, match=r"config\.json"):
        read_window(tmp_path)


@pytest.mark.parametrize(
    ("files", "window"),
    [
        ({"config.json": {"max_position_embeddings": 514, "model_type": "xlm-roberta"}}, 512),
        (
            {
                "config.json": {"max_position_embeddings": 512},
                "sentence_bert_config.json": {"max_seq_length": 256},
            },
            256,
        ),
        ({"tokenizer_config.json": {"model_max_length": 8192}, "config.json": {}}, 8192),
        (
            {
                "tokenizer_config.json": {"model_max_length": 10**30},
                "config.json": {"max_position_embeddings": 99},
            },
            99,
        ),
    ],
)
def test_the_window_is_what_the_models_configuration_says(
    files: dict[str, Any], window: int, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_window(tmp_path) == window


def test_names_that_are_here_stay_here_and_others_go_to_the_url(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bge").mkdir()
    shutil.copy(folder / "tokenizer.json", tmp_path / "bge")
    shutil.copytree(folder, tmp_path / "small")
    settings = load_settings({}, embedder_url="http://127.0.0.1:9/v1", embedder_path=tmp_path)
    assert choose("all-MiniLM-L6-v2:int8", settings).by == "openvino"
    assert choose("small", settings).by == "openvino"
    assert choose("bge@2", settings).by == "http"
    assert choose("bge@2", settings).folder == tmp_path / "bge"
    with pytest.raises(EmbedderUnavailable, match=r"tokenizer\.json.*PLUMBLINE_EMBEDDER_PATH"):
        choose("e5", settings)


def test_what_no_way_is_open_to_names_the_three_and_sentence_transformers_takes_it_where_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model(tmp_path / "roberta", folder, model_type="roberta")
    settings = load_settings({}, embedder_path=tmp_path)
    monkeypatch.setattr(embedders, "is_installed", lambda: False)
    for name in ("roberta", "org/absent"):
        with pytest.raises(EmbedderUnavailable, match=r"EMBEDDER_PATH.*EMBEDDER_URL.*plumbline\[torch\]"):
            choose(name, settings)
    monkeypatch.setattr(embedders, "is_installed", lambda: True)
    assert choose("roberta", settings) == Choice("sentence_transformers", tmp_path / "roberta")
    assert choose("org/absent", settings) == Choice("sentence_transformers", None)
    assert choose("all-MiniLM-L6-v2", settings).by == "openvino"


def test_the_key_comes_from_a_file_and_the_doctor_says_where_the_embedder_is(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("secret\n")
    (tmp_path / "release.toml").write_text(
        'name = "r"\nmodels = [{name = "extractive"}]\n[index]\nembedder = "e5"\n'
    )
    shutil.copy(folder / "tokenizer.json", tmp_path)
    settings = load_settings(
        {"PLUMBLINE_EMBEDDER_KEY_FILE": str(tmp_path / "key")},
        embedder_url="http://127.0.0.1:9/v1",
        embedder_path=tmp_path,
        release=tmp_path / "release.toml",
    )
    assert settings.embedder_key
    assert settings.embedder_key.get_secret_value() == "secret"
    finding = _embedder(settings)
    assert finding.state == "ok"
    assert "http://127.0.0.1:9/v1" in finding.detail


@pytest.mark.parametrize(
    ("prompts", "declared"),
    [
        ({}, Prefixes()),
        ({"prompts": {"query": "", "document": ""}, "default_prompt_name": None}, Prefixes()),
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, Prefixes("query: ", "passage: ")),
        ({"prompts": {"query": "Instruct: x\nQuery:"}}, Prefixes("Instruct: x\nQuery:", "")),
        ({"prompts": {"any": "text: "}, "default_prompt_name": "any"}, Prefixes("text: ", "text: ")),
    ],
)
def test_the_doctor_tells_what_a_folder_says_of_prefixes_and_a_release_does_not(
    prompts: dict[str, Any], declared: Prefixes, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert declared_prefixes(tmp_path) == declared
    release = tmp_path / "release.toml"
    settings = load_settings(
        {}, embedder_url="http://127.0.0.1:9/v1", embedder_path=tmp_path, release=release
    )
    plain = 'name = "r"\nmodels = [{name = "extractive"}]\n[index]\nembedder = "e5"\n'
    release.write_text(plain)
    finding = _embedder(settings)
    assert finding.state == ("ok" if declared == Prefixes() else "warn")
    if finding.state == "warn":
        assert f"query_prefix = {json.dumps(declared.query)}" in finding.remedy
        as_told = (
            f"document_prefix = {json.dumps(declared.document)}\n"
            f"[search]\nquery_prefix = {json.dumps(declared.query)}\n"
        )
        release.write_text(plain + as_told)
        assert _embedder(settings).state == "ok"
        if declared.query and not declared.document:
            release.write_text(plain + '[search]\nquery_prefix = "An instruction of our own: "\n')
            assert _embedder(settings).state == "ok"
