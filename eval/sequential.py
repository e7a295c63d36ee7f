"""Tests that may be looked at after every answer and stopped at any time.

Each is an e-process: a wealth that starts at 1 and, while the candidate does no harm, cannot be expected to
grow. The chance that it ever reaches 1/alpha is then at most alpha (Ville, 1939), whenever one looks and
whatever one decides from it. See Ramdas, Grünwald, Vovk and Shafer (Statistical Science 38, 2023) on
e-processes, Waudby-Smith and Ramdas (JRSS B 86, 2024) on betting on bounded values, and Johari and others
(Operations Research 70, 2022) on looking all along at experiments.

Numbers in, numbers out; a test is restored from its `state`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from eval.rules import CanaryRules, ShadowRules, Watched

Values = npt.NDArray[np.float64]
State = Mapping[str, Any]
Weighted = Sequence[tuple[float, float]]
"""Alternatives and their weights."""

_MOST = 700.0


class LabelTest:
    """Is harm found with the candidate more often than chance puts conversations there?

    A unit (a conversation) was given to the candidate with a known probability, its propensity, whatever it
    was about, and its harm is in [0, 1]. If the candidate's rate of harm is at most `ratio` times what the
    champion's would be at the same time, a harmed unit is the candidate's with probability q0 =
    s ratio / (s ratio + 1 - s) at most. Against a rate ratio r, of which q likewise, the wealth takes the
    factor 1 + harm (f - 1) with f = q/q0 for a unit of the candidate and (1 - q)/(1 - q0) for one of the
    champion: the likelihood ratio of the label, given that there was harm. The wealth is divided among
    several r, by their weights.

    It rests on the draw alone: not on the rates being constant, nor on conversations being alike or
    independent of one another. Units without harm change nothing, and units may be given in any order, each
    once. Units that could not have gone either way (propensity 0 or 1) say nothing and are passed over.
    """

    __slots__ = ("_logs", "_ratio", "_ratios")

    def __init__(
        self, alternatives: Weighted, *, ratio: float = 1.0, logs: Sequence[float] | None = None
    ) -> None:
        self._ratio = ratio
        self._ratios, self._logs = _started(alternatives, logs)

    @property
    def e_value(self) -> float:
        return float(_sum(self._logs))

    @property
    def state(self) -> list[float]:
        """The logarithm of the wealth that each alternative has."""
        return [float(value) for value in self._logs]

    def update(self, candidate: bool, propensity: float, harm: float) -> None:
        if harm != 0:
            self.extend(np.array([candidate]), np.array([propensity]), np.array([harm]))

    def extend(self, candidate: npt.NDArray[np.bool_], propensity: Values, harm: Values) -> Values:
        """The same for many units at once; the e-value after each of them."""
        path = self._logs + np.cumsum(self._steps(candidate, propensity, harm), axis=0)
        if len(path):
            self._logs = path[-1]
        return _sum(path)

    def _steps(self, candidate: npt.NDArray[np.bool_], propensity: Values, harm: Values) -> Values:
        if ((harm < 0) | (harm > 1)).any():
            raise ValueError("harm must be in [0, 1]")
        share = propensity[:, None]
        drawn = (propensity > 0) & (propensity < 1) & (harm > 0)
        usual = share * self._ratio / (share * self._ratio + 1 - share)
        raised = share * self._ratios / (share * self._ratios + 1 - share)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(candidate[:, None], raised / usual, (1 - raised) / (1 - usual))
            steps = np.log1p(harm[:, None] * (factor - 1))
        return np.where(drawn[:, None], steps, 0.0)


class PairTest:
    """Is the champion's answer better than the candidate's to the same question, on average?

    A pair's loss is the champion's good less the candidate's, in [-1, 1]. If the candidate is no worse, its
    mean is at most 0, and the wealth that stakes a part of itself on it, 1 + stake * loss, cannot be
    expected to grow. It is divided among several stakes, by their weights. Pairs may be given in any order,
    each once.
    """

    __slots__ = ("_logs", "_stakes")

    def __init__(self, stakes: Weighted, *, logs: Sequence[float] | None = None) -> None:
        self._stakes, self._logs = _started(stakes, logs)

    @property
    def e_value(self) -> float:
        return float(_sum(self._logs))

    @property
    def state(self) -> list[float]:
        """The logarithm of the wealth that each stake has."""
        return [float(value) for value in self._logs]

    def update(self, loss: float) -> None:
        self.extend(np.array([loss]))

    def extend(self, losses: Values) -> Values:
        """The same for many pairs at once; the e-value after each of them."""
        if (np.abs(losses) > 1).any():
            raise ValueError("a loss must be in [-1, 1]")
        path = self._logs + np.cumsum(np.log1p(losses[:, None] * self._stakes), axis=0)
        if len(path):
            self._logs = path[-1]
        return _sum(path)


T = TypeVar("T", LabelTest, PairTest)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a metric's test says: harm is shown when `e_value` has ever reached `threshold`. `highest` is the
    greatest e-value so far, `units` how many counted, `harmed` those with any harm (pairs: with any loss)."""

    metric: str
    e_value: float
    highest: float
    threshold: float
    units: int
    harmed: int

    @property
    def harm_shown(self) -> bool:
        return self.highest >= self.threshold


