"""The rules of releases, from a TOML file: how much of what a candidate may lose offline, and how it is
watched in shadow and canary.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.metrics.catalogue import CATALOGUE
from eval.types import RulesInvalid

SHADOW_HARMS: Final = frozenset({"faults", "degraded", "flawed", "declined", "slow", "unsupported"})
CANARY_HARMS: Final = SHADOW_HARMS | {"disliked"}
"""What a trial can be watched for. Nobody reads a shadow's answers, so nobody dislikes one."""
DEFAULT_RULES = Path(__file__).with_name("rules.toml")

Share = Annotated[float, Field(gt=0, lt=1)]
Above = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricRule(_Strict):
    """`margin` is the loss that is still no harm. A failure counts as `worst` for the candidate and as
    `best` for the baseline. Of a `gated` metric no loss beyond the margin must be shown, of a `guard` a
    loss beyond it must not be shown."""

    margin: Annotated[float, Field(ge=0)]
    role: Literal["gated", "guard"] = "gated"
    direction: Literal["higher", "lower"] = "higher"
    worst: float = 0.0
    best: float = 1.0


class SmallRule(_Strict):
    """Of a metric with fewer than `below` cases the margin, if gated, is `margin_factor` times as wide."""

    below: Annotated[int, Field(ge=1)]
    margin_factor: Annotated[float, Field(ge=1)]


class SliceRule(_Strict):
    """Parts of a data set with at least `cases` cases are judged for themselves, with each metric's margin
    times `margin_factor`."""

    cases: Annotated[int, Field(ge=2)] = 20
    margin_factor: Annotated[float, Field(ge=1)] = 2.0


class CostRule(_Strict):
    """The candidate's `statistic` of the `measure` may be at most `most` times the baseline's. Where it is no
    more than `floor` above it (tokens, or seconds), that is no harm either."""

    measure: Literal["prompt_tokens", "output_tokens", "seconds"]
    statistic: Literal["mean", "p50", "p95"] = "mean"
    most: Annotated[float, Field(ge=1)]
    floor: Annotated[float, Field(ge=0)] = 0.0


class Watched(_Strict):
    """A metric that a sequential test watches. `alpha` is the chance of a false alarm, ever. In a canary the
    candidate's rate may be `ratio` times the champion's. `alternatives` are what is tested against, each
    with its weight: rate ratios above `ratio` in a canary, stakes below 1 in a shadow."""

    alpha: Share
    ratio: Annotated[float, Field(ge=1)] = 1.0
    alternatives: Annotated[tuple[tuple[Above, Above], ...], Field(min_length=1)]


class Step(_Strict):
    """A share of the conversations, until the candidate has had `units` of them at this share and
    `least_minutes` have passed."""

    share: Share
    units: Annotated[int, Field(ge=1)]
    least_minutes: Annotated[float, Field(ge=0)] = 0.0


class CanaryRules(_Strict):
    """How a canary is watched.

    `exposure` is the most conversations that the candidate gets altogether; after them no new ones are drawn
    for it. Of one tenant so many conversations count that `tenant_units` of them can be expected to be the
    candidate's. Conversations that begin in the first `warm_up_seconds` of the trial do not count, whoever
    answers them. Harm counts when it is seen, once a conversation; a conversation without any is done
    `settle_seconds` after its last request. An answer is slow that took longer than `slow_factor` times the
    median of the champion's of its kind in this trial so far, and than `slow_floor_seconds`.
    """

    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    exposure: Annotated[int, Field(ge=1)]
    tenant_units: Annotated[int, Field(ge=1)]
    warm_up_seconds: Annotated[float, Field(ge=0)]
    settle_seconds: Annotated[float, Field(ge=0)]
    slow_factor: Annotated[float, Field(gt=1)] = 2.0
    slow_floor_seconds: Annotated[float, Field(ge=0)] = 0.5
    metrics: Annotated[dict[str, Watched], Field(min_length=1)]

    @property
    def alpha(self) -> float:
        """Of all metrics together."""
        return sum(metric.alpha for metric in self.metrics.values())

    @model_validator(mode="after")
    def _steps_grow(self) -> Self:
        shares = [step.share for step in self.steps]
        if shares != sorted(set(shares)):
            raise ValueError("the shares of the canary's steps must grow")
        _known(self.metrics, CANARY_HARMS)
        for name, metric in self.metrics.items():
            if min(metric.alternatives)[0] <= metric.ratio:
                raise ValueError(f"the alternatives of {name} must be above its ratio {metric.ratio:g}")
        return self


class ShadowRules(_Strict):
    """At most `pairs` questions are mirrored. The shadow has shown no harm when at least `least_pairs` were
    and no test has rejected. Of a pair, an answer is slow that took `slow_factor` times as long as the other
    and `slow_floor_seconds` longer."""

    slow_factor: Annotated[float, Field(gt=1)] = 2.0
    slow_floor_seconds: Annotated[float, Field(ge=0)] = 0.5
    pairs: Annotated[int, Field(ge=1)]
    least_pairs: Annotated[int, Field(ge=1)]
    metrics: Annotated[dict[str, Watched], Field(min_length=1)]

    @model_validator(mode="after")
    def _stakes(self) -> Self:
        _known(self.metrics, SHADOW_HARMS)
        for name, metric in self.metrics.items():
            if max(metric.alternatives)[0] >= 1:
                raise ValueError(f"the alternatives of {name} are stakes and must be below 1")
        return self


class Rules(_Strict):
    """`alpha` is the one-sided error of each bound, and of all guards and slices together. `coverage` is the
    share of a metric's cases that must have a value in both reports. `clustered` takes cases about one
    document together. `seed` and `resamples` are of the intervals of costs."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.99
    clustered: bool = True
    resamples: Annotated[int, Field(ge=1_000, le=100_000)] = 2_000
    seed: int = 20_260
    metrics: Annotated[dict[str, MetricRule], Field(min_length=1)]
    small: SmallRule | None = None
    slices: SliceRule = SliceRule()
    costs: dict[str, CostRule] = {}
    canary: CanaryRules | None = None
    shadow: ShadowRules | None = None


def load_rules(path: Path = DEFAULT_RULES) -> Rules:
    """Raises `RulesInvalid` for a file that cannot be used. A metric that there is none of is refused too:
    passed over, as one that a data set does not have, it would guard nothing."""
    try:
        rules = Rules.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RulesInvalid(f"Cannot read the rules {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesInvalid(f"{path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RulesInvalid(f"{path}: {problems}.") from None
    if wrong := "; ".join(_misnamed(rules)):
        raise RulesInvalid(f"{path}: {wrong}.")
    return rules


def _misnamed(rules: Rules) -> Iterator[str]:
    for name, rule in rules.metrics.items():
        if name not in CATALOGUE:
            yield f"metrics.{name}: there is no such metric; reports name those that there are"
        elif rule.direction != CATALOGUE[name].direction:
            yield f'metrics.{name}: its direction is "{CATALOGUE[name].direction}"'


def _known(metrics: Iterable[str], harms: frozenset[str]) -> None:
    if unknown := sorted(set(metrics) - harms):
        raise ValueError(f"nothing tells {', '.join(unknown)}; there are {', '.join(sorted(harms))}")
