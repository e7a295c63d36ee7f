"""Files that commands write what they found to: the forms of it beside each other, each with its suffix.

A place that takes no file is told before the work begins: else minutes of it would be lost at its end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from eval.types import CannotWrite

SUFFIXES = frozenset({".json", ".md", ".html", ".xml"})


def write_beside(out: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write each text to `out` with its suffix in place of one of ours. Raises `CannotWrite`."""
    stem = out.with_suffix("") if out.suffix in SUFFIXES else out
    paths = []
    for suffix, text in texts.items():
        path = stem.with_name(stem.name + suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _cannot(path, error) from None
        paths.append(path)
    return paths


def require_folder(folder: Path) -> None:
    """Make the folder if it is not there. Raises `CannotWrite` unless a file can be put into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot(folder, error) from None


def _cannot(path: Path, error: OSError) -> CannotWrite:
    return CannotWrite(f"Cannot write to {path}: {error.strerror}.")
