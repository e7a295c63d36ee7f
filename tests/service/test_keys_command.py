"""`plumbline keys` on a real ledger."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--scope", "write"), True),
        (("--scope", "write", "--group", "hr"), False),
        (("--scope", "admin"), False),
        (("--scope", "read"), False),
    ],
)
async def test_a_key_that_can_add_nothing_is_not_made_without_a_word(
    database_url: str, options: tuple[str, ...], told: bool
) -> None:
    command = [sys.executable, "-m", "app.cli", "keys", "create", "a", "--json", *options]
    environ = {**os.environ, "DATABASE_URL": database_url}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert ("It may add no documents" in done.stderr) is told
