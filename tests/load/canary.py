"""Two real vLLMs, and a canary from the one to the other that goes wrong while people ask.

    python -m tests.load.canary --vllm .venv-vllm/bin/python           (starts two on the CPU)
    python -m tests.load.canary --servers http://127.0.0.1:8001/v1 http://127.0.0.1:8002/v1

A whole instance with the sample corpus. Release A names the model `tiny-a`, release B `tiny-b`, whose
server is behind a proxy. B is shadowed, then a canary; then its server answers three times as late, and a
fifth of its requests with 500, until the controller has rolled B back. At last a release C is shadowed on the
same faulty server. What must be: the last request for B at most a second after the decision, and no broken
stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests import live, trials
from tests.live import Instance
from tests.load.faulty import NONE, Fault, Proxy, proxy
from tests.rollback import Measured, roll_back
from tests.traffic import Seen, Traffic
from tests.trials import Desk
from tests.vllm_server import make_model, serving

A, B = "tiny-a", "tiny-b"
STEPS = ((0.25, 4), (0.5, 10_000))
SAMPLING = {"max_tokens": 64, "temperature": 1.0}
"""A model of random weights says the same over and over unless its words are drawn."""
WARM_UP = 15.0
"""Seconds of a canary in which it is learnt how long answers take here."""
PAIRS = 15
IN_SHADOW = Fault(slow=3.0, errors=0.6)
"""More errors than in the canary, so that it is over soon."""
LAST, RATE = 1.0, 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """`counted` pairs of all `pairs`; `visible` are answers that anybody was given by the release."""

    state: str
    why: str
    seconds: float
    pairs: int
    counted: int
    visible: int
    failed: int


async def run(one: Instance, faulty: Proxy, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    async with trials.desk(one) as desk:
        first, second, third = [
            await desk.add(trials.release(name, model, "extractive", **SAMPLING))
            for name, model in (("a", A), ("b", B), ("c", B))
        ]
        await desk.promote(first)
        traffic = Traffic(one.url, options.rate, name="s")
        console.print(f"release {first} serves by {A}; shadow of {second} by {B}")
        sound = await _shadow(desk, traffic, second, PAIRS, options.seconds)
        console.print(f"{sound}\ncanary of {second}")
        traffic = Traffic(one.url, options.rate, name="c", first=1_000_000)
        rolled = await roll_back(desk, traffic, faulty, second, STEPS, patience=options.seconds)
        console.print(f"{rolled}\nshadow of {third} on the faulty server")
        faulty.fault = IN_SHADOW
        traffic = Traffic(one.url, options.rate, name="f", first=2_000_000)
        failed = await _shadow(desk, traffic, third, 10_000, options.seconds)
        faulty.fault = NONE
    return {
        "bench": "canary",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rate": options.rate,
        "shadow": asdict(sound),
        "canary": asdict(rolled),
        "faulty_shadow": asdict(failed),
        "met": _met(rolled, sound, failed),
    }


async def _shadow(desk: Desk, traffic: Traffic, release: str, pairs: int, patience: float) -> Shadowed:
    """Until it has ended."""
    begin = time.monotonic()
    async with traffic.flowing():
        await desk.start("shadow", release, pairs=pairs)
        ended = await desk.until(
            release, lambda told: told["state"] != "running", patience, what="at its end"
        )
        seconds = time.monotonic() - begin
    rows = await desk.rows("SELECT counted FROM pairs WHERE trial = :id", id=ended["id"])
    return Shadowed(
        state=ended["state"],
        why=ended["decision"]["why"],
        seconds=round(seconds, 1),
        pairs=len(rows),
        counted=sum(row.counted for row in rows),
        visible=sum(one.release == release for one in traffic.seen),
        failed=sum(_failed(one) for one in traffic.seen),
    )


def _failed(one: Seen) -> bool:
    return one.status != 200 or one.ended != "whole"


def _met(rolled: Measured, sound: Shadowed, failed: Shadowed) -> dict[str, bool]:
    return {
        "last_sent": max(rolled.last_question, rolled.last_search) <= LAST,
        "last_begun": rolled.last_begun <= LAST,
        "no_stream_broken": rolled.streams_broken == 0,
        "no_request_failed": len(rolled.failed) == sound.failed == failed.failed == 0,
        "shadow_passed": (sound.state, sound.visible) == ("passed", 0),
        "faulty_shadow_failed": (failed.state, failed.visible) == ("failed", 0),
    }


@contextmanager
def _servers(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """The base URLs of both, which end in /v1."""
    if options.servers:
        yield tuple(options.servers)
        return
    python = options.vllm.absolute()  # Not resolved: a link to the interpreter is its environment.
    make_model(python, folder / "model")
    with ExitStack() as stack:
        urls = []
        for name in (A, B):
            (folder / name).mkdir()
            server = serving(python, folder / "model", folder / name, eager=True, name=name)
            urls.append(stack.enter_context(server).url)
        yield urls[0], urls[1]


async def _whole(options: argparse.Namespace, folder: Path, urls: tuple[str, str], console: Console) -> Any:
    rules = trials.write_rules(folder, **{**trials.PROMPT, "warm_up_seconds": WARM_UP})
    async with proxy(urls[1].removesuffix("/v1")) as faulty:
        environment = {
            "PLUMBLINE_RULES": str(rules),
            "PLUMBLINE_MODEL_URL": f"{A}={urls[0]},{B}={faulty.url}/v1",
        }
        with live.instance(folder, environment=environment) as one:
            return await run(one, faulty, options, console)


def main() -> None:
    parser = argparse.ArgumentParser(description="A canary that goes wrong, on two real vLLMs.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--vllm", type=Path, help="Python of an environment with vLLM.")
    where.add_argument("--servers", nargs=2, help=f"Two that run, of {A} and {B}; each URL ends in /v1.")
    parser.add_argument("--seconds", type=float, default=240.0, help="The longest that a part may take.")
    parser.add_argument("--rate", type=float, default=RATE, help="Questions a second.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="plumbline-canary-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL's account must reach it.
        with _servers(options, folder) as urls:
            told = asyncio.run(_whole(options, folder, urls, console))
    _show(told, as_json=options.json)
    raise SystemExit(not all(told["met"].values()))


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, indent=2))
        return
    table = Table(title="a canary that goes wrong", show_header=False)
    for key, value in told.items():
        for name, figure in value.items() if isinstance(value, dict) else [("", value)]:
            table.add_row(key, name, str(figure))
    Console().print(table)


if __name__ == "__main__":
    main()
