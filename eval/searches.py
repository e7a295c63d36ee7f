"""How well the product searches, asked as its callers ask it: nDCG@10 through `POST /v1/search`.

Each data set gets a whole instance of its own, is handed in as documents, and every question is asked of the
release that serves. Then the release's two arms serve, one after the other, from the same index: what the
words find alone and what the vectors find alone. A search worth having is not below its better arm.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from app.release import DEFAULT_RELEASE, EXTRACTIVE, Release, load_release
from eval.instance import private_instance
from eval.metrics.ranking import ndcg
from eval.table import DEPTH, Comparison, Table
from eval.target import HttpTarget
from eval.types import Case, Dataset, TargetFailed

CONCURRENCY = 2
RELEASE, DENSE, KEYWORD = "release", "dense", "keyword"
_ARMS: Mapping[str, dict[str, object]] = {
    DENSE: {"dense_weight": 1.0, "foreign_weight": 1.0, "smoothing": 0.0},
    KEYWORD: {"dense_weight": 0.0, "foreign_weight": 0.0, "smoothing": 0.0},
}
_COMPARISONS = (Comparison("release over its better arm", (DENSE, KEYWORD), RELEASE),)

Progress = Callable[[str, int, int], None]


async def measure(datasets: Mapping[str, Dataset], release: Path | None, progress: Progress) -> Table:
    """Ask every question of every data set of the release (None: the default one) and of its arms.

    Raises `InstanceFailed` or `TargetFailed` at the first thing that does not work: half a figure is none."""
    loaded = load_release(release or DEFAULT_RELEASE)
    columns = {
        name: await _column(name, dataset, release, loaded, progress) for name, dataset in datasets.items()
    }
    return Table(loaded.id, columns, _COMPARISONS)


async def _column(
    name: str, dataset: Dataset, path: Path | None, release: Release, progress: Progress
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="plumbline-arms-") as folder:
        arms = {arm: Path(folder) / f"{arm}.toml" for arm in _ARMS}
        for arm, file in arms.items():
            file.write_text(arm_toml(arm, release), encoding="utf-8")
        async with private_instance(path, drafts=tuple(arms.values())) as target:
            await target.ingest(dataset.documents, lambda done, all_: progress(f"{name} in", done, all_))
            column = {RELEASE: await _ask(target, dataset, release.id, f"{name} {RELEASE}", progress)}
            for arm, file in arms.items():
                await target.promote(arm, reason="an arm, measured alone")
                served = load_release(file).id
                column[arm] = await _ask(target, dataset, served, f"{name} {arm}", progress)
    return column


def arm_toml(arm: str, release: Release) -> str:
    """A release file that searches the same index by one arm alone. What search does not read is left out."""
    parts = {
        "index": release.body.index.model_dump(),
        "search": release.body.search.model_dump() | _ARMS[arm],
    }
    lines = [f'name = "{arm}"', "[[models]]", f'name = "{EXTRACTIVE}"']
    for part, values in parts.items():
        lines.append(f"[{part}]")
        # JSON's strings, numbers and lists are TOML's too.
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


async def _ask(
    target: HttpTarget, dataset: Dataset, served: str, step: str, progress: Progress
) -> dict[str, float]:
    turn, done = asyncio.Semaphore(CONCURRENCY), 0

    async def one(case: Case) -> float:
        nonlocal done
        async with turn:
            release, ranked = await target.ranking(case.question, limit=DEPTH)
        if release != served:
            raise TargetFailed(f"The release {release} searched where {served} should serve.")
        done += 1
        progress(step, done, len(dataset.cases))
        return ndcg(ranked, {gold.document_id: gold.gain for gold in case.gold}, DEPTH)

    scores = await asyncio.gather(*(one(case) for case in dataset.cases))
    return {case.id: score for case, score in zip(dataset.cases, scores, strict=True)}
