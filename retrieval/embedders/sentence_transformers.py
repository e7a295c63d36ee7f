"""Any embedding model that sentence-transformers loads, on a GPU where there is one (the `torch` extra).

sentence-transformers is imported when one is built: nothing else needs torch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from retrieval.embedders.checkpoint import sha256
from retrieval.embedders.tokens import Tokens, encodable
from retrieval.errors import EmbedderUnavailable
from retrieval.types import EmbedderSpec, Matrix

# One turn of the thread, so that a question waits for no whole document.
_BATCH = 32
_WEIGHTS = ("*.safetensors", "*.bin")
_OTHER_FILES = ("*.json", "*.txt", "*.model")


class SentenceTransformersEmbedder:
    """Use `load`. One thread runs it, because torch uses every core, or the GPU, for one batch. Texts go in
    as they are: the prompts that the model's files may name are a release's to give (`Prefixed`)."""

    def __init__(self, name: str, artefact: str, model: Any, tokens: Tokens) -> None:
        self._model = model
        self._tokens = tokens
        # Version 5 of the library has the older name.
        newer = getattr(model, "get_embedding_dimension", None)
        self._spec = EmbedderSpec(
            name=name,
            artefact=artefact,
            dimension=int((newer or model.get_sentence_embedding_dimension)()),
            max_tokens=tokens.window,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> SentenceTransformersEmbedder:
        """The model in `folder`, else of that name at Hugging Face. Blocks for seconds, or for a download.
        Raises `EmbedderUnavailable`."""
        if not is_installed():
            raise EmbedderUnavailable(
                f"{name!r} needs sentence-transformers: pip install 'plumbline[torch]'."
            )
        from sentence_transformers import SentenceTransformer

        try:
            folder = folder or _fetched(name)
            model = SentenceTransformer(str(folder))
            tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
            window = model.get_max_seq_length() or model.tokenizer.model_max_length
        except (OSError, ValueError, RuntimeError, AttributeError, ImportError, KeyError) as error:
            raise EmbedderUnavailable(f"The embedder {name!r} cannot be loaded: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(name, _artefact(folder), model, Tokens(tokenizer, int(window)))

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """Embed texts in the given order. A text longer than the window raises `TextTooLong` before any
        is embedded; a model that fails, `EmbedderUnavailable`."""
        lengths = await self._tokens.lengths(texts)
        vectors = np.empty((len(texts), self._spec.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        loop = asyncio.get_running_loop()
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            made = loop.run_in_executor(self._thread, self._made, [encodable(texts[i]) for i in batch])
            vectors[batch] = await made
        return vectors

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones."""
        return self._tokens.spans(text)

    def _made(self, texts: list[str]) -> Matrix:
        try:
            # An empty prompt, because none means the model's default one, which is for one side only.
            made = self._model.encode(
                texts,
                prompt="",
                batch_size=_BATCH,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        except RuntimeError as error:
            raise EmbedderUnavailable(f"The embedder {self._spec.name!r} failed: {error}") from error
        vectors: Matrix = np.asarray(made, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise EmbedderUnavailable(f"The embedder {self._spec.name!r} made vectors that are not finite.")
        return vectors


def is_installed() -> bool:
    return find_spec("sentence_transformers") is not None


def _fetched(name: str) -> Path:
    """The model's files, from Hugging Face unless they are in its cache, with one form of weights."""
    from huggingface_hub import snapshot_download

    for weights in _WEIGHTS:
        folder = Path(snapshot_download(name, allow_patterns=[*_OTHER_FILES, weights]))
        if any(folder.rglob(weights)):
            return folder
    raise EmbedderUnavailable(f"{name!r} has no weights that sentence-transformers reads.")


def _artefact(folder: Path) -> str:
    """SHA-256 over the names and contents of all files that may decide the vectors."""
    files = sorted({file for kind in (*_WEIGHTS, *_OTHER_FILES) for file in folder.rglob(kind)})
    listed = [f"{file.relative_to(folder).as_posix()} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(["sentence-transformers", *listed]).encode()).hexdigest()
