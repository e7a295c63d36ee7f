"""The regressions that are planted. Each is one that has happened to somebody's release."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.planted.server import IN_GERMAN
from eval.planted.types import InEvaluation, InRelease, InWorld, Plant, Severity, Stage
from eval.types import Case, EvalError, SourceDocument

EXAMPLES = 8
"""Cases that a leaked prompt holds."""
SEED = 11
PACE = 0.4
"""Seconds that the paced model takes for an answer; the slow one takes three times as long."""
NEWEST = "2026"
_WEIGHTS = "model.safetensors"


def _named(name: str, about: str, severity: Severity, *expected: Stage) -> Plant:
    """A plant of a default release, to be given its fault."""
    return Plant(name=name, about=about, severity=severity, expected=expected, planting=InRelease(keys={}))


def _keys(plant: Plant, **keys: dict[str, object]) -> Plant:
    return replace(plant, planting=InRelease(keys=keys))


def _served(plant: Plant, script: str, *, rate: float | None = None) -> Plant:
    return replace(plant, base="served", planting=InRelease(keys={}, model=f"handbook?{script}"), rate=rate)


def _world(plant: Plant, world: InWorld) -> Plant:
    return replace(plant, planting=world)


def blind(prompt: str, cases: Sequence[Case]) -> str:
    """The passages are missing."""
    return re.sub(r"<passages>.*?</passages>\n", "", prompt, flags=re.DOTALL)


def other_task(prompt: str, cases: Sequence[Case]) -> str:
    """Asks for something else than the question."""
    return prompt.partition("# user")[0] + (
        "# user\n<passages>\n{passages}\n</passages>\n\nWrite a cheerful slogan about the company.\n"
    )


def in_german(prompt: str, cases: Sequence[Case]) -> str:
    return prompt.replace("\n# user", f"- {IN_GERMAN}\n\n# user", 1)


def with_cases(prompt: str, cases: Sequence[Case]) -> str:
    """Examples that are cases of the evaluation."""
    known = [case for case in cases if case.answerable and case.kind == "question"][:EXAMPLES]
    examples = "\n".join(f"Question: {case.question}\nAnswer: {case.reference}" for case in known)
    escaped = examples.replace("{", "{{").replace("}", "}}")
    return prompt.replace("\n# user", f"\nExamples:\n{escaped}\n\n# user", 1)


def stale(documents: Sequence[SourceDocument], cases: Sequence[Case]) -> Sequence[SourceDocument]:
    """The corpus as it was a year ago: what is of this year is missing, and each text has the figures of
    before."""
    return [_older(one) for one in documents if NEWEST not in one.id]


def _older(document: SourceDocument) -> SourceDocument:
    if not document.id.endswith(".md"):
        return document
    text = re.sub(r"\b(\d{1,3})\b", lambda found: str(int(found[1]) + 1), document.content.decode())
    return replace(document, content=text.encode())


def leaked(documents: Sequence[SourceDocument], cases: Sequence[Case]) -> Sequence[SourceDocument]:
    """The sheet of questions and right answers lies among the documents."""
    rows = [f"{case.question} {case.reference}" for case in cases if case.kind == "question"]
    sheet = "# Questions and answers\n\n" + "\n\n".join(rows) + "\n"
    first = documents[0]
    name = "people:questions.md" if first.filename else "questions"
    filename = "questions.md" if first.filename else None
    return [*documents, SourceDocument(id=name, content=sheet.encode(), filename=filename)]


def shuffled(source: Path, folder: Path) -> None:
    """The same embedder by its name and its form, with every tensor's numbers in another order."""
    raw = (source / _WEIGHTS).read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    values, random = bytearray(raw), np.random.default_rng(SEED)
    for name, about in json.loads(raw[8:begin]).items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = (begin + at for at in about["data_offsets"])
            values[start:end] = random.permutation(np.frombuffer(raw[start:end], "<f4")).tobytes()
    (folder / _WEIGHTS).write_bytes(values)


