"""Conditions on the command line become the filter of the HTTP API."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from app.cli.where import filter_of
from app.routes import filters


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], {}),
        (["lang=de"], {"lang": "de"}),
        (["year>=2020"], {"year": {"$gte": 2020}}),
        (["year < 2020.5"], {"year": {"$lt": 2020.5}}),
        (["published>2024-03-01"], {"published": {"$gt": "2024-03-01"}}),
        (["draft!=true"], {"draft": {"$ne": True}}),
        (['lang=["de", "en"]'], {"lang": ["de", "en"]}),
        (['code="42"'], {"code": "42"}),
        (["motto=a=b>c"], {"motto": "a=b>c"}),
        (['{"tags": {"$all": ["a"]}}'], {"tags": {"$all": ["a"]}}),
        (["a=1", "b<=2"], {"$and": [{"a": 1}, {"b": {"$lte": 2}}]}),
    ],
)
def test_conditions_become_a_filter(said: list[str], expected: dict[str, Any]) -> None:
    assert filter_of(said) == expected
    filters.condition(filter_of(said), "filter")


@pytest.mark.parametrize("said", ["year", "=1", "a b=1", "{", "$or=1"])
def test_what_is_no_condition_is_told(said: str) -> None:
    with pytest.raises(typer.BadParameter, match="--where"):
        filter_of([said])
