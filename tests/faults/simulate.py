"""Plays schedules of clients, workers, crashes and lost messages against the product's own code, and judges
each.

    python -m tests.faults.simulate --schedules 100000 --seed 1 [--processes 2] [--json]
    python -m tests.faults.simulate --only 4711     # one again, with its history

Schedule n has seed + n for its seed: a run is split or repeated at will.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing as mp
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.history import Flaw
from tests.faults.schedule import run
from tests.faults.server import database, opened, postgres, same_everywhere

SHARE = 50
"""Schedules of which a process tells at once."""
TOLD = 30.0
SHOWN = 20


@dataclass(slots=True)
class Tally:
    schedules: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    flaws: list[tuple[int, Flaw]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.seen.update(other.seen)
        self.flaws += other.flaws

    def report(self, seconds: float) -> dict[str, Any]:
        return {
            "schedules": self.schedules,
            "seconds": round(seconds, 1),
            "flawed": len({seed for seed, _ in self.flaws}),
            "flaws": [
                {"seed": seed, "rule": flaw.rule, "document": flaw.document, "told": flaw.told}
                for seed, flaw in self.flaws[:SHOWN]
            ],
            "seen": dict(sorted(self.seen.items())),
        }


def play(url: str, name: str, seeds: range, told: Any) -> None:
    """Play these in a database of their own and tell of them in shares, then None."""
    logging.disable(logging.CRITICAL)  # Of what is meant to happen.
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        with opened(url, name) as where:
            for start in range(0, len(seeds), SHARE):
                share = Tally()
                for seed in seeds[start : start + SHARE]:
                    outcome = run(where, seed)
                    share.schedules += 1
                    share.seen.update(outcome.seen)
                    share.flaws += [(seed, flaw) for flaw in outcome.flaws]
                told.put(share)
    finally:
        told.put(None)


def played(url: str, schedules: int, seed: int, processes: int) -> Iterator[Tally]:
    """The tally after every share, by so many processes side by side."""
    context = mp.get_context("spawn")
    told = context.Queue()
    seeds = range(seed, seed + schedules)
    workers = [
        context.Process(target=play, args=(url, f"simulated_{n}", seeds[n::processes], told), daemon=True)
        for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    whole, at_work = Tally(), processes
    while at_work:
        share = told.get()
        if share is None:
            at_work -= 1
        else:
            whole.add(share)
            yield whole
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the simulation failed; what it said is above")


def _all(schedules: int, seed: int, processes: int) -> tuple[Tally, float]:
    begin = told = time.monotonic()
    tally = Tally()
    with postgres() as url:
        shown = 0
        for tally in played(url, schedules, seed, processes):
            now = time.monotonic()
            for flawed, flaw in tally.flaws[shown:]:
                print(f"seed {flawed}: {flaw.rule}: {flaw.document} {flaw.told}", flush=True)
            shown = len(tally.flaws)
            if now - told >= TOLD:
                told = now
                rate = tally.schedules / (now - begin)
                left = (schedules - tally.schedules) / rate
                print(
                    f"{tally.schedules} of {schedules} schedules, {rate:.1f}/s, {left / 60:.0f} min left, "
                    f"{len(tally.flaws)} flaws",
                    flush=True,
                )
    return tally, time.monotonic() - begin


def _one(seed: int) -> bool:
    with database() as where:
        outcome = run(where, seed)
    for event in outcome.history.events:
        print(event)
    for flaw in outcome.flaws:
        print(f"{flaw.rule}: {flaw.document} {flaw.told}")
    return not outcome.flaws


def _say(report: dict[str, Any]) -> None:
    for name, times in report["seen"].items():
        print(f"{times:>10}  {name}")
    for flaw in report["flaws"]:
        print(f"seed {flaw['seed']}: {flaw['rule']}: {flaw['document']} {flaw['told']}")
    rate = report["schedules"] / report["seconds"]
    print(
        f"{report['schedules']} schedules in {report['seconds']:.0f} s ({rate:.1f}/s): "
        f"{report['flawed']} with a flaw"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--schedules", type=int, default=1_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--only", type=int, default=None, metavar="SEED", help="play one and show it")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    same_everywhere()
    if options.only is not None:
        raise SystemExit(0 if _one(options.only) else 1)
    tally, seconds = _all(options.schedules, options.seed, options.processes)
    report = tally.report(seconds)
    print(json.dumps(report, indent=2)) if options.json else _say(report)
    raise SystemExit(1 if tally.flaws else 0)


if __name__ == "__main__":
    main()