def cut_off(source: Path, folder: Path) -> None:
    """A download that ended in the middle."""
    raw = (source / _WEIGHTS).read_bytes()
    (folder / _WEIGHTS).write_bytes(raw[: len(raw) // 2])


PLANTS: tuple[Plant, ...] = (
    _named("unchanged", "nothing", "none", "nothing"),
    _served(_named("unchanged-served", "nothing, with a served model", "none", "nothing"), "again=1"),
    _keys(
        _named("misspelt-key", "`limt = 3` in [search]", "severe", "refused"),
        search={"limt": 3},
    ),
    _world(
        _named("cut-weights", "half of the embedder's weights are missing", "severe", "refused"),
        InWorld(embedder=cut_off),
    ),
    _world(
        _named("shuffled-weights", "the embedder's weights are in disorder", "severe", "gate"),
        InWorld(embedder=shuffled),
    ),
    _keys(
        _named("bad-chunker", "chunks of 32 tokens", "severe", "gate"),
        index={"chunk_tokens": 32},
    ),
    _world(
        _named("stale-index", "the index is of last year's documents", "severe", "gate"),
        InWorld(documents=stale),
    ),
    _keys(_named("one-passage", "`limit = 1` in [search]", "severe", "gate"), search={"limit": 1}),
    _keys(
        _named("cut-context", "`max_characters = 200` in [context]", "severe", "gate"),
        context={"max_characters": 200},
    ),
    _keys(
        _named("cut-answers", "`max_tokens = 12` in [sampling]", "severe", "gate"),
        sampling={"max_tokens": 12},
    ),
    replace(
        _named("blind-prompt", "the prompt has no passages", "severe", "gate"),
        planting=InRelease(keys={}, prompt=blind),
    ),
    replace(
        _named("other-task", "the prompt asks for a slogan", "severe", "gate"),
        planting=InRelease(keys={}, prompt=other_task),
    ),
    replace(
        _named("in-german", "the prompt wants German", "severe", "gate"),
        base="served",
        planting=InRelease(keys={}, prompt=in_german, model="handbook?obeys=1"),
    ),
    _served(_named("never-cites", "the model names no source", "severe", "gate"), "fault=uncited"),
    _served(_named("miscites", "the model names the wrong sources", "severe", "gate"), "fault=miscited"),
    _served(
        _named("empty-answers", "one answer in five is empty", "severe", "gate"), "fault=empty&share=0.2"
    ),
    _served(
        _named("errors", "the model's server answers 500 to one request in five", "severe", "gate"),
        "status=500&share=0.2",
    ),
    replace(
        _served(
            _named("slow-model", "the model takes three times as long", "severe", "gate"),
            f"pace={3 * PACE:g}",
        ),
        base="paced",
    ),
    _served(
        _named("rare-corruption", "one answer in a hundred is damaged", "mild", "gate", "shadow", "canary"),
        "fault=corrupt&share=0.01",
        rate=0.01,
    ),
    _served(
        _named("sound-in-the-lab", "one live answer in eight is damaged, no case's", "severe", "shadow"),
        "lab=1",
        rate=0.125,
    ),
    replace(
        _named("leaked-prompt", f"{EXAMPLES} cases are examples in the prompt", "severe", "gate"),
        planting=InRelease(keys={}, prompt=with_cases),
    ),
    _world(
        _named("leaked-index", "cases and references are among the documents", "severe", "gate"),
        InWorld(documents=leaked),
    ),
    replace(
        _named("cached-answers", "the answers come from the cache", "severe", "gate"),
        planting=InEvaluation(what="cached answers"),
    ),
    replace(
        _named("judge-outage", "the judge dies half-way", "severe", "no verdict"),
        planting=InEvaluation(what="judge outage"),
    ),
    _keys(
        _named("vectors-alone", "`dense_weight = 1.0`", "mild", "gate", "shadow", "canary", "nothing"),
        search={"dense_weight": 1.0, "foreign_weight": 1.0},
    ),
    _keys(
        _named("words-alone", "`dense_weight = 0.0`", "mild", "gate", "shadow", "canary", "nothing"),
        search={"dense_weight": 0.0, "foreign_weight": 0.0},
    ),
    _keys(
        _named("few-candidates", "`candidates = 8`", "mild", "gate", "shadow", "canary", "nothing"),
        search={"candidates": 8},
    ),
)


def chosen(names: str | None) -> tuple[Plant, ...]:
    """Those of these names, separated by commas; all for None."""
    if names is None:
        return PLANTS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {plant.name: plant for plant in PLANTS}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise EvalError(f"There is no regression {', '.join(unknown)!r}; there are {', '.join(known)}.")
    return tuple(plant for plant in PLANTS if plant.name in wanted)
