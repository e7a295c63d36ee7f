"""The filter language of the HTTP API: what each form means, and that no part of it is guessed at."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import RequestInvalid
from app.routes import filters
from retrieval.conditions import holds
from retrieval.types import Metadata

REPORT: Metadata = {
    "lang": "de",
    "year": 2022,
    "tags": ["hr", "law"],
    "published": "2024-03-01T09:30:00+01:00",
}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"lang": "de"}, True),
        ({"lang": "DE"}, False),
        ({"lang": ["en", "de"]}, True),
        ({"year": 2022.0}, True),
        ({"year": "2022"}, False),
        ({"year": True}, False),
        ({"lang": "de", "year": 2021}, False),
        ({"year": {"$gte": 2022, "$lt": 2023}}, True),
        ({"year": {"$gt": 2022}}, False),
        ({"year": {"$gte": "2022-01-01"}}, False),
        ({"published": {"$gte": "2024-03-01T08:30:00Z", "$lte": "2024-03-01T08:30:00"}}, True),
        ({"published": {"$lte": "2024-03-01"}}, False),
        ({"published": {"$lt": "2024-03-02"}}, True),
        ({"tags": "hr"}, True),
        ({"tags": {"$in": ["it", "law"]}}, True),
        ({"tags": {"$all": ["hr", "law"]}}, True),
        ({"tags": {"$all": ["hr", "it"]}}, False),
        ({"tags": {"$nin": ["it"]}}, True),
        ({"tags": {"$gt": 1}}, False),
        ({"lang": {"$eq": "de", "$ne": "en"}}, True),
        ({"missing": {"$exists": False}}, True),
        ({"lang": {"$exists": True}}, True),
        ({"missing": {"$ne": 1}}, True),
        ({"missing": {"$lt": 1}}, False),
        ({"$not": {"missing": {"$lt": 1}}}, True),
        ({"$or": [{"year": 1}, {"$and": [{"lang": "de"}, {"tags": "law"}]}]}, True),
        ({"$not": {"$or": [{"lang": "de"}]}}, False),
    ],
)
def test_a_filter_means_what_its_description_says(stated: dict[str, Any], expected: bool) -> None:
    condition = filters.condition(stated, "filter")
    assert condition is not None
    assert holds(condition, REPORT) is expected


def test_the_examples_of_the_description_are_filters() -> None:
    assert all(filters.condition(example, "filter") for example in filters.EXAMPLES)


def test_no_conditions_are_no_filter() -> None:
    assert filters.condition({}, "filter") is None


@pytest.mark.parametrize(
    ("stated", "place"),
    [
        ({"and": [{"a": 1}]}, "filter.and"),
        ({"a": {"gte": 1}}, "filter.a.gte"),
        ({"$AND": [{"a": 1}]}, "filter.$AND"),
        ({"$or": {"a": 1}}, "filter.$or"),
        ({"a": None}, "filter.a"),
        ({"a": [["b"]]}, "filter.a"),
        ({"a": {"$in": [1] * 201}}, "filter.a.$in"),
        ({"a": {"$lt": "2023-02-29"}}, "filter.a.$lt"),
        ({"a": {"$gte": 1, "$lt": "2024-01-01"}}, "filter"),
        ({"a": "x" * 1_001}, "filter.a"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(stated: dict[str, Any], place: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        filters.condition(stated, "filter")
    assert (refused.value.param, refused.value.code) == (place, "filter_invalid")


def test_nesting_without_end_is_refused_and_not_followed() -> None:
    endless: dict[str, Any] = {"a": 1}
    for _ in range(5_000):
        endless = {"$and": [endless]}
    with pytest.raises(RequestInvalid, match="at most 8 deep"):
        filters.condition(endless, "filter")
