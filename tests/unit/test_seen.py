"""What a process remembers to be visible."""

from __future__ import annotations

from dataclasses import replace

from retrieval.seen import Seen
from retrieval.types import Filter, OneOf

WHERE = Filter(tenant="acme", groups=frozenset({"hr"}))


def revisions(seen: Seen, where: Filter = WHERE) -> set[int] | None:
    known = seen.by(where)
    return known.revisions if known else None


def test_what_one_reader_saw_says_nothing_of_another() -> None:
    seen = Seen()
    seen.see(WHERE, "1", [1, 2])
    seen.see(WHERE, "1", [2, 3])
    assert revisions(seen) == {1, 2, 3}
    for other in (
        replace(WHERE, tenant="rival"),
        replace(WHERE, groups=None),
        replace(WHERE, groups=frozenset()),
        replace(WHERE, collections=("default",)),
        replace(WHERE, document_ids=("a",)),
    ):
        assert seen.by(other) is None
    assert revisions(seen, replace(WHERE, where=OneOf("kind", ("memo",)))) == {1, 2, 3}


def test_another_epoch_begins_anew_and_whoever_holds_the_old_one_is_not_told() -> None:
    seen = Seen()
    seen.see(WHERE, "1", [1])
    before = seen.by(WHERE)
    seen.see(WHERE, "2", [2])
    assert before is not None
    assert (before.epoch, before.revisions) == ("1", {1})
    assert revisions(seen) == {2}


def test_too_many_push_out_those_of_the_reader_who_saw_nothing_new_for_longest() -> None:
    seen = Seen(most=5)
    readers = [replace(WHERE, tenant=name) for name in ("a", "b", "c")]
    seen.see(readers[0], "1", [1, 2])
    seen.see(readers[1], "1", [3, 4])
    seen.see(readers[0], "1", [2, 5])
    seen.see(readers[2], "1", [6])
    assert [revisions(seen, reader) for reader in readers] == [{1, 2, 5}, None, {6}]
    seen.see(readers[0], "2", [7])
    seen.see(readers[1], "1", [3, 4, 8])
    assert [revisions(seen, reader) for reader in readers] == [{7}, {3, 4, 8}, {6}]
    seen.see(readers[2], "1", range(10))
    assert [revisions(seen, reader) for reader in readers] == [None, None, None]


def test_all_that_a_reader_may_see_is_learnt_now_and_then() -> None:
    seen = Seen()
    assert [seen.due(now) for now in (1.0, 2.0, 5.9, 6.0, 6.1)] == [True, False, False, True, False]
