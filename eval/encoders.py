"""The embedders that measurements run on: those that the service itself would have, by the same settings and
the same code."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from app.settings import load_settings
from app.wiring import open_encoder
from retrieval.embedders.http import Known
from retrieval.types import Encoder


class KeptRecords:
    """Implements `retrieval.embedders.http.Records` where there is no ledger: a file for each model, so that
    what a run keeps of a model behind a URL is still that model's in the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, name: str) -> Known | None:
        file = self._file(name)
        if not file.exists():
            return None
        with np.load(file) as kept:
            return Known(name=name, tokenizer=str(kept["tokenizer"]), vectors=kept["vectors"])

    async def keep(self, known: Known) -> Known:
        self._folder.mkdir(parents=True, exist_ok=True)
        np.savez(self._file(known.name), tokenizer=np.array(known.tokenizer), vectors=known.vectors)
        return known

    def _file(self, name: str) -> Path:
        return self._folder / f"known-{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"


@asynccontextmanager
async def encoder(name: str, folder: Path) -> AsyncIterator[Encoder]:
    """The embedder that releases call so, until the block ends; what is made once for it is kept in the
    folder. Raises `EmbedderUnavailable` and `SettingsError`."""
    settings = load_settings(data=folder)
    async with open_encoder(settings, name, KeptRecords(folder)) as found:
        yield found
