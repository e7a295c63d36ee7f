"""The parts that all pages are made of: sections, facts, tables that become cards where it is narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.page.markup import Html, joined, tag
from eval.page.plots import histogram
from eval.types import DatasetRef, Spread

_FINGERPRINT_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Column:
    """`number` is set flush right; `state`, `plot` and `wide` take a line of their own on a card."""

    name: str
    kind: Literal["text", "number", "state", "plot", "wide"] = "text"


Row = Sequence[str | None]
"""A child for each column; the first names the row."""


GRADED = (
    "How many cases have which value. Metrics that are 0 or 1 in every case are left out: their means say it "
    "all."
)


def section(title: str, *body: str | None) -> Html:
    return tag("section", tag("h2", title), *body)


def facts(pairs: Iterable[tuple[str, str | None]]) -> Html:
    """Terms and what holds of them; those without a value are left out."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value, dir="auto")) for name, value in pairs if value),
        class_="facts",
    )


def table(columns: Sequence[Column], rows: Iterable[Row]) -> Html:
    head = tag("tr", *(tag("th", column.name, scope="col", class_=column.kind) for column in columns))
    body = (_row(columns, row) for row in rows)
    shown = tag("table", tag("thead", head), tag("tbody", *body), class_="cards")
    return tag("div", shown, class_="scroll", tabindex="0")  # What is wide is scrolled by keys, too.


def _row(columns: Sequence[Column], row: Row) -> Html:
    cells = (
        tag("td", child, class_=column.kind, data_label=column.name)
        for column, child in zip(columns[1:], row[1:], strict=True)
    )
    return tag("tr", tag("th", row[0], scope="row"), *cells)


def bullets(items: Iterable[str]) -> Html:
    return tag("ul", *(tag("li", item, dir="auto") for item in items), class_="list")


def quote(text: str) -> Html:
    """Text of others, as it is, in its own direction."""
    return tag("div", text, class_="quote", dir="auto")


def coded(text: str) -> Html:
    """What is between backquotes as code."""
    parts = text.split("`")
    return joined(*(tag("code", part) if at % 2 else part for at, part in enumerate(parts)))


def commands(*lines: str) -> Html:
    return tag("pre", tag("code", "\n".join(lines)), tabindex="0")


def graded(spreads: Sequence[Spread]) -> list[Spread]:
    """Those that are not all or nothing in every case: of the others the mean says it all."""
    return [each for each in spreads if any((*each.baseline[1:-1], *each.candidate[1:-1]))]


def plots(spreads: Sequence[Spread]) -> Html:
    figures = (tag("figure", tag("figcaption", each.metric), histogram(each)) for each in spreads)
    return tag("div", *figures, class_="plots")


def dataset(ref: DatasetRef) -> Html:
    return joined(f"{ref.name} {ref.version} ", tag("code", ref.fingerprint[:_FINGERPRINT_SHOWN]))


def moment(started_at: str) -> str:
    """An ISO time to the minute, as it was written."""
    return started_at[:16].replace("T", " ")


def second(at: str) -> str:
    """The same to the second."""
    return at[:19].replace("T", " ")


def figure(value: float | None) -> str:
    """Shares to the thousandth, counts without decimals."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
