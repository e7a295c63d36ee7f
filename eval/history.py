"""All runs and verdicts of a folder on one page: newest first, and the main metrics over time.

What cannot be read is named at the end, not passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from eval.metrics.catalogue import about
from eval.outputs import write_beside
from eval.page.markup import Html, joined, page, tag
from eval.page.parts import Column, Row, bullets, figure, moment, section, table
from eval.page.plots import sparkline
from eval.report import aggregates, read
from eval.types import DatasetRef, Report, ReportInvalid, Verdict
from eval.wording import TITLES, blocking, check_name, release_name

INDEX = "index.html"
MAIN = (
    "context_recall",
    "citation_hit",
    "answered",
    "abstained",
    "groundedness",
    "judge_faithfulness",
    "semantic_similarity",
    "document_ndcg_10",
    "latency_seconds",
)
"""What a trend is drawn of, as far as a data set has it."""

_SHOWN_IN_ROW = 4
_COLUMNS = (
    Column("release"),
    Column("result", "state"),
    Column("when"),
    Column("data set", "wide"),
    Column("what matters most", "wide"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the folder, by its path within it."""

    path: Path
    found: Report | Verdict

    @property
    def at(self) -> str:
        """When it was evaluated (ISO time, UTC); a verdict counts from its candidate's run."""
        if isinstance(self.found, Report):
            return self.found.started_at
        return self.found.runs[-1].started_at if self.found.runs else ""


@dataclass(frozen=True, slots=True)
class History:
    """`entries` newest first; `unread` are files that are no report, with the reason."""

    entries: tuple[Entry, ...]
    unread: tuple[str, ...]


def history(folder: Path) -> History:
    """Every JSON file in the folder and those within it. Raises `ReportInvalid` without such a folder."""
    if not folder.is_dir():
        raise ReportInvalid(f"There is no folder {folder}.")
    entries, unread = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            entries.append(Entry(path.relative_to(folder), read(path)))
        except ReportInvalid as error:
            unread.append(str(error))
    entries.sort(key=lambda entry: (entry.at, isinstance(entry.found, Verdict)), reverse=True)
    return History(tuple(entries), tuple(unread))


def write_index(folder: Path) -> Path:
    """Raises `ReportInvalid` without such a folder, and `CannotWrite`."""
    [path] = write_beside(folder / INDEX, {".html": index_html(history(folder), folder)})
    return path


def index_html(found: History, folder: Path) -> str:
    """Links go to the HTML beside each file where there is one in `folder`, else to the file itself."""
    runs = [entry.found for entry in reversed(found.entries) if isinstance(entry.found, Report)]
    verdicts = len(found.entries) - len(runs)
    return page(
        "Evaluations",
        tag("p", "Plumbline · all evaluations", class_="kicker"),
        tag("h1", f"{_count(len(runs), 'run')}, {_count(verdicts, 'verdict')}"),
        *_trends(runs),
        section("Newest first", table(_COLUMNS, (_row(entry, folder) for entry in found.entries))),
        section("Files that are no report", bullets(found.unread)) if found.unread else None,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(entry: Entry, folder: Path) -> Row:
    found = entry.found
    release = found.release if isinstance(found, Report) else found.candidate
    beside = entry.path.with_suffix(".html")
    href = quote((beside if (folder / beside).exists() else entry.path).as_posix())
    title = tag("a", tag("strong", release.name, dir="auto"), href=href)
    return [
        joined(title, tag("span", f"{release.id} · {entry.path.as_posix()}", class_="reason")),
        _result(found),
        moment(entry.at),
        f"{found.dataset.name} {found.dataset.version}",
        _matters(found),
    ]


def _result(found: Report | Verdict) -> Html:
    if isinstance(found, Verdict):
        return tag("span", TITLES[found.outcome], class_=f"badge {found.outcome}")
    lost = sum(bool(result.sample.errors) for result in found.results)
    if found.error or lost:
        return tag("span", f"run, {lost} lost", class_="badge failed")
    return tag("span", "run", class_="badge plain")


def _matters(found: Report | Verdict) -> str:
    """Of a run its main metrics, of a verdict what stands in the way, or what it replaces."""
    if isinstance(found, Report):
        means = aggregates(found)
        names = [name for name in MAIN if name in means][:_SHOWN_IN_ROW]
        return ", ".join(f"{name} {figure(means[name].mean)}" for name in names)
    names = [check_name(check) for check in blocking(found)]
    against = f"against {release_name(found.baseline)}"
    if not names:
        return f"{len(found.checks)} checks passed {against}"
    said = "failed" if found.outcome == "failed" else "could not be decided"
    more = f" and {len(names) - _SHOWN_IN_ROW} more" if len(names) > _SHOWN_IN_ROW else ""
    return f"{', '.join(names[:_SHOWN_IN_ROW])}{more} {said} {against}"


def _trends(runs: Sequence[Report]) -> Iterator[Html]:
    """For each data set that was run more than once, as only the same questions compare. Oldest first."""
    groups: dict[str, list[Report]] = {}
    for run in runs:
        groups.setdefault(run.dataset.fingerprint, []).append(run)
    for group in groups.values():
        if len(group) > 1:
            yield _trend(group[0].dataset, group)


def _trend(dataset: DatasetRef, runs: Sequence[Report]) -> Html:
    means = [aggregates(run) for run in runs]
    figures = [
        _figure(name, [mean[name].mean for mean in means if name in mean])
        for name in MAIN
        if any(name in mean for mean in means)
    ]
    title = f"{dataset.name} {dataset.version}, {len(runs)} runs"
    return section(title, tag("div", *figures, class_="plots trends"))


def _figure(name: str, values: Sequence[float]) -> Html:
    note = f"{figure(values[-1])}, before {figure(values[-2])}" if len(values) > 1 else figure(values[-1])
    less = " (less is better)" if about(name).direction == "lower" else ""
    trend = tag("div", sparkline(values), tag("span", note, class_="soft"), class_="trend")
    return tag("figure", tag("figcaption", tag("strong", name), less), trend)