class _Tests(Generic[T]):
    """A test for each metric, and what all of them saw."""

    __slots__ = ("_counts", "_rules", "_tests")

    def __init__(self, rules: Mapping[str, Watched], tests: Mapping[str, T], state: State) -> None:
        self._rules = rules
        self._tests: Mapping[str, T] = tests
        self._counts = {name: _Counts.of(state.get(name)) for name in rules}

    def _count(self, metric: str, harm: float) -> None:
        """One more; only harm can have raised the e-value."""
        counts = self._counts[metric]
        highest = max(counts.highest, self._tests[metric].e_value) if harm > 0 else counts.highest
        self._counts[metric] = _Counts(highest, counts.units + 1, counts.harmed + (harm > 0))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(
            _evidence(rule, self._tests[name].e_value, self._counts[name], name)
            for name, rule in self._rules.items()
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics in which harm is shown; any of them is reason to take the candidate back."""
        return tuple(each.metric for each in self.evidence if each.harm_shown)

    @property
    def state(self) -> dict[str, Any]:
        """Plain JSON; tests under the same rules are restored from it."""
        return {name: self._counts[name].state(test.state) for name, test in self._tests.items()}


class CanaryTests(_Tests[LabelTest]):
    """A `LabelTest` for each metric of the rules."""

    __slots__ = ()

    def __init__(self, rules: CanaryRules, state: State | None = None) -> None:
        known = state or {}
        tests = {
            name: LabelTest(rule.alternatives, ratio=rule.ratio, logs=_logs(known, name))
            for name, rule in rules.metrics.items()
        }
        super().__init__(rules.metrics, tests, known)

    def observe(self, metric: str, *, candidate: bool, propensity: float, harm: float) -> None:
        """A unit's harm in one metric, once, when it is final (a dislike: when it comes). Units without harm
        are given too, so that they are counted."""
        self._tests[metric].update(candidate, propensity, harm)
        self._count(metric, harm)


class ShadowTests(_Tests[PairTest]):
    """A `PairTest` for each metric of the rules."""

    __slots__ = ()

    def __init__(self, rules: ShadowRules, state: State | None = None) -> None:
        known = state or {}
        tests = {
            name: PairTest(rule.alternatives, logs=_logs(known, name)) for name, rule in rules.metrics.items()
        }
        super().__init__(rules.metrics, tests, known)

    def observe(self, metric: str, loss: float) -> None:
        """A pair's loss in one metric: the champion's good less the candidate's, in [-1, 1]."""
        self._tests[metric].update(loss)
        self._count(metric, loss)


def _logs(state: State, name: str) -> Sequence[float] | None:
    return state[name]["logs"] if name in state else None


@dataclass(frozen=True, slots=True)
class _Counts:
    highest: float = 1.0
    units: int = 0
    harmed: int = 0

    @classmethod
    def of(cls, state: Mapping[str, Any] | None) -> _Counts:
        return cls(state["highest"], state["units"], state["harmed"]) if state else cls()

    def state(self, logs: list[float]) -> dict[str, Any]:
        return {"logs": logs, "highest": self.highest, "units": self.units, "harmed": self.harmed}


def _evidence(rule: Watched, e_value: float, counts: _Counts, name: str) -> Evidence:
    return Evidence(name, e_value, counts.highest, 1 / rule.alpha, counts.units, counts.harmed)


def _started(weighted: Weighted, logs: Sequence[float] | None) -> tuple[Values, Values]:
    values, weights = np.asarray(weighted, dtype=np.float64).T
    return values, np.log(weights / weights.sum()) if logs is None else np.asarray(logs, dtype=np.float64)


def _sum(logs: Values) -> Values:
    """Of the wealths, as large as a float can be at most."""
    return np.asarray(np.exp(np.minimum(np.logaddexp.reduce(logs, axis=-1), _MOST)))
