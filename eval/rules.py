"""The rules of the gate, from a TOML file: how much of which metric a candidate may lose."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.types import RulesInvalid

DEFAULT_RULES = Path(__file__).with_name("rules.toml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricRule(_Strict):
    """`margin` is the loss that is still no harm. A failure counts as `worst` for the candidate and as
    `best` for the baseline."""

    margin: Annotated[float, Field(ge=0)]
    direction: Literal["higher", "lower"] = "higher"
    worst: float = 0.0
    best: float = 1.0


class Rules(_Strict):
    """`coverage` is the share of a metric's cases that must have a value in both reports. `clustered`
    resamples cases about one document together."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.99
    clustered: bool = True
    resamples: Annotated[int, Field(ge=1_000, le=100_000)] = 9_999
    seed: int = 20_260
    metrics: Annotated[dict[str, MetricRule], Field(min_length=1)]


def load_rules(path: Path = DEFAULT_RULES) -> Rules:
    try:
        return Rules.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RulesInvalid(f"Cannot read the rules {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesInvalid(f"{path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RulesInvalid(f"{path}: {problems}.") from None
