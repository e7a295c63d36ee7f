"""What clients did and saw, and whether a service that keeps its promises could have answered so.

A write's outcome is unknown where no answer came: it may have happened at any moment after it was asked for,
or never. Writes of one document are ordered by the version numbers that were acknowledged, and where there is
none by time: one that was acknowledged before another was asked for came first. Every put has a text of its
own, so that what is shown names the write it came from; putting again under the same idempotency key is
the same write. Times are seconds of one clock.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Rule = Literal[
    "lost write",
    "two revisions",
    "partly visible",
    "deleted text",
    "vanished",
    "older version",
    "retried twice",
    "left behind",
    "never finished",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A put of `content`, or a deletion where that is None. `ended` is when it was acknowledged, None where
    it never was."""

    document: str
    content: str | None
    began: float
    ended: float | None
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one search showed of one document: the parts of each text, by number, and their revisions."""

    revisions: frozenset[int]
    parts: Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A search over `documents`. `whole` is False where the answer said that something may be missing;
    `settled` says that all work was over."""

    documents: frozenset[str]
    shown: Mapping[str, Shown]
    began: float
    ended: float
    whole: bool = True
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What the service said a document's newest version is, None for none."""

    document: str
    version: int | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The job of a version was seen to have succeeded."""

    document: str
    version: int
    seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A version that the ledger held at the end; `content` None is a deletion."""

    document: str
    version: int
    content: str | None


Event = Write | Look | Read | Finished | Accepted


@dataclass(frozen=True, slots=True)
class Flaw:
    rule: Rule
    document: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """`sizes` gives the number of parts of each text. `audited` says that `Accepted` names every version."""

    events: Sequence[Event]
    sizes: Mapping[str, int]
    audited: bool = False


def judge(history: History) -> list[Flaw]:
    """Every promise that this history breaks; none if it may have been kept."""
    documents: defaultdict[str, _Document] = defaultdict(lambda: _Document(history.sizes))
    for event in history.events:
        for name in event.documents if isinstance(event, Look) else (event.document,):
            documents[name].add(event)
    flaws = [flaw for name in sorted(documents) for flaw in documents[name].flaws(name, history.audited)]
    return list(dict.fromkeys(flaws))


@dataclass(slots=True)
class _Point:
    """One write, as far as its retries and the ledger tell: not before `began`, surely by `by`, None where
    it may never have happened."""

    content: str | None
    began: float
    by: float | None
    version: int | None

    def before(self, other: _Point) -> bool:
        """Whether it surely came first."""
        if self.version is not None and other.version is not None:
            return self.version < other.version
        return self.by is not None and self.by < other.began


