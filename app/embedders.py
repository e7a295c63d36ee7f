"""Embedders by the names that releases give them, each loaded once: releases with different ones serve side
by side, and one is loaded before a release that needs it serves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from opentelemetry.trace import Tracer

from app import telemetry
from app.release import Release
from app.settings import Settings
from app.tracing import TracedEmbedder
from retrieval.embedders.checkpoint import INT8, TOKENIZER, WEIGHTS, is_packaged, read_checkpoint
from retrieval.embedders.http import MARK, EmbeddingServer, HttpEmbedder, Records
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.embedders.prefixed import Prefixed
from retrieval.embedders.sentence_transformers import SentenceTransformersEmbedder, is_installed
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Encoder

_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a model, and the folder that it, or its tokenizer, is in; None is at Hugging Face."""

    by: Literal["openvino", "http", "sentence_transformers"]
    folder: Path | None


class Embedders:
    """`instead`, where given, stands in for every one of them."""

    def __init__(
        self, settings: Settings, tracer: Tracer, records: Records, instead: Encoder | None = None
    ) -> None:
        self._settings = settings
        self._tracer = tracer
        self._records = records
        self._instead = TracedEmbedder(instead, tracer) if instead else None
        # Each embedder bounds its own requests.
        self._client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        self._closing = ExitStack()
        self._loaded: dict[str, Encoder] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def aclose(self) -> None:
        self._closing.close()
        await self._client.aclose()

    async def of(self, release: Release) -> Prefixed:
        """A release's, with its prefixes. Raises `EmbedderUnavailable` as `get` does, and when they are too
        long."""
        return Prefixed(await self.get(release.body.index.embedder), release.prefixes)

    async def get(self, name: str) -> Encoder:
        """Raises `EmbedderUnavailable` when it is not here; the next call looks again."""
        if self._instead:
            return self._instead
        async with self._loading[name]:
            if name not in self._loaded:
                self._loaded[name] = TracedEmbedder(await self._load(name), self._tracer)
            return self._loaded[name]

    async def _load(self, name: str) -> Encoder:
        choice = await asyncio.to_thread(choose, name, self._settings)
        if choice.by == "sentence_transformers" or choice.folder is None:
            torch = await asyncio.to_thread(SentenceTransformersEmbedder.load, name, choice.folder)
            self._closing.callback(torch.close)
            return torch
        if choice.by == "http":
            return await HttpEmbedder.open(name, self._server(name), choice.folder, self._records)
        cache = self._settings.data.resolve() / "cache" / "embedders"
        return await asyncio.to_thread(OpenVinoEmbedder.load, choice.folder, cache, name)

    def _server(self, name: str) -> EmbeddingServer:
        settings = self._settings
        key = settings.embedder_key.get_secret_value() if settings.embedder_key else None
        model, headers = name.partition(MARK)[0], telemetry.trace_headers
        return EmbeddingServer(settings.embedder_url or "", model, self._client, key=key, headers=headers)


def choose(name: str, settings: Settings) -> Choice:
    """A BERT model that is here is run here by OpenVINO; with a URL set, any other is asked for there; else
    sentence-transformers has it where it is installed. Raises `EmbedderUnavailable`, which says what would
    do."""
    if settings.embedder_url is None:
        return _here(name, settings)
    plain, path = name.removesuffix(INT8), settings.embedder_path
    for folder in (path / plain, path) if path else ():
        if folder.name == Path(plain).name and (folder / WEIGHTS).is_file() and _is_bert(folder):
            return Choice("openvino", find_model(name, folder))
    if is_packaged(plain):
        return Choice("openvino", find_model(name, None))
    return Choice("http", _tokenizer(name.partition(MARK)[0], settings))


def _here(name: str, settings: Settings) -> Choice:
    try:
        folder = find_embedder(name, settings)
        read_checkpoint(folder)
        return Choice("openvino", folder)
    except EmbedderUnavailable as error:
        if is_packaged(name.removesuffix(INT8)):
            raise
        if is_installed() and not name.endswith(INT8):
            path = settings.embedder_path
            folders = (path / name, path) if path else ()
            return Choice(
                "sentence_transformers", next((each for each in folders if (each / _CONFIG).is_file()), None)
            )
        raise EmbedderUnavailable(
            f"{error} There are three ways to have an embedder: a BERT's folder in PLUMBLINE_EMBEDDER_PATH; "
            "a server that has it, in PLUMBLINE_EMBEDDER_URL; or sentence-transformers, for any other: "
            "pip install 'plumbline[torch]'."
        ) from None


def find_embedder(name: str, settings: Settings) -> Path:
    """The model's folder: the one of its name in `embedder_path`, or that path itself if it holds a model,
    else an installed package's. Raises `EmbedderUnavailable`."""
    path, name = settings.embedder_path, name.removesuffix(INT8)
    if path is None or (path / name / _CONFIG).is_file():
        return find_model(name, path / name if path else None)
    several = path.is_dir() and not (path / _CONFIG).is_file()
    return find_model(name, None if several else path)


def _tokenizer(model: str, settings: Settings) -> Path:
    """The folder that a model of a server has its tokenizer in."""
    path = settings.embedder_path
    folders = (path / model, path) if path else ()
    for folder in folders:
        if (folder / TOKENIZER).is_file():
            return folder.resolve()
    looked = f" There is none in {' or '.join(map(str, folders))}." if folders else ""
    raise EmbedderUnavailable(
        f"The embedder {model!r} is asked for at PLUMBLINE_EMBEDDER_URL, and documents are cut by its "
        f"tokens: put its {TOKENIZER} and {_CONFIG} (and sentence_bert_config.json and "
        f"tokenizer_config.json, if it has them) into a folder and set PLUMBLINE_EMBEDDER_PATH.{looked}"
    )


def _is_bert(folder: Path) -> bool:
    try:
        read_checkpoint(folder)
    except EmbedderUnavailable:
        return False
    return True
