"""The judge of fault runs: each promise's smallest breach is named, and what may happen is let pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults import history
from tests.faults.history import Accepted, Event, Finished, History, Look, Read, Shown, Write, judge

SIZES = {"a": 2, "b": 2, "c": 2}
ALL = frozenset({0, 1})


def put(
    content: str, began: float, ended: float | None, version: int | None = None, key: str | None = None
) -> Write:
    return Write(document="d", content=content, began=began, ended=ended, version=version, key=key)


def delete(began: float, ended: float | None, version: int | None = None) -> Write:
    return Write(document="d", content=None, began=began, ended=ended, version=version)


def look(
    at: float,
    shown: Mapping[str, frozenset[int]] | str | None,
    *,
    revisions: int = 1,
    settled: bool = False,
    whole: bool = True,
) -> Look:
    parts = {shown: ALL} if isinstance(shown, str) else shown
    found = {"d": Shown(revisions=frozenset(range(revisions)), parts=parts)} if parts else {}
    return Look(
        documents=frozenset({"d"}), shown=found, began=at, ended=at + 0.5, settled=settled, whole=whole
    )


def rules(*events: Event, audited: bool = False) -> set[str]:
    return {flaw.rule for flaw in judge(History(events=events, sizes=SIZES, audited=audited))}


KEPT: dict[str, tuple[Event, ...]] = {
    "an old text is shown until its successor is visible": (
        put("a", 0, 1, 1), look(2, "a"), put("b", 3, 4, 2), look(5, "a"), look(6, "b", settled=True),
    ),
    "an unknown deletion may happen late": (
        put("a", 0, 1, 1), look(2, "a"), delete(3, None), look(4, "a"), look(5, None, settled=True),
    ),
    "an unknown put may come last": (put("a", 0, 1, 1), put("b", 2, None), look(9, "b", settled=True)),
    "an unknown put may never happen": (put("a", 0, 1, 1), put("b", 2, None), look(9, "a", settled=True)),
    "a search beside a deletion sees either": (
        put("a", 0, 1, 1), look(2, "a"), delete(3, 4, 2), look(3.2, "a"), look(3.3, None),
        look(9, None, settled=True),
    ),
    "an answer that says so may miss": (
        put("a", 0, 1, 1), look(2, "a"), look(3, None, whole=False), look(4, "a", settled=True),
    ),
    "a retry under the same key is the same write": (
        put("a", 0, None, key="k"), put("a", 2, 3, 1, "k"), put("b", 4, 5, 2), put("a", 6, 7, 1, "k"),
        look(9, "b", settled=True),
    ),
    "concurrent writes are ordered by their versions": (
        put("a", 0, 9, 2), put("b", 0, 9, 1), look(10, "b"), look(11, "a", settled=True),
    ),
    "what was deleted comes back when it is put again": (
        put("a", 0, 1, 1), look(2, "a"), delete(3, 4, 2), put("b", 5, 6, 3), look(7, None),
        look(9, "b", settled=True),
    ),
    "a read sees the newest": (
        put("a", 0, 1, 1), Read(document="d", version=1, began=2, ended=3), delete(4, 5, 2),
        Read(document="d", version=None, began=6, ended=7),
    ),
}  # fmt: skip

BROKEN: dict[str, tuple[str, tuple[Event, ...]]] = {
    "an acknowledged put that is nowhere": ("lost write", (put("a", 0, 1, 1), look(9, None, settled=True))),
    "an acknowledged update that is nowhere": (
        "lost write", (put("a", 0, 1, 1), put("b", 2, 3, 2), look(9, "a", settled=True)),
    ),
    "an acknowledged put that cannot be read": (
        "lost write", (put("a", 0, 1, 1), Read(document="d", version=None, began=2, ended=3)),
    ),
    "an acknowledged version that a read does not know": (
        "lost write", (put("a", 0, 1, 1), put("b", 2, 3, 2), Read(document="d", version=1, began=4, ended=5)),
    ),
    "two texts at once": (
        "two revisions", (put("a", 0, 1, 1), put("b", 0, 1, 2), look(2, {"a": ALL, "b": ALL})),
    ),
    "one text twice": ("two revisions", (put("a", 0, 1, 1), look(2, "a", revisions=2))),
    "a part is missing": ("partly visible", (put("a", 0, 1, 1), look(2, {"a": frozenset({1})}))),
    "a text after its deletion": ("deleted text", (put("a", 0, 1, 1), delete(2, 3, 2), look(4, "a"))),
    "a text after its deletion, by time alone": (
        "deleted text", (put("a", 0, 1), delete(2, 3), look(4, "a")),
    ),
    "a text in the end after its deletion": (
        "deleted text", (put("a", 0, 1, 1), delete(2, 3, 2), look(9, "a", settled=True)),
    ),
    "a version that is read after its deletion": (
        "deleted text", (put("a", 0, 1, 1), delete(2, 3, 2), Read(document="d", version=1, began=4, ended=5)),
    ),
    "a text that was seen is not found": (
        "vanished", (put("a", 0, 1, 1), look(2, "a"), look(3, None), look(4, "a")),
    ),
    "a text whose job succeeded is not found": (
        "vanished", (put("a", 0, 1, 1), Finished(document="d", version=1, seen=2), look(3, None)),
    ),
    "a deletion that came before does not excuse": (
        "vanished", (delete(0, 1, 1), put("a", 2, 3, 2), look(4, "a"), look(5, None)),
    ),
    "an older text after a newer one was seen": (
        "older version", (put("a", 0, 1, 1), put("b", 2, 3, 2), look(4, "b"), look(5, "a")),
    ),
    "an older text after the newer one's job succeeded": (
        "older version",
        (put("a", 0, 1, 1), put("b", 2, 3, 2), Finished(document="d", version=2, seen=4), look(5, "a")),
    ),
    "a later write with a lower version": ("older version", (put("a", 0, 1, 5), put("b", 2, 3, 4))),
    "a retry that was another version": ("retried twice", (put("a", 0, 1, 1, "k"), put("a", 2, 3, 2, "k"))),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_may_happen_is_let_pass(name: str) -> None:
    assert rules(*KEPT[name]) == set()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name: str) -> None:
    rule, events = BROKEN[name]
    assert rule in rules(*events)


def test_the_ledgers_versions_tell_what_became_of_unknown_writes() -> None:
    events = (put("a", 0, 1, 1), put("b", 2, None), look(9, "a", settled=True))
    held = Accepted(document="d", version=1, content="a")
    assert rules(*events, held, audited=True) == set()
    late = Accepted(document="d", version=2, content="b")
    assert rules(*events, held, late, audited=True) == {"lost write"}


def test_a_version_that_was_acknowledged_and_is_unknown_is_lost() -> None:
    assert rules(put("a", 0, 1, 1), audited=True) == {"lost write"}
    assert rules(delete(0, 1), audited=True) == {"lost write"}


def test_two_versions_under_one_key_are_found_in_the_ledger() -> None:
    events = (put("a", 0, None, key="k"), put("a", 2, 3, 2, "k"))
    twice = (Accepted(document="d", version=number, content="a") for number in (1, 2))
    assert "retried twice" in rules(*events, *twice, audited=True)


def test_a_history_is_the_same_after_it_was_written_down(tmp_path: Path) -> None:
    events = [event for events in KEPT.values() for event in events]
    kept = History(events=events, sizes=SIZES, audited=True)
    history.write(kept, tmp_path / "history.jsonl")
    assert history.read(tmp_path / "history.jsonl") == kept


@given(st.lists(st.sampled_from(["put", "delete", "show", "look"]), max_size=30))
def test_a_service_that_does_one_thing_after_another_keeps_every_promise(steps: list[str]) -> None:
    """Puts are accepted at once and shown by a later step; looks see what is shown then."""
    events: list[Event] = []
    accepted: list[str] = []
    sizes: dict[str, int] = {}
    shown: str | None = None
    waiting: str | None = None
    for now, step in enumerate(steps):
        if step == "put":
            waiting = f"v{now}"
            sizes[waiting] = 2
            accepted.append(waiting)
            events.append(put(waiting, now, now + 0.4, now))
        elif step == "delete":
            shown = waiting = None
            events.append(delete(now, now + 0.4, now))
        elif step == "show" and waiting:
            shown = waiting
        elif step == "look":
            events.append(look(now, shown))
    events.append(look(len(steps) + 1, waiting or shown, settled=True))
    assert judge(History(events=events, sizes=sizes)) == []
