"""The words of planted regressions: what is planted, where, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.types import Case, SourceDocument, Verdict

Severity = Literal["none", "mild", "severe"]
"""`severe`: at least one question in twenty gets a worse answer, or the evaluation says nothing of the
release. `mild`: fewer, or none. `none`: nothing is planted; whatever stops it is a false alarm."""

Stage = Literal["refused", "gate", "no verdict", "shadow", "canary", "nothing", "broken"]
"""What stops a release. `refused`: it cannot be loaded or started, or reads what is not whole. `broken`: the
trial itself went wrong, which stops nobody."""
IN_TIME: frozenset[Stage] = frozenset({"refused", "gate", "no verdict", "shadow"})
"""Before any reader has seen it."""

Base = Literal["built-in", "served", "paced"]
"""What a candidate is compared with: the default release, the same before a served model, and before one
that takes its time."""

Keys = Mapping[str, Mapping[str, Any]]
Write = Callable[[str, Sequence[Case]], str]
"""The shipped prompt and the cases; the planted prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InRelease:
    """A fault of the release file: keys that differ from the default release's, another prompt for answers,
    or the name of a served model."""

    keys: Keys
    prompt: Write | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InWorld:
    """A fault of what a release finds: other documents, or an embedder's folder that was tampered with."""

    documents: Callable[[Sequence[SourceDocument], Sequence[Case]], Sequence[SourceDocument]] | None = None
    embedder: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InEvaluation:
    """A fault of the evaluation itself."""

    what: Literal["cached answers", "judge outage"]


Planting = InRelease | InWorld | InEvaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """`expected` is what may stop it. `rate` is the share of live answers that it harms, where it is too
    small for a data set to have as many."""

    name: str
    about: str
    severity: Severity
    expected: tuple[Stage, ...]
    planting: Planting
    base: Base = "built-in"
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """By what, in which check or metric, and why, in a sentence."""

    stage: Stage
    by: str = ""
    why: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What became of it, and after how many seconds."""

    plant: Plant
    stopped: Stopped
    seconds: float

    @property
    def missed(self) -> bool:
        """Whether readers would have met a severe one, nothing that may stops a mild one, or an unchanged
        release was stopped."""
        if self.plant.severity == "severe":
            return self.stopped.stage not in IN_TIME
        return self.stopped.stage not in self.plant.expected
