"""Plants regressions, one after the other, and tells what stopped each.

Read `plant_all` from top to bottom. What differs from the default release in its file alone shares one
instance and its index, and serves in turn; a fault of the index or of the world gets an instance of its own.
Models are processes that answer as the built-in one does until they go wrong, so that a candidate differs
from its baseline in the fault alone.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
from eval.bench.bed import Bed
from eval.cases import limited
from eval.gate import judge
from eval.instance import private_instance
from eval.judge import Judge, JudgeSettings
from eval.planted.plants import PACE
from eval.planted.releases import write_release
from eval.planted.server import JUDGE_CALLS
from eval.planted.traffic import trials
from eval.planted.types import Base, InEvaluation, InRelease, InWorld, Plant, Planted, Stopped
from eval.rules import Rules
from eval.run import collect, evaluate
from eval.target import HttpTarget
from eval.types import Check, Dataset, EvalError, InstanceFailed, Report, Verdict
from retrieval.embedders.openvino import find_model

CONCURRENCY = 2
"""Questions at once: on two cores more would only wait, and their times would say less."""
JUDGED = 8
"""Cases that a judge is asked about,"""
CALLS = 48
"""and calls after which it dies: half of them."""
PACED = 40
"""Cases that a model which takes its time is asked."""
EMBEDDER_PATH = "PLUMBLINE_EMBEDDER_PATH"
MODEL_URL = "PLUMBLINE_MODEL_URL"
WHY = "a planted regression"

_MODELS: Mapping[Base, str | None] = {
    "built-in": None,
    "served": "handbook",
    "paced": f"handbook?pace={PACE:g}",
}

Told = Callable[[Planted], None]
Progress = Callable[[str, int, int], None]


async def plant_all(
    plants: Sequence[Plant],
    dataset: Dataset,
    rules: Rules,
    *,
    product: str,
    progress: Progress,
    told: Told,
) -> tuple[Planted, ...]:
    """Each plant's outcome, in their order; `told` hears of each as soon as it is known. Raises `EvalError`
    when the baseline cannot be evaluated."""
    found: dict[str, Planted] = {}

    def done(planted: Planted) -> None:
        found[planted.plant.name] = planted
        progress("planted", len(found), len(plants))
        told(planted)

    progress("planted", 0, len(plants))
    with tempfile.TemporaryDirectory(prefix="plumbline-planted-") as name:
        async with AsyncExitStack() as stack:
            garden = Garden(dataset, rules, product, Path(name), Bed(Path(name), {}, stack))
            for refused in _refused(garden, plants):
                done(refused)
            left = [plant for plant in plants if plant.name not in found]
            bases = await _together(garden, left, done) if left else {}
        for plant in left:
            if _is_alone(plant):
                done(await _timed(plant, garden.alone(plant, bases)))
    return tuple(found[plant.name] for plant in plants)


def _refused(garden: Garden, plants: Sequence[Plant]) -> Iterator[Planted]:
    """Write all release files, and tell of those that cannot be loaded."""
    for plant in plants:
        if isinstance(plant.planting, InRelease):
            path = garden.write(plant.name, plant.planting)
            try:
                load_release(path)
            except ReleaseInvalid as error:
                why = str(error).removeprefix(f"{path}: ")
                stopped = Stopped(stage="refused", by="load", why=why)
                yield Planted(plant=plant, stopped=stopped, seconds=0.0)


async def _together(
    garden: Garden, plants: Sequence[Plant], done: Callable[[Planted], None]
) -> dict[Base, Report]:
    """Those that share an instance; the baselines of all."""
    shared = [plant for plant in plants if not _is_alone(plant)]
    released = [plant for plant in shared if isinstance(plant.planting, InRelease)]
    async with garden.house(
        [*_base_files(garden, shared), *(garden.file(plant.name) for plant in released)]
    ) as house:
        for plant in shared:
            match plant.planting:
                case InEvaluation() as fault:
                    done(await _timed(plant, house.misjudged(plant, fault)))
                case _:
                    done(await _timed(plant, house.released(plant)))
        if len(shared) < len(plants):
            await house.base("built-in")
        return house.bases


def _is_alone(plant: Plant) -> bool:
    """Whether it needs an instance of its own, for its index or its world."""
    match plant.planting:
        case InRelease(keys=keys):
            return "index" in keys
        case InWorld():
            return True
        case InEvaluation():
            return False


def _base_files(garden: Garden, plants: Sequence[Plant]) -> list[Path]:
    """Releases that are compared with; the default one is there without being added."""
    wanted = dict.fromkeys(plant.base for plant in plants if _MODELS[plant.base])
    return [garden.write(base, InRelease(keys={}, model=_MODELS[base])) for base in wanted]


async def _timed(plant: Plant, work: Awaitable[Stopped]) -> Planted:
    """What went wrong with the trial itself stops no release, and is told."""
    begin = time.perf_counter()
    try:
        stopped = await work
    except EvalError as error:
        stopped = Stopped(stage="broken", why=str(error))
    return Planted(plant=plant, stopped=stopped, seconds=time.perf_counter() - begin)


@dataclass(slots=True)
class Garden:
    """What plants have in common. `folder` has their files; processes beside them end with `bed`."""

    dataset: Dataset
    rules: Rules
    product: str
    folder: Path
    bed: Bed

    def write(self, name: str, fault: InRelease) -> Path:
        return write_release(name, fault, self.folder, self.dataset.cases)

    def file(self, name: str) -> Path:
        """The release file of a plant that was written."""
        return self.folder / f"{name}.toml"

    @asynccontextmanager
    async def house(self, drafts: Sequence[Path]) -> AsyncIterator[House]:
        """An instance that has the corpus and knows these releases, with a model's server."""
        model = await self.bed.web("eval.planted.server:served")
        where = {MODEL_URL: f"{model.url}/v1"}
        async with private_instance(None, drafts=drafts, environment=where) as target:
            await target.ingest(self.dataset.documents, _unwatched)
            yield House(self, target)

    async def alone(self, plant: Plant, bases: Mapping[Base, Report]) -> Stopped:
        """A plant that needs an instance of its own."""
        environment, documents, release = dict[str, str](), self.dataset.documents, None
        match plant.planting:
            case InRelease():
                release = self.file(plant.name)
            case InWorld(documents=other, embedder=tamper):
                if other is not None:
                    documents = tuple(other(documents, self.dataset.cases))
                if tamper is not None:
                    environment[EMBEDDER_PATH] = str(_tampered(tamper, self.folder / plant.name))
        async with AsyncExitStack() as stack:
            try:
                instance = private_instance(release, environment=environment)
                target = await stack.enter_async_context(instance)
            except InstanceFailed as error:
                if "refused" not in plant.expected:
                    raise
                said = _last_line(str(error)).replace(f"{self.folder}/", "")
                return Stopped(stage="refused", by="start", why=said)
            await target.ingest(documents, _unwatched)
            return self.decided(plant, bases["built-in"], await self.evaluated(target))

    async def evaluated(
        self, target: HttpTarget, dataset: Dataset | None = None, asked: Judge | None = None
    ) -> Report:
        return await evaluate(
            target,
            dataset or self.dataset,
            await target.release(),
            product=self.product,
            progress=_unwatched_step,
            concurrency=CONCURRENCY,
            judge=asked,
        )

    def decided(self, plant: Plant, baseline: Report, candidate: Report) -> Stopped:
        """The gate first; what it lets through goes on to the trials. What harms few answers goes on in any
        case: another set of cases might have had none of them."""
        verdict = judge(baseline, candidate, self.rules)
        if not verdict.passed and plant.rate is None:
            return stopped_by(verdict)
        timed = plant.base == "paced"
        found = trials(baseline, candidate, self.rules, rate=plant.rate or 0.0, timed=timed)
        return replace(found, verdict=verdict) if verdict.passed else _anyway(stopped_by(verdict), found)


