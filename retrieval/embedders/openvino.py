"""BERT-family embedding on the CPU by OpenVINO, in the embedded and single-server installations.

The graph is built from safetensors once and kept; a later start loads it. Each core does a batch of its own:
threads that share one wait for each other many times, and where something else runs on one core, all of them
for it. Callers take turns, a small batch at a time, so that a question waits for a batch that is running and
not for the whole document that came before it; questions that wait together go together.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import openvino as ov
from openvino import opset13 as op
from tokenizers import Tokenizer

from retrieval.embedders.checkpoint import TOKENIZER, Checkpoint, Tensor, find_model, is_int8, read_checkpoint
from retrieval.embedders.tokens import batches, encodable, open_tokenizer
from retrieval.errors import EmbedderUnavailable, TextTooLong
from retrieval.types import EmbedderSpec, Matrix

__all__ = ["OpenVinoEmbedder", "find_model"]

log = logging.getLogger(__name__)

# Raised when `_Bert` builds another graph from the same weights.
_GRAPH = 1
_SHARE = Path("/sys/fs/cgroup/cpu.max")
# One turn: enough to fill the cores, short enough to wait for.
_TURN_TEXTS = 32
_TURN_TOKENS = 1024
_TOKENIZE_TEXTS = 128
# Characters that are tokenized sooner than a thread has taken them up.
_TOKENIZE_HERE = 2_048
# OpenVINO makes ready anew for a shape that the last call did not have, which costs a question a quarter of
# its time; so short texts come in few lengths.
_STEP = 16
_SHORT = 64
# Lengths for which a text alone has a graph of its own, after so many such texts: each costs 32 MiB and a
# third of a second.
_LONE_STEP = 8
_LONE = 32
_OFTEN = 16
# Inputs of a product that share a scale, in the quantised form.
_GROUP = 64


class OpenVinoEmbedder:
    """Use `load`. Safe to share between tasks of one event loop or several."""

    def __init__(
        self,
        model: ov.CompiledModel,
        cores: int,
        tokenizer: Tokenizer,
        spec: EmbedderSpec,
        lone: Callable[[int], ov.CompiledModel],
    ) -> None:
        """`model` does so many batches at once, a thread each; `lone` makes one for a text alone, of so many
        tokens."""
        self._cores = cores
        self._requests = [model.create_infer_request() for _ in range(cores)]
        self._lone = _Lone(lone)
        self._tokenizer = tokenizer
        self._spec = spec
        # The binding sets itself up at the first call; two threads that do so at once wait for each other
        # for ever, one with the interpreter's lock and one with the set-up's.
        for request in self._requests:
            _infer(request, [[0]])
        self._threads = ThreadPoolExecutor(cores, thread_name_prefix="embedder")
        self._alone: deque[_Turn] = deque()
        self._waiting: list[_Turn] = []
        self._calls = count()
        self._alone_last = False
        self._choosing = Lock()

    @classmethod
    def load(cls, folder: Path, cache: Path, name: str | None = None) -> OpenVinoEmbedder:
        """Load the model in `folder`, keeping its graph under `cache`. Blocks, for a second or so. `name` is
        for people, by default the folder's; with `:int8` at its end it is another embedder, whose products
        are in whole numbers."""
        checkpoint = read_checkpoint(folder)
        int8 = is_int8(name or "")
        artefact = checkpoint.artefact()
        spec = EmbedderSpec(
            name=name or folder.name,
            artefact=hashlib.sha256(f"{artefact}\nint8/{_GROUP}".encode()).hexdigest() if int8 else artefact,
            dimension=checkpoint.dimension,
            max_tokens=checkpoint.max_tokens,
        )
        cores = usable_cores()
        home = cache / spec.artefact
        model, compiled = _compiled(checkpoint, home, cores, int8)
        return cls(
            compiled,
            cores,
            open_tokenizer(folder / TOKENIZER),
            spec,
            lambda width: _compiled_for(model, width, int8),
        )

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """Embed texts in the given order. A text longer than the window raises `TextTooLong` before any
        is embedded."""
        call = next(self._calls)
        ids: list[list[int]] = []
        if sum(map(len, texts)) <= _TOKENIZE_HERE:
            ids = self._encode(texts) if texts else []
        else:
            for start in range(0, len(texts), _TOKENIZE_TEXTS):
                ids += await asyncio.to_thread(self._encode, texts[start : start + _TOKENIZE_TEXTS])
        vectors = np.empty((len(texts), self._spec.dimension), dtype=np.float32)
        # The long ones first, so that no core is left alone with one at the end.
        parts = list(batches([len(text) for text in ids], _TURN_TEXTS, _TURN_TOKENS))[::-1]
        left = iter(parts)
        places = count()

        async def lane() -> None:
            for part in left:
                turn = _Turn(call, next(places), len(parts) == 1, [ids[index] for index in part])
                vectors[part] = await self._made(turn)

        if len(parts) == 1:
            await lane()
            return vectors
        # One turn waits, so that a core need not wait for the event loop.
        await asyncio.gather(*(lane() for _ in range(min(len(parts), self._cores + 1))))
        return vectors

    async def _made(self, turn: _Turn) -> Matrix:
        with self._choosing:
            if turn.alone:
                self._alone.append(turn)
            else:
                heappush(self._waiting, turn)
        self._threads.submit(self._work)
        made: Matrix = await asyncio.wrap_future(cast("Future[Any]", turn.made))
        return made

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones."""
        encoding = self._tokenizer.encode(encodable(text), add_special_tokens=False)
        offsets: list[tuple[int, int]] = encoding.offsets
        return offsets

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids = [found.ids for found in self._tokenizer.encode_batch_fast([encodable(text) for text in texts])]
        longest = max(map(len, ids))
        if longest > self._spec.max_tokens:
            raise TextTooLong(longest, self._spec.max_tokens)
        return ids

    def _work(self) -> None:
        """Do the turn that is next, and with it those behind it that fit the batch."""
        with self._choosing:
            together = self._next()
            if not together:
                return
            texts = [text for turn in together for text in turn.texts]
            lone = self._lone.take(len(texts[0])) if len(texts) == 1 else None
            request = lone or self._requests.pop()
        try:
            vectors = _infer(request, texts, _lone_width(len(texts[0])) if lone else None)
        except BaseException as error:  # noqa: BLE001  (whoever waits is told)
            for turn in together:
                turn.made.set_exception(error)
            return
        finally:
            if lone:
                self._lone.give(lone, len(texts[0]))
            else:
                self._requests.append(request)
        for turn in together:
            turn.made.set_result(vectors[: len(turn.texts)])
            vectors = vectors[len(turn.texts) :]

    def _next(self) -> list[_Turn]:
        """Of calls with many turns the older goes first: it is done sooner than if they took turns, the
        newer no later, and texts of like length stay together. One that is its call's only turn waits for
        none but every second of them."""
        self._alone_last = bool(self._alone) and not (self._alone_last and self._waiting)
        queue = self._alone if self._alone_last else self._waiting
        together, texts = list[_Turn](), list[list[int]]()
        while queue and (not texts or _fit([*texts, *queue[0].texts])):
            turn = self._alone.popleft() if self._alone_last else heappop(self._waiting)
            if turn.made.set_running_or_notify_cancel():
                together.append(turn)
                texts += turn.texts
        return together


