"""While one works an answer out, those with the same question wait; nobody waits twice or for another."""

from __future__ import annotations

import pytest

from app.flights import Flights


def test_nobody_waits_where_nothing_is_under_way() -> None:
    assert Flights().under_way("key") is None


def test_a_flight_is_seen_by_its_key_and_ends_with_its_block() -> None:
    flights = Flights()
    with flights.flight("key"):
        ended = flights.under_way("key")
        assert ended is not None
        assert not ended.is_set()
        assert flights.under_way("other") is None
    assert ended.is_set()
    assert flights.under_way("key") is None


def test_a_flight_that_fails_ends_too() -> None:
    flights = Flights()
    with pytest.raises(RuntimeError), flights.flight("key"):
        ended = flights.under_way("key")
        raise RuntimeError
    assert ended is not None
    assert ended.is_set()


def test_a_second_flight_for_a_key_does_not_end_the_first() -> None:
    flights = Flights()
    with flights.flight("key"):
        ended = flights.under_way("key")
        with flights.flight("key"):
            assert flights.under_way("key") is ended
        assert ended is not None
        assert not ended.is_set()
