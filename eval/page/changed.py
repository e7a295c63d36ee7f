"""What differs between two releases: short values side by side, texts line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from app.changes import Change, hunks, is_text
from eval.page.markup import Html, joined, tag
from eval.page.words import compared

_CONTEXT = 1


def changes_html(changes: Sequence[Change]) -> Html:
    if not changes:
        return tag("p", "Nothing: both are the same release.")
    return joined(*(_change(change) for change in changes))


def _change(change: Change) -> Html:
    if change.before is not None and change.after is not None and is_text(change):
        return tag("div", tag("code", change.path), _diff(change.before, change.after), class_="card changed")
    return tag(
        "p",
        tag("code", change.path),
        ": ",
        _side("del", change.before),
        " → ",
        _side("ins", change.after),
        class_="card changed",
    )


def _side(name: str, value: str | None) -> Html:
    return tag("span", "(absent)", class_="soft") if value is None else tag(name, value)


def _diff(before: str, after: str) -> Html:
    return tag("div", *_lines(hunks(before, after, context=_CONTEXT)), class_="diff")


def _lines(lines: Sequence[str]) -> Iterator[Html]:
    for changed, group in groupby(lines, key=lambda line: line[:1] in "-+"):
        if changed:
            yield from _replaced(list(group))
        else:
            yield from (_unchanged(line) for line in group)


def _unchanged(line: str) -> Html:
    return tag("span", "⋯", class_="gap") if line == "@" else tag("span", f"  {line[1:]}")


def _replaced(lines: Sequence[str]) -> Iterator[Html]:
    """Where as many lines came as went, they are taken for pairs, whose words are compared."""
    gone = [line[1:] for line in lines if line.startswith("-")]
    came = [line[1:] for line in lines if line.startswith("+")]
    if len(gone) == len(came):
        pairs = [compared(old, new) for old, new in zip(gone, came, strict=True)]
        gone, came = [old for old, _ in pairs], [new for _, new in pairs]
    yield from (tag("span", "− ", line, class_="gone") for line in gone)
    yield from (tag("span", "+ ", line, class_="came") for line in came)
