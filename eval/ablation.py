"""What each step of search is worth: nDCG@10 on data sets in BEIR's layout, one step added after the other.

Runs the product's chunker, embedder, analyzer and search in this process. The steps take a release apart: the
first rows are what it would be without everything that follows, the last row is the release as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.release import Release
from eval.inprocess import EVERYTHING, InProcess, Text
from eval.metrics.ranking import ndcg
from eval.table import DEPTH, Comparison, Table
from eval.types import Case, Dataset, EvalError
from retrieval.search import search
from retrieval.types import EmbedderSpec, Encoder, Matrix, SearchParams, Vector

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Step:
    """`index` and `search` are keys of those release parts that are not yet the release's own."""

    name: str
    index: Mapping[str, object]
    search: Mapping[str, object]


_ENGLISH = {"analyzer": "snowball-english"}
_SIMPLE: dict[str, object] = {"languages": [], "smoothing": 0.0}
_STEPS = (
    Step("dense", _ENGLISH, _SIMPLE | {"dense_weight": 1.0}),
    Step("keyword", _ENGLISH, _SIMPLE | {"dense_weight": 0.0}),
    Step("keyword by language", {}, _SIMPLE | {"dense_weight": 0.0}),
    Step("fusion", _ENGLISH, _SIMPLE),
    Step("+ stems by language", {}, _SIMPLE),
    Step("+ weight by language", {}, {"smoothing": 0.0}),
    Step("release without header", {"header": ""}, {}),
    Step("release", {}, {}),
)
COMPARISONS = (
    Comparison("stems by language, keyword alone", ("keyword",), "keyword by language"),
    Comparison("fusion over its better arm", ("dense", "keyword"), "fusion"),
    Comparison("stems by language", ("fusion",), "+ stems by language"),
    Comparison("weight by language", ("+ stems by language",), "+ weight by language"),
    Comparison("smoothing", ("+ weight by language",), "release"),
    Comparison("header", ("release without header",), "release"),
    Comparison("release over its better arm", ("dense", "keyword by language"), "release"),
)
STEPS = {step.name: step for step in _STEPS}


def choose(names: str) -> list[Step]:
    """The steps of a comma-separated list, in their own order."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in STEPS]:
        raise EvalError(f"There is no step {unknown[0]!r}; there are {', '.join(STEPS)}.")
    return [step for step in _STEPS if step.name in wanted]


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by the shortest name that tells them apart."""
    paths = [folder.resolve() for folder in folders]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return {path.relative_to(common).as_posix(): path for path in paths}


class Remembering:
    """An encoder that keeps what it embedded in one file of a folder, and never embeds a text twice."""

    def __init__(self, embedder: Encoder, folder: Path) -> None:
        self._embedder = embedder
        self._file = folder / f"{embedder.spec.artefact[:16]}.npz"
        self._known: dict[str, Vector] = {}
        if self._file.exists():
            with np.load(self._file) as kept:
                self._known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    @property
    def spec(self) -> EmbedderSpec:
        return self._embedder.spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            vectors = await self._embedder.embed(list(new.values()))
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[key] for key in keys])

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._embedder.token_spans(text)

    def save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        with new.open("wb") as file:
            np.savez(file, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        new.replace(self._file)


async def ablate(
    datasets: Mapping[str, Dataset],
    release: Release,
    embedder: Remembering,
    steps: Sequence[Step],
    progress: Progress,
) -> Table:
    """Score every step on every data set. What is embedded is kept after each."""
    columns = {
        name: await _column(name, dataset, release, embedder, steps, progress)
        for name, dataset in datasets.items()
    }
    return Table(release.id, columns, COMPARISONS)


async def _column(
    name: str,
    dataset: Dataset,
    release: Release,
    embedder: Remembering,
    steps: Sequence[Step],
    progress: Progress,
) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    built: dict[str, InProcess] = {}
    for done, step in enumerate(steps):
        progress(f"{name} steps", done, len(steps))
        key = json.dumps(dict(step.index))
        if key not in built:
            changed = _changed(release, step.index, {})
            built[key] = await _build(name, dataset, changed, embedder, progress)
            embedder.save()
        params = _changed(release, {}, step.search).search
        scores[step.name] = {case.id: await _score(built[key], case, params) for case in dataset.cases}
    embedder.save()
    progress(f"{name} steps", len(steps), len(steps))
    return scores


async def _build(
    name: str, dataset: Dataset, release: Release, embedder: Encoder, progress: Progress
) -> InProcess:
    def show(_: str, done: int, total: int) -> None:
        progress(f"{name} documents", done, total)

    built = InProcess(embedder, release)
    texts = [
        Text(one.id, one.title or "", one.content.decode("utf-8", "replace")) for one in dataset.documents
    ]
    await built.add(texts, show)
    return built


async def _score(built: InProcess, case: Case, params: SearchParams) -> float:
    found = await search(built.index, case.question, EVERYTHING, params, limit=DEPTH, group_by_document=True)
    if failed := [name for name in found.degraded if name != "query_truncated"]:
        raise EvalError(f"A search went without {', '.join(failed)}.")
    ranked = [hit.chunk.document_id for hit in found.hits]
    return ndcg(ranked, {gold.document_id: gold.gain for gold in case.gold}, DEPTH)


def _changed(release: Release, index: Mapping[str, object], search_: Mapping[str, object]) -> Release:
    body = release.body
    parts = {
        "index": body.index.model_copy(update=dict(index)),
        "search": body.search.model_copy(update=dict(search_)),
    }
    return replace(release, body=body.model_copy(update=parts))
