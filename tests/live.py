"""A whole instance for a test: `plumbline up` as its users run it, on a free port and a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.embedded import free_port

READY = 240.0
"""Seconds. One that ends instead is told at once: this is for a machine that is busy with other tests."""
ENDED = 60.0


@dataclass(frozen=True, slots=True)
class Instance:
    url: str
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    def part(self, *words: str) -> psutil.Process:
        """The running child process whose command line holds all these words."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            if all(any(word in piece for piece in line) for word in words):
                return child
        raise LookupError(f"no child of the instance runs {words}")


@contextmanager
def instance(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, status: str = "ready"
) -> Iterator[Instance]:
    """Up, and of this status, when the block begins; stopped, with nothing left running, when it ends."""
    port, log = free_port(), folder / "up.log"
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port), *options]
    command += ["--data", str(folder / "data")]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    found = Instance(f"http://127.0.0.1:{port}", folder / "data", process, log)
    try:
        wait_ready(found, READY, status)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(ENDED)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_ready(one: Instance, seconds: float, status: str = "ready") -> None:
    """Wait until the instance says that it is up, its first run over, and has this status."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if one.process.poll() is not None:
            break
        if "is ready at" in one.log.read_text(errors="replace") and _status(one) == status:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the instance is not ready:\n{one.log.read_text(errors='replace')[-3000:]}")


def wait_said(one: Instance, words: str, seconds: float) -> None:
    """Wait until the instance's log holds these words."""
    deadline = time.monotonic() + seconds
    while words not in one.log.read_text(errors="replace"):
        if time.monotonic() > deadline or one.process.poll() is not None:
            raise RuntimeError(f"never said {words!r}:\n{one.log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def add(one: Instance, *documents: dict[str, str]) -> None:
    """Hand documents in and wait until they can be found."""
    with httpx.Client(base_url=one.url, timeout=60) as client:
        reply = client.post("/v1/documents", json={"documents": documents}).raise_for_status()
        for job in reply.json()["jobs"]:
            while (state := client.get(f"/v1/jobs/{job['id']}").json()["status"]) in ("queued", "running"):
                time.sleep(0.1)
            if state != "succeeded":
                raise RuntimeError(f"{job['document_id']} ended as {state}")


def _status(one: Instance) -> str:
    try:
        return str(httpx.get(f"{one.url}/health/ready", timeout=5).json()["status"])
    except (httpx.TransportError, ValueError):
        return "away"
