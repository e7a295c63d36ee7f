"""`plumbline eval checker | unanswerable | summaries | context | chunking`: parts of the product measured on
open data, in process.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.release import DEFAULT_RELEASE, load_release
from app.similarity import Similarity
from eval import checker, contexts, summaries, unanswerable
from eval.ablation import Remembering
from eval.encoders import encoder
from eval.inprocess import InProcess
from eval.types import EvalError
from retrieval.embedders.prefixed import Prefixed

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A table for people and the same for programs."""

    markdown: str
    body: Mapping[str, Any]

    @property
    def json(self) -> str:
        return json.dumps(self.body, indent=2) + "\n"


def measure_checker(
    progress: Progress, *, halueval: Path | None, qags: Path | None, scifact: Path | None, fit: bool
) -> Measurement:
    """The check of answers on the held-out part of the given sets; with `fit`, the weights that their other
    parts give."""
    items = [
        *(checker.halueval(halueval) if halueval else []),
        *(checker.qags(qags) if qags else []),
        *(checker.scifact(scifact) if scifact else []),
    ]
    if not items:
        raise EvalError("Name at least one of --halueval, --qags and --scifact.")

    async def measured() -> list[checker.Measured]:
        async with _prefixed() as prefixed:
            return await checker.measured(items, Similarity(prefixed, "document").score, progress)

    found = asyncio.run(measured())
    rows = checker.figures(found)
    text, body = checker.markdown(rows), {"rows": [asdict(row) for row in rows]}
    if not fit:
        return Measurement(text, body)
    weights: dict[str, Any] = {
        "meaning": checker.fitted(found, lambda one: one.meaning),
        "words": checker.fitted(found, lambda one: one.words),
    }
    return Measurement(f"{text}\n{json.dumps(weights, indent=2)}\n", {**body, "weights": weights})


def measure_unanswerable(progress: Progress, *, squad: Path, questions: int) -> Measurement:
    async def measured() -> unanswerable.Figures:
        async with _prefixed() as prefixed:
            house = InProcess(prefixed.encoder, load_release(DEFAULT_RELEASE))
            await house.add(unanswerable.paragraphs(squad), progress)
            wanted = unanswerable.questions(squad, questions)
            return unanswerable.figures(await unanswerable.asked(house, wanted, progress))

    row = asyncio.run(measured())
    return Measurement(unanswerable.markdown(row), asdict(row))


def measure_summaries(
    progress: Progress, *, squality: Path | None, qmsum: Path | None, texts: int
) -> Measurement:
    sets = {
        "squality": summaries.squality(squality, texts) if squality else [],
        "qmsum": summaries.qmsum(qmsum, texts) if qmsum else [],
    }
    if not any(sets.values()):
        raise EvalError("Name at least one of --squality and --qmsum.")

    async def measured() -> list[summaries.Figures]:
        async with _prefixed() as prefixed:
            house = InProcess(prefixed.encoder, load_release(DEFAULT_RELEASE))
            return [
                await summaries.measured(name, house, tasks, progress)
                for name, tasks in sets.items()
                if tasks
            ]

    rows = asyncio.run(measured())
    return Measurement(summaries.markdown(rows), {"rows": [asdict(row) for row in rows]})


def measure_contexts(
    progress: Progress, *, sources: Sequence[str], release: Path, most: int, copies: int, cache: Path
) -> Measurement:
    loaded = load_release(release)

    async def measured() -> list[contexts.Row]:
        rows: list[contexts.Row] = []
        async with encoder(loaded.body.index.embedder, cache) as found:
            remembering = Remembering(found, cache)
            for source in sources:
                corpus = contexts.copied(contexts.load(source, most), copies)
                rows += await contexts.measured(corpus, loaded, remembering, progress)
                remembering.save()
        return rows

    rows = asyncio.run(measured())
    return Measurement(contexts.markdown(rows), {"rows": [asdict(row) for row in rows]})


def measure_chunking(
    progress: Progress,
    *,
    folder: Path,
    release: Path,
    sizes: Sequence[int],
    overlaps: Sequence[int],
    cache: Path,
) -> Measurement:
    from eval import chunking  # It compares with LangChain's splitter, which the other measurements need not.

    loaded, corpus = load_release(release), chunking.load(folder)

    async def measured() -> list[chunking.Row]:
        rows: list[chunking.Row] = []
        async with encoder(loaded.body.index.embedder, cache) as found:
            remembering = Remembering(found, cache)
            for name, chunker in chunking.ways(loaded, remembering, sizes, overlaps).items():
                rows.append(await chunking.measured(corpus, loaded, remembering, name, chunker, progress))
                remembering.save()
        return rows

    rows = asyncio.run(measured())
    return Measurement(chunking.markdown(rows), {"rows": [asdict(row) for row in rows]})


@asynccontextmanager
async def _prefixed() -> AsyncIterator[Prefixed]:
    """The default release's embedder, opened for this run."""
    release = load_release(DEFAULT_RELEASE)
    with tempfile.TemporaryDirectory(prefix="plumbline-eval-") as folder:
        async with encoder(release.body.index.embedder, Path(folder)) as found:
            yield Prefixed(found, release.prefixes)
