"""Files to hand in: found in folders, by patterns or by name, each with the id it will have."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST_ID = 200
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._:~@-]")
_WILD = re.compile(r"[*?\[]")


class SourcesInvalid(Exception):
    """The paths cannot be handed in; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    id: str

    @property
    def name(self) -> str:
        """The file's name, with U+FFFD for each byte of it that is not UTF-8."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Found:
    """What to hand in. `left_out` counts files by their endings, where nothing reads these; `passed_over` are
    pipes, devices, links to nothing: what a folder holds beside files."""

    sources: list[Source]
    left_out: Counter[str]
    passed_over: list[str]


def document_id(relative: str) -> str:
    """The id of a file by its path below the folder that was named, as the service makes it: `/` becomes `:`,
    and what is long, or loses letters, gets a mark that keeps it apart."""
    path = unicodedata.normalize("NFC", relative.replace(os.sep, "/"))
    name = _FORBIDDEN.sub("-", path.replace("/", ":"))
    if len(name) <= LONGEST_ID and path.isascii():
        return name
    return f"{name[: LONGEST_ID - 17]}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def find(paths: Sequence[str], extensions: Collection[str]) -> Found:
    """The files under these folders and patterns that have one of the extensions, and those named
    themselves, whatever they are. Hidden ones are not looked at."""
    found: dict[str, Path] = {}
    left_out, passed_over = Counter[str](), list[str]()
    for path, relative, named in _files(paths):
        if not named and path.suffix.lower() not in extensions:
            left_out[path.suffix.lower()] += 1
            continue
        if not (named or path.is_file()):
            passed_over.append(str(path))
            continue
        key = document_id(relative)
        other = found.setdefault(key, path)
        if not other.samefile(path):
            raise SourcesInvalid(
                f"{other} and {path} would both become document {key}. Name a folder that holds both."
            )
    return Found([Source(path, key) for key, path in sorted(found.items())], left_out, passed_over)


def _files(paths: Sequence[str]) -> Iterator[tuple[Path, str, bool]]:
    """Each file, its path below what was named, and whether it was named itself."""
    for given in paths:
        path = Path(given)
        if not given:
            raise SourcesInvalid("An empty path names no file: it would be the folder that this runs in.")
        if path.is_dir():
            for file in _below(path):
                yield file, str(file.relative_to(path)), False
        elif path.exists():
            yield path, path.name, True
        elif _WILD.search(given):
            yield from _matching(given)
        else:
            raise SourcesInvalid(f"There is no file or folder {given}.")


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(here, name)


def _matching(pattern: str) -> Iterator[tuple[Path, str, bool]]:
    """Files that match, relative to the part of the pattern that is plain."""
    parts = Path(pattern).parts
    plain = next((n for n, part in enumerate(parts) if _WILD.search(part)), len(parts))
    base = Path(*parts[:plain])
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob refuses absolute ones)
        if not Path(match).is_dir():
            yield Path(match), str(Path(match).relative_to(base)), False
