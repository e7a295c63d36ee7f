"""Conditions on metadata as the command line takes them: a comparison, or the JSON of the HTTP API."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Only documents whose metadata is so: `lang=de`, `lang!=de`, `year>=2020`, "
        "`published<2024-03-01`, or JSON as in the HTTP API. Repeatable; all must hold.",
        show_default=False,
    ),
]

_COMPARISON = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_OPERATORS = {">=": "$gte", "<=": "$lte", ">": "$gt", "<": "$lt", "!=": "$ne"}


def filter_of(said: Sequence[str] | None) -> dict[str, Any]:
    """The `filter` of a request. What cannot be read ends the command with a sentence."""
    conditions = [_condition(one) for one in said or ()]
    if len(conditions) > 1:
        return {"$and": conditions}
    return conditions[0] if conditions else {}


def _condition(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text, parse_constant=_no_number))
        except ValueError as error:
            raise typer.BadParameter(f"--where: this is no JSON: {error}") from None
    compared = _COMPARISON.fullmatch(text)
    if not compared:
        raise typer.BadParameter(
            f"--where: {text!r} is no condition; write one as `year>=2020` or as JSON, `{{...}}`."
        )
    field, operator, value = compared.groups()
    if operator == "=":
        return {field: _value(value)}
    return {field: {_OPERATORS[operator]: _value(value)}}


def _value(text: str) -> Any:
    """A number, true, false, a list or a text in quotes, as in JSON; else the text as it stands."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except ValueError:
        return text
    endless = isinstance(value, float) and not math.isfinite(value)
    return text if value is None or endless or isinstance(value, dict) else value


def _no_number(name: str) -> None:
    """Python reads NaN and Infinity as numbers, JSON does not."""
    raise ValueError(f"{name} is no number")