@dataclass(slots=True)
class House:
    """The instance that plants share, and the baselines that were evaluated in it, each once."""

    garden: Garden
    target: HttpTarget
    bases: dict[Base, Report] = field(default_factory=dict)

    async def base(self, name: Base) -> Report:
        if name not in self.bases:
            await self._serve(name)
            self.bases[name] = await self.garden.evaluated(self.target, self._cases(name))
        return self.bases[name]

    async def released(self, plant: Plant) -> Stopped:
        """A release that serves in its turn."""
        baseline = await self.base(plant.base)
        await self.target.promote(plant.name, reason=WHY)
        candidate = await self.garden.evaluated(self.target, self._cases(plant.base))
        return self.garden.decided(plant, baseline, candidate)

    async def misjudged(self, plant: Plant, fault: InEvaluation) -> Stopped:
        if fault.what == "judge outage":
            return await self._without_judge(plant)
        return await self._from_cache(plant)

    async def _from_cache(self, plant: Plant) -> Stopped:
        """Asked twice, so that the second time every answer is there."""
        baseline = await self.base("built-in")
        await self._serve("built-in")
        async with Remembered(self.target.url) as target:
            await collect(target, self.garden.dataset, _unwatched_step, CONCURRENCY)
            return self.garden.decided(plant, baseline, await self.garden.evaluated(target))

    async def _without_judge(self, plant: Plant) -> Stopped:
        """The same release twice, on fewer cases; the second judge does not live to the end."""
        await self._serve("built-in")
        dataset = limited(self.garden.dataset, JUDGED)
        baseline = await self._judged(dataset, {})
        return self.garden.decided(plant, baseline, await self._judged(dataset, {JUDGE_CALLS: str(CALLS)}))

    async def _judged(self, dataset: Dataset, environment: Mapping[str, str]) -> Report:
        server = await self.garden.bed.web("eval.planted.server:served", **environment)
        async with Judge(JudgeSettings(url=f"{server.url}/v1", model="judge")) as asked:
            return await self.garden.evaluated(self.target, dataset, asked)

    async def _serve(self, name: Base) -> None:
        release = load_release(DEFAULT_RELEASE).id if _MODELS[name] is None else name
        await self.target.promote(release, reason=WHY)

    def _cases(self, name: Base) -> Dataset:
        return limited(self.garden.dataset, PACED) if name == "paced" else self.garden.dataset


