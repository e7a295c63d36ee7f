"""Dates as instants, and one canonical text for equal conditions: the key of cached answers."""

from __future__ import annotations

import time

import pytest

from retrieval.conditions import DEEPEST, canonical, check, instant
from retrieval.errors import FilterInvalid
from retrieval.types import And, Condition, Exists, Not, OneOf, Or, Range

A, B = OneOf("a", (1,)), Exists("b")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-03-01", "2024-03-01T00:00:00Z"),
        ("2024-03-01T10:00", "2024-03-01T10:00:00.000Z"),
        ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00Z"),
    ],
)
def test_a_date_is_its_first_instant_in_utc(text: str, same: str) -> None:
    assert instant(text) == instant(same) is not None


def test_a_date_without_a_zone_is_in_utc_wherever_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = instant("2024-03-01T00:00:00Z")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        assert instant("2024-03-01") == instant("2024-03-01T00:00") == told
    time.tzset()


def test_a_condition_nests_as_deep_as_is_allowed_and_no_deeper() -> None:
    condition: Condition = A
    for _ in range(DEEPEST - 1):
        condition = Not(condition)
    check(condition)
    with pytest.raises(FilterInvalid, match="deep"):
        check(Not(condition))


@pytest.mark.parametrize(
    "text",
    ["", "2024", "2024-13-01", "20240301", "2024-03-01 10:00", "2024-W10", "2024-03-01T25:00", "٢٠٢٤-03-01"],
)
def test_other_texts_are_no_dates(text: str) -> None:
    assert instant(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OneOf("a", (1, "x")), OneOf("a", ("x", 1.0, 1))),
        (And((A, B)), And((B, And((A,)), A))),
        (Or((A, B)), Or((B, A))),
        (Not(Not(A)), A),
        (Range(field="d", gte="2024-03-01"), Range(field="d", gte="2024-03-01T00:00:00Z")),
        (Range(field="n", lt=3), Range(field="n", lt=3.0)),
    ],
)
def test_equal_conditions_have_one_canonical_text(one: Condition, other: Condition) -> None:
    assert canonical(one) == canonical(other)


def test_different_conditions_have_different_ones() -> None:
    conditions: list[Condition | None] = [
        *(None, A, B, Not(A), And((A, B)), Or((A, B)), OneOf("a", (True,)), OneOf("a", ("1",))),
        *(OneOf("and", (1,)), Range(field="a", gt=1), Range(field="a", gte=1), Range(field="a", lt=1)),
        *(Range(field="a", gte="1970-01-01"), Range(field="a", gte=0), Or((A, And((A, B))))),
        And((A, Or((A, B)))),
    ]
    assert len({canonical(condition) for condition in conditions}) == len(conditions)
