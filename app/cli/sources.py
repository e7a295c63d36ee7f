"""Files to hand in: found in folders, by patterns or by name, each with the id it will have."""

from __future__ import annotations

import glob
import hashlib
import os
import re
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


def document_id(relative: str) -> str:
    """The id of a file by its path below the folder that was named: `/` becomes `:`."""
    name = _FORBIDDEN.sub("-", relative.replace(os.sep, ":"))
    if len(name) <= LONGEST_ID:
        return name
    return f"{name[: LONGEST_ID - 17]}-{hashlib.sha256(relative.encode()).hexdigest()[:16]}"


def find(paths: Sequence[str], extensions: Collection[str]) -> tuple[list[Source], int]:
    """The files under these folders and patterns that have one of the extensions, and those named
    themselves, whatever they are; and how many others were left out. Hidden ones are not looked at."""
    found: dict[str, Path] = {}
    left_out = 0
    for path, relative, named in _files(paths):
        if not named and path.suffix.lower() not in extensions:
            left_out += 1
            continue
        key = document_id(relative)
        other = found.setdefault(key, path)
        if not other.exists() or not other.samefile(path):
            raise SourcesInvalid(
                f"{other} and {path} would both become document {key}. Name a folder that holds both."
            )
    return [Source(path, key) for key, path in sorted(found.items())], left_out


def _files(paths: Sequence[str]) -> Iterator[tuple[Path, str, bool]]:
    """Each file, its path below what was named, and whether it was named itself."""
    for given in paths:
        path = Path(given)
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
        if Path(match).is_file():
            yield Path(match), str(Path(match).relative_to(base)), False
