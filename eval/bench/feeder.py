"""A worker beside the service under measurement, on the same ledger.

    python -m eval.bench.feeder --port 0 --store memory

With `memory` it writes to a store of its own, so that a measurement sees what its work alone costs questions;
with `served`, to the one that is searched. Prints a line of JSON when it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from app.main import run_process
from app.settings import load_settings
from app.supervisor import signals
from app.wiring import REAL, Replacements, open_worker
from retrieval.stores.memory import MemoryStore


async def main(options: argparse.Namespace) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    replacements = Replacements(store=MemoryStore()) if options.store == "memory" else REAL
    with signals(stop, hurry):
        async with open_worker(load_settings(), replacements) as work:
            print(json.dumps({"key": ""}), flush=True)  # noqa: T201  (the parent waits)
            await work(stop)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A worker beside the service under measurement.")
    parser.add_argument("--port", type=int, help="Unused: every process of a measurement is given one.")
    parser.add_argument("--store", choices=("memory", "served"), default="memory")
    return parser.parse_args()


if __name__ == "__main__":
    run_process(main(_options()), "warning")
