"""A PostgreSQL of its own for simulations, gone afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from app import embedded
from tests.conftest import running
from tests.faults.clock import VirtualLoop
from tests.faults.database import Database

# What a power cut would cost is not what is simulated.
_UNSAFE = ("--fsync=off", "--full_page_writes=off", "--autovacuum=off")


@contextmanager
def postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="plf-"))
    folder.chmod(0o711)
    (folder / "sockets").mkdir(mode=0o700)
    try:
        part = embedded.postgres(folder / "postgres", folder / "sockets")
        with running(replace(part, command=(*part.command, *_UNSAFE)), folder / "postgres.log"):
            yield part.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def opened(postgres_url: str, name: str) -> Iterator[Database]:
    """A new database of this name there, and a loop of its own."""
    loop = VirtualLoop()
    where = Database.create(loop, postgres_url, name)
    try:
        yield where
    finally:
        where.drop()
        loop.close()


@contextmanager
def database() -> Iterator[Database]:
    same_everywhere()
    with postgres() as url, opened(url, "simulated") as where:
        yield where


def same_everywhere() -> None:
    """The order of sets is the same in every run, or a seed would not tell all; and no warnings of what is
    meant to happen."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    logging.disable(logging.CRITICAL)