class _Lone:
    """Graphs for one text of one length, which need not be made ready for another: those of the lengths that
    questions keep coming in. Each is made aside, while the texts go on without."""

    def __init__(self, make: Callable[[int], ov.CompiledModel]) -> None:
        self._make = make
        self._asked: Counter[int] = Counter()
        self._free: dict[int, ov.InferRequest] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    def take(self, tokens: int) -> ov.InferRequest | None:
        """The request for a text of so many tokens, to be given back; None while none is there or free."""
        width = _lone_width(tokens)
        if width > _LONE:
            return None
        self._asked[width] += 1
        if self._asked[width] == _OFTEN:
            self._thread.submit(self._add, width)
        return self._free.pop(width, None)

    def give(self, request: ov.InferRequest, tokens: int) -> None:
        self._free[_lone_width(tokens)] = request

    def _add(self, width: int) -> None:
        try:
            request = self._make(width).create_infer_request()
            _infer(request, [[0]], width)
        except (EmbedderUnavailable, RuntimeError):
            log.warning("Questions of %d tokens go without a graph of their own.", width, exc_info=True)
            return
        self._free[width] = request


def _infer(request: ov.InferRequest, texts: Sequence[list[int]], width: int | None = None) -> Matrix:
    ids = np.zeros((len(texts), width or _width(max(map(len, texts)))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    try:
        vectors: Matrix = request.infer([ids, mask])[0]
    except RuntimeError as error:
        raise EmbedderUnavailable(f"OpenVINO could not embed: {error}") from error
    return vectors


def _width(tokens: int) -> int:
    """The tokens of a text with its padding."""
    return -(-tokens // _STEP) * _STEP if tokens <= _SHORT else tokens


def _lone_width(tokens: int) -> int:
    return -(-tokens // _LONE_STEP) * _LONE_STEP


@dataclass(slots=True, order=True)
class _Turn:
    """Texts as token ids, and the promise of their vectors; `place` is its place in its call."""

    call: int
    place: int
    alone: bool = field(compare=False)
    texts: list[list[int]] = field(compare=False)
    made: Future[Matrix] = field(default_factory=Future, compare=False)


def usable_cores(share: Path = _SHARE) -> int:
    """Cores that this process may run on, but no more than its container's share of their time: threads
    beyond it only wait for one another."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = share.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # Not in a container, or without a limit (`max`).
        return cores


def _fit(texts: Sequence[list[int]]) -> bool:
    """Whether they make one batch."""
    return len(texts) <= _TURN_TEXTS and len(texts) * max(map(len, texts)) <= _TURN_TOKENS


def _compiled(
    checkpoint: Checkpoint, home: Path, cores: int, int8: bool
) -> tuple[ov.Model, ov.CompiledModel]:
    """The graph, and it compiled. Processes that start together wait for the one that builds it."""
    graph = home / f"encoder-{_GRAPH}.xml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home / "lock"):
            if graph.exists():
                try:
                    return _read(graph, cores, int8)
                except RuntimeError:
                    graph.unlink()  # damaged; the weights are still there to build it from
            _save(_Bert(checkpoint, int8).graph(), graph)
            return _read(graph, cores, int8)
    except (OSError, RuntimeError) as error:
        raise EmbedderUnavailable(f"The embedder's graph cannot be kept in {home}: {error}") from error


def _read(graph: Path, cores: int, int8: bool) -> tuple[ov.Model, ov.CompiledModel]:
    model = ov.Core().read_model(graph)
    return model, _compile(model, cores, int8)


def _compiled_for(model: ov.Model, width: int, int8: bool) -> ov.CompiledModel:
    """The graph for one text of so many tokens at a time, on the thread that asks. It is not read anew: its
    folder need not outlive the loading."""
    lone = model.clone()
    lone.reshape({0: [1, width], 1: [1, width]})
    return _compile(lone, 1, int8)


def _compile(model: ov.Model, cores: int, int8: bool) -> ov.CompiledModel:
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        # Pinned to its core, a thread waits for whatever else runs there, however idle the others are.
        "ENABLE_CPU_PINNING": False,
        **({"DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP} if int8 else {}),
    }
    return ov.Core().compile_model(model, "CPU", settings)


def _save(model: ov.Model, graph: Path) -> None:
    """Write the two files of a graph. The second rename is what makes it exist."""
    new = graph.with_name("new.xml")
    ov.save_model(model, str(new), compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        part = new.with_suffix(suffix)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(graph.with_suffix(suffix))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Bert:
    """The BERT encoder as a graph, with pooling and L2 normalisation inside.

    Follows the published architecture (Devlin et al. 2019, post-layer-norm) operation by operation, so that
    no framework is needed to convert it. Token types are always 0 for a single text, so they are a constant.
    With `int8`, weights are whole numbers with a scale for each output; OpenVINO then rounds what they are
    multiplied by as it comes, in groups of their own scales, so that nothing has to be calibrated.
    """

    def __init__(self, checkpoint: Checkpoint, int8: bool = False) -> None:
        self._checkpoint = checkpoint
        self._int8 = int8
        self._tensors = checkpoint.tensors()

    def graph(self) -> ov.Model:
        """From `input_ids` and `attention_mask`, both int64 (texts, tokens), to (texts, dimension)."""
        ids = op.parameter([-1, -1], np.int64, name="input_ids")
        mask = op.parameter([-1, -1], np.int64, name="attention_mask")
        # (texts, 1, 1, tokens): every head and every position looks at the same tokens.
        seen = op.convert(op.unsqueeze(mask, _ints(1, 2)), "boolean")
        hidden = self._embeddings(ids)
        for number in range(self._checkpoint.layers):
            hidden = self._layer(hidden, seen, f"encoder.layer.{number}")
        vectors = op.normalize_l2(self._pooled(hidden, mask), _ints(1), 1e-12, "max")
        return ov.Model([vectors], [ids, mask], "encoder")

    def _embeddings(self, ids: ov.Node) -> ov.Node:
        words = op.gather(self._constant("embeddings.word_embeddings.weight"), ids, _int(0))
        places = self._tensor("embeddings.position_embeddings.weight")
        types = self._tensor("embeddings.token_type_embeddings.weight")
        length = op.gather(op.shape_of(ids), _ints(1), _int(0))
        here = op.slice(op.constant(places + types[0]), _ints(0), length, _ints(1), _ints(0))
        return self._norm(op.add(words, here), "embeddings.LayerNorm")

    def _layer(self, hidden: ov.Node, seen: ov.Node, name: str) -> ov.Node:
        attended = self._linear(self._attention(hidden, seen, name), f"{name}.attention.output.dense")
        hidden = self._norm(op.add(hidden, attended), f"{name}.attention.output.LayerNorm")
        wide = op.gelu(self._linear(hidden, f"{name}.intermediate.dense"), self._checkpoint.activation)
        narrow = self._linear(wide, f"{name}.output.dense")
        return self._norm(op.add(hidden, narrow), f"{name}.output.LayerNorm")

    def _attention(self, hidden: ov.Node, seen: ov.Node, name: str) -> ov.Node:
        query, key, value = (
            self._heads(self._linear(hidden, f"{name}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        mixed = op.scaled_dot_product_attention(query, key, value, seen)
        joined = op.transpose(mixed, _ints(0, 2, 1, 3))
        return op.reshape(joined, _ints(0, 0, self._checkpoint.dimension), special_zero=True)

    def _heads(self, projected: ov.Node) -> ov.Node:
        heads = self._checkpoint.heads
        shape = _ints(0, 0, heads, self._checkpoint.dimension // heads)
        return op.transpose(op.reshape(projected, shape, special_zero=True), _ints(0, 2, 1, 3))

    def _pooled(self, hidden: ov.Node, mask: ov.Node) -> ov.Node:
        if self._checkpoint.pooling == "cls":
            return op.gather(hidden, _int(0), _int(1))
        weights = op.unsqueeze(op.convert(mask, "f32"), _ints(2))
        total = op.reduce_sum(op.multiply(hidden, weights), _ints(1))
        return op.divide(total, op.reduce_sum(weights, _ints(1)))

    def _linear(self, hidden: ov.Node, name: str) -> ov.Node:
        product = op.matmul(hidden, self._weights(f"{name}.weight"), False, True)
        return op.add(product, self._constant(f"{name}.bias"))

    def _weights(self, name: str) -> ov.Node:
        """(outputs, inputs)"""
        if not self._int8:
            return self._constant(name)
        weights = self._tensor(name)
        scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12) / 127
        rounded = np.rint(weights / scales).astype(np.int8)
        return op.multiply(op.convert(op.constant(rounded), "f32"), op.constant(scales.astype(np.float32)))

    def _norm(self, hidden: ov.Node, name: str) -> ov.Node:
        centred = op.mvn(hidden, _ints(2), True, self._checkpoint.epsilon, "inside_sqrt")
        return op.add(op.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> ov.Node:
        return op.constant(self._tensor(name))

    def _tensor(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise EmbedderUnavailable(
                f"The weights in {self._checkpoint.folder} have no tensor {name!r}: not a BERT encoder."
            ) from None


def _ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, dtype=np.int64))


def _int(value: int) -> ov.Node:
    return op.constant(np.int64(value))