@dataclass(slots=True)
class _Document:
    """All that happened to one document."""

    sizes: Mapping[str, int]
    writes: list[Write] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)

    def add(self, event: Event) -> None:
        match event:
            case Write():
                self.writes.append(event)
            case Look():
                self.looks.append(event)
            case Read():
                self.reads.append(event)
            case Finished():
                self.finished.append(event)
            case Accepted():
                self.accepted.append(event)

    def flaws(self, name: str, audited: bool) -> Iterator[Flaw]:
        puts, deletes = self._puts(audited), self._deletes()
        judged = _Judged(name, self.sizes, puts, deletes)
        yield from self._doubled(name)
        yield from _disordered(name, self.writes)
        if audited:
            yield from self._forgotten(name)
        seen = self._seen(puts)
        for look in self.looks:
            yield from judged.look(look, seen)
        for read in self.reads:
            yield from judged.read(read)

    def _puts(self, audited: bool) -> dict[str, _Point]:
        """Each text's write; with an audit, without those that never happened."""
        versions = {one.content: one.version for one in self.accepted if one.content is not None}
        points: dict[str, _Point] = {}
        for write in self.writes:
            if write.content is None:
                continue
            known = write.version if write.version is not None else versions.get(write.content)
            if audited and known is None:
                continue
            point = points.setdefault(write.content, _Point(write.content, write.began, None, known))
            point.began = min(point.began, write.began)
            point.version = known if point.version is None else point.version
            by = [one for one in (point.by, write.ended, math.inf if audited else None) if one is not None]
            point.by = min(by, default=None)
        return points

    def _deletes(self) -> list[_Point]:
        return [_Point(None, one.began, one.ended, one.version) for one in self.writes if one.content is None]

    def _seen(self, puts: Mapping[str, _Point]) -> dict[str, float]:
        """When each text was surely visible for the first time."""
        seen: dict[str, float] = {}
        texts = {point.version: content for content, point in puts.items() if point.version is not None}
        told = [(texts[one.version], one.seen) for one in self.finished if one.version in texts]
        told += [
            (content, look.ended)
            for look in self.looks
            for shown in look.shown.items()
            for content in shown[1].parts
            if content in puts
        ]
        for content, at in told:
            seen[content] = min(at, seen.get(content, at))
        return seen

    def _doubled(self, name: str) -> Iterator[Flaw]:
        """One key, one version; one version for each text."""
        versions: defaultdict[str, set[int]] = defaultdict(set)
        for write in self.writes:
            if write.content is not None and write.version is not None and write.key is not None:
                versions[write.content].add(write.version)
        keyed = {write.content for write in self.writes if write.key is not None}
        for one in self.accepted:
            if one.content is not None and one.content in keyed:
                versions[one.content].add(one.version)
        for content, numbers in versions.items():
            if len(numbers) > 1:
                yield Flaw("retried twice", name, f"{content} was accepted as versions {sorted(numbers)}")

    def _forgotten(self, name: str) -> Iterator[Flaw]:
        """An acknowledged version that the ledger does not have."""
        held = {(one.version, one.content) for one in self.accepted}
        deletions = sum(one.content is None for one in self.accepted)
        acknowledged = 0
        for write in self.writes:
            if write.ended is None:
                continue
            acknowledged += write.content is None
            if write.version is not None and (write.version, write.content) not in held:
                what = write.content or "a deletion"
                yield Flaw("lost write", name, f"{what}, acknowledged as version {write.version}, is unknown")
        if acknowledged > deletions:
            yield Flaw(
                "lost write", name, f"{acknowledged} deletions were acknowledged, {deletions} are known"
            )


def _disordered(name: str, writes: Sequence[Write]) -> Iterator[Flaw]:
    """A write that was asked for after another's acknowledgement has the higher version."""
    known = [one for one in writes if one.version is not None and one.ended is not None]
    for earlier in known:
        for later in known:
            # A retry under the same key is answered with the version of its first time.
            if earlier.key is not None and earlier.key == later.key:
                continue
            first = min(
                (one.began for one in writes if one.key and one.key == later.key), default=later.began
            )
            if (earlier.ended or 0.0) < first and (earlier.version or 0) > (later.version or 0):
                yield Flaw(
                    "older version", name, f"version {later.version} was accepted after {earlier.version}"
                )