class Remembered(HttpTarget):
    """Asks without forbidding the cache, as somebody's script might."""

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        allowed = {name: value for name, value in body.items() if name not in ("cache", "plumbline")}
        return await super()._post(path, allowed)


def stopped_by(verdict: Verdict) -> Stopped:
    """The check that says most: evidence, then a loss that is shown, then one that cannot be ruled out."""
    failed = [check for check in verdict.checks if not check.passed and not check.undecided]
    undecided = [check for check in verdict.checks if check.undecided]
    first, *more = sorted(failed or undecided, key=_telling)
    name = f"{first.name} ({first.slice})" if first.slice else first.name
    return Stopped(
        stage="gate" if failed else "no verdict",
        by=f"{name} and {len(more)} more" if more else name,
        why=_reason(first, verdict),
        verdict=verdict,
    )


def _anyway(stopped: Stopped, behind: Stopped) -> Stopped:
    """Stopped by the gate, and what would have come after it."""
    stage = f"{behind.stage}, {behind.by}" if behind.by else behind.stage
    return replace(stopped, why=f"{stopped.why} Behind the gate: {stage}. {behind.why}")


_ORDER = ("evidence", "gated", "guard", "slice", "cost")


def _telling(check: Check) -> tuple[bool, int, float]:
    found, margin = check.difference, check.margin
    unsure = check.role == "gated" and found is not None and margin is not None and found.high >= -margin
    return unsure, _ORDER.index(check.role), found.mean if found else 0.0


def _reason(check: Check, verdict: Verdict) -> str:
    """What the metric was and is, or, of a release that failed in cases, what the first of them says."""
    if check.undecided or check.baseline is None or check.candidate is None:
        return check.reason
    if check.lost and verdict.regressions:
        return f"{check.reason} {verdict.regressions[0].candidate_answer}"
    return f"{check.baseline:.3f} became {check.candidate:.3f}. {check.reason}"


def _tampered(tamper: Callable[[Path, Path], None], folder: Path) -> Path:
    """A copy of the embedder's folder, tampered with."""
    source = find_model(load_release(DEFAULT_RELEASE).body.index.embedder, None)
    shutil.copytree(source, folder)
    tamper(source, folder)
    return folder


def _last_line(text: str) -> str:
    """Of the end of a log."""
    return text.rpartition(" | ")[2].strip()


def _unwatched(done: int, total: int) -> None:
    return None


def _unwatched_step(step: str, done: int, total: int) -> None:
    return None
