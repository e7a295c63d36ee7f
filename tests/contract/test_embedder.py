"""One suite over all embedders: OpenVINO, one behind a real HTTP server, and sentence-transformers where the
extra is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import numpy as np
import pytest

from retrieval.embedders.http import EmbeddingServer, HttpEmbedder
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.embedders.prefixed import Prefixed, fitted
from retrieval.embedders.sentence_transformers import SentenceTransformersEmbedder
from retrieval.errors import EmbedderUnavailable, TextTooLong
from retrieval.types import Encoder, Prefixes
from tests.embedding_server import MemoryRecords, embedding_server

NAME = "all-MiniLM-L6-v2"
TEXTS = [
    "How many days of paid leave?",
    "Grüße aus 東京 🚀",
    "An employee has 28 days of leave a year.",
    "a" * 90,
]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    return OpenVinoEmbedder.load(find_model(NAME, None), tmp_path_factory.mktemp("models"), NAME)


@pytest.fixture(scope="module")
async def over_http(
    local: OpenVinoEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Encoder]:
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "config.json", "sentence_bert_config.json"):
        (folder / name).write_bytes((find_model(NAME, None) / name).read_bytes())
    async with embedding_server(local) as server, httpx.AsyncClient() as client:
        yield await HttpEmbedder.open(
            NAME, EmbeddingServer(server.url, NAME, client, seconds=60), folder, MemoryRecords()
        )


@pytest.fixture(scope="module")
def by_torch() -> Iterator[Encoder]:
    pytest.importorskip("sentence_transformers", reason="the extra `torch` is not installed")
    loaded = SentenceTransformersEmbedder.load(NAME, find_model(NAME, None))
    yield loaded
    loaded.close()


FIXTURES = {"openvino": "local", "http": "over_http", "sentence-transformers": "by_torch"}
"""What gives each embedder. A new one needs a line here."""


@pytest.fixture(params=FIXTURES)
def embedder(request: pytest.FixtureRequest) -> Encoder:
    made: Encoder = request.getfixturevalue(FIXTURES[request.param])
    return made


async def test_vectors_are_the_models_in_the_order_of_the_texts(
    embedder: Encoder, local: OpenVinoEmbedder
) -> None:
    texts = [f"{text} {number}" for number in range(25) for text in TEXTS]
    vectors = await embedder.embed(texts)
    assert vectors.shape == (100, 384)
    assert vectors.dtype == np.float32
    assert np.all((vectors * await local.embed(texts)).sum(1) > 0.999)


async def test_vectors_have_length_one(embedder: Encoder) -> None:
    assert np.allclose(np.linalg.norm(await embedder.embed(TEXTS), axis=1), 1, atol=1e-3)


async def test_no_texts_give_no_vectors(embedder: Encoder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.spec.dimension)


async def test_a_text_of_nothing_and_half_a_surrogate_pair_have_vectors(embedder: Encoder) -> None:
    nothing, broken, whole = await embedder.embed(["", "a \ud800 b", "a ? b"])
    assert np.isfinite(nothing).all()
    assert broken @ whole > 0.999


async def test_a_text_over_the_window_is_refused_and_one_that_fills_it_is_not(embedder: Encoder) -> None:
    window = embedder.spec.max_tokens
    assert (await embedder.embed([" ".join(["leave"] * (window - 2))])).shape == (1, 384)
    with pytest.raises(TextTooLong) as refused:
        await embedder.embed(["short", " ".join(["leave"] * (window - 1))])
    assert (refused.value.tokens, refused.value.limit) == (window + 1, window)


def test_spans_point_at_the_text(embedder: Encoder) -> None:
    text = "Grüße: unbelievable pumps"
    pieces = [text[start:end] for start, end in embedder.token_spans(text)]
    assert "".join(pieces) == text.replace(" ", "")
    assert len(pieces) > 3


async def test_each_side_is_embedded_behind_its_prefix_and_a_text_of_no_side_as_it_is(
    embedder: Encoder,
) -> None:
    prefixed = Prefixed(embedder, Prefixes(query="query: ", document="passage: "))
    assert prefixed.spec.prefixes == Prefixes("query: ", "passage: ")
    assert prefixed.spec != Prefixed(embedder).spec
    for side, prefix in (("query", "query: "), ("document", "passage: "), (None, "")):
        made = await prefixed.embed(TEXTS, side)  # type: ignore[arg-type]
        assert np.all((made * await embedder.embed([prefix + text for text in TEXTS])).sum(1) > 0.999)
    asked, read = await prefixed.embed(TEXTS[:1], "query"), await prefixed.embed(TEXTS[:1], "document")
    assert (asked * read).sum() < 0.99


async def test_a_prefix_takes_tokens_of_the_window(embedder: Encoder) -> None:
    prefixed = Prefixed(embedder, Prefixes(query="query: "))
    taken = len(embedder.token_spans("query: "))
    text = " ".join(["leave"] * (embedder.spec.max_tokens - 2 - taken))
    assert (await prefixed.embed([text], "query")).shape == (1, 384)
    assert fitted(prefixed, text, "query") == f"query: {text}"
    with pytest.raises(TextTooLong):
        await prefixed.embed([f"{text} leave"], "query")
    assert (await prefixed.embed([f"{text} leave"], "document")).shape == (1, 384)
    cut = fitted(prefixed, f"{text} leave", "query")
    assert cut == f"query: {text}"
    assert (await prefixed.embed([cut], None)).shape == (1, 384)


def test_a_prefix_that_leaves_less_than_half_of_the_window_is_refused(embedder: Encoder) -> None:
    with pytest.raises(EmbedderUnavailable, match=r"130 tokens.*256.*half"):
        Prefixed(embedder, Prefixes(document="leave " * 130))


async def test_calls_at_once_do_not_mix(embedder: Encoder, local: OpenVinoEmbedder) -> None:
    calls = [[f"{text} {number}" for text in TEXTS] * (1 + number % 12) for number in range(24)]
    answers = await asyncio.gather(*(embedder.embed(texts) for texts in calls))
    for texts, vectors in zip(calls, answers, strict=True):
        assert np.all((vectors * await local.embed(texts)).sum(1) > 0.999)