@dataclass(frozen=True, slots=True)
class _Judged:
    name: str
    sizes: Mapping[str, int]
    puts: Mapping[str, _Point]
    deletes: Sequence[_Point]

    def look(self, look: Look, seen: Mapping[str, float]) -> Iterator[Flaw]:
        shown = look.shown.get(self.name)
        contents = sorted(shown.parts) if shown else []
        if shown and (len(contents) > 1 or len(shown.revisions) > 1):
            yield self._flaw("two revisions", f"{contents} in revisions {sorted(shown.revisions)}", look)
        for content in contents:
            yield from self._text(content, look, seen)
            found = shown.parts[content] if shown else frozenset()
            if look.whole and found != frozenset(range(self.sizes[content])):
                told = f"{content}: parts {sorted(found)} of {self.sizes[content]}"
                yield self._flaw("partly visible", told, look)
        if not contents and look.whole:
            yield from self._missing(look, seen)
        if look.settled and look.whole:
            yield from self._settled(contents, seen, look)

    def _text(self, content: str, look: Look, seen: Mapping[str, float]) -> Iterator[Flaw]:
        """Whether this text may still be shown."""
        point = self.puts.get(content)
        if point is None:
            yield self._flaw("lost write", f"{content} is shown and was never accepted", look)
            return
        for one in self.deletes:
            if one.by is not None and one.by < look.began and point.before(one):
                yield self._flaw("deleted text", f"{content} is shown after its deletion", look)
                break
        for other, since in seen.items():
            if since < look.began and other != content and point.before(self.puts[other]):
                yield self._flaw("older version", f"{content} is shown after {other} was visible", look)
                break

    def _missing(self, look: Look, seen: Mapping[str, float]) -> Iterator[Flaw]:
        """What was visible may be missing only because of a deletion that came after it."""
        for content, since in seen.items():
            if since < look.began and not self._deleted(self.puts[content], look.ended):
                yield self._flaw("vanished", f"{content} was visible, and nothing was found", look)
                break

    def _deleted(self, point: _Point, until: float) -> bool:
        return any(one.began < until and not one.before(point) for one in self.deletes)

    def _settled(self, contents: Sequence[str], seen: Mapping[str, float], look: Look) -> Iterator[Flaw]:
        """In the end the last write counts: one that surely came before an acknowledged one is not it."""
        every = [*self.puts.values(), *self.deletes]
        certain = [one for one in every if one.by is not None]
        last = [one for one in every if not any(one.before(other) for other in certain if other is not one)]
        possible = {one.content for one in last} | ({None} if not certain else set())
        shown = contents[0] if contents else None
        if len(contents) > 1 or shown in possible or (shown is not None and shown not in self.puts):
            return
        if shown is not None and possible == {None}:
            yield self._flaw("deleted text", f"{shown} is shown in the end, after its deletion", look)
        elif shown is not None and any(content in possible for content in seen):
            yield self._flaw("older version", f"{shown} is shown in the end, not {_named(possible)}", look)
        else:
            yield self._flaw("lost write", f"{shown} is shown in the end, not {_named(possible)}", look)

    def read(self, read: Read) -> Iterator[Flaw]:
        for content, point in self.puts.items():
            if point.by is None or point.by >= read.began:
                continue
            if read.version is None and not self._deleted(point, read.ended):
                yield self._flaw("lost write", f"{content} was acknowledged, and none is known", read)
            elif read.version is not None and point.version is not None and point.version > read.version:
                told = f"version {read.version} is said to be the newest after {point.version} was accepted"
                yield self._flaw("lost write", told, read)
        if read.version is None:
            return
        for one in self.deletes:
            if one.by is None or one.by >= read.began:
                continue
            holder = next((put for put in self.puts.values() if put.version == read.version), None)
            if holder is not None and holder.before(one):
                yield self._flaw("deleted text", f"version {read.version} is read after its deletion", read)

    def _flaw(self, rule: Rule, told: str, at: Look | Read) -> Flaw:
        return Flaw(rule, self.name, f"{told} (asked {at.began:.3f}, answered {at.ended:.3f})")


def _named(contents: Iterable[str | None]) -> str:
    return " or ".join(sorted(content or "nothing" for content in contents))


# On disk: a line for each event, and first one for what is common to them.

_KINDS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in (Write, Look, Read, Finished, Accepted)}


def write(history: History, path: Path) -> None:
    with path.open("w") as file:
        print(json.dumps({"sizes": dict(history.sizes), "audited": history.audited}), file=file)
        for event in history.events:
            print(json.dumps({"event": type(event).__name__, **asdict(event)}, default=sorted), file=file)


def read(path: Path) -> History:
    with path.open() as file:
        head, *lines = map(json.loads, file)
    return History(events=[_event(line) for line in lines], sizes=head["sizes"], audited=head["audited"])


def _event(line: dict[str, Any]) -> Event:
    kind = _KINDS[line.pop("event")]
    if kind is Look:
        line["documents"] = frozenset(line["documents"])
        line["shown"] = {
            name: Shown(
                revisions=frozenset(one["revisions"]),
                parts={content: frozenset(parts) for content, parts in one["parts"].items()},
            )
            for name, one in line["shown"].items()
        }
    return kind(**line)
