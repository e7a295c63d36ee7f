"""Any process of a whole instance is killed at random moments while several clients write and search: the
short form of `python -m tests.faults.run`."""

from __future__ import annotations

from pathlib import Path

from tests import live
from tests.faults import run

KILLS = 6


async def test_an_instance_whose_processes_are_killed_keeps_every_promise(parts_folder: Path) -> None:
    folder = parts_folder / "faults"
    folder.mkdir(mode=0o711)
    with live.instance(folder, "--no-sample", environment=run.environment()) as one:
        result = await run.play(one, KILLS, seed=3, minutes=5, pause=4.0)
    assert result.flaws == []
    assert result.killed.total() == KILLS
    assert result.told["put acknowledged"] > 0
