"""A real vLLM on the CPU, serving a tiny model that the run makes itself. Each takes 3 GB."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.child import LAUNCHER
from app.embedded import free_port
from app.modelserver import BESIDE_US
from llm.serving import ServingSpec

ROOT = Path(__file__).resolve().parents[1]
MODEL = "tiny"
CONTEXT = 4096
START = 420.0
JSON_OUTPUT = ("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}')


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServer:
    """`url` ends in /v1. `metric` reads one of vLLM's own metrics, summed over its labels."""

    url: str
    model: str
    process: subprocess.Popen[bytes]

    def metric(self, name: str) -> float:
        return metric(self.url, name)

    def kill(self) -> None:
        """End the server and its engine at once, as a crash of the machine would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def metric(url: str, name: str) -> float:
    """One of the metrics of the vLLM at `url` (ends in /v1), summed over its labels."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}\n]*}})? (\S+)$", text, re.MULTILINE))


def make_model(python: Path, folder: Path) -> None:
    """A tiny Llama of random weights, its tokenizer trained on this project's own text."""
    texts = [str(path) for part in ("app", "llm") for path in sorted((ROOT / part).rglob("*.py"))]
    subprocess.run([python, ROOT / "deploy" / "vllm" / "tiny_model.py", folder, *texts], check=True)


@contextmanager
def serving(
    python: Path, model: Path, folder: Path, *, eager: bool = False, name: str = MODEL
) -> Iterator[VllmServer]:
    """Ready when the block begins (after about 90 s); its log is in `folder`."""
    port, log = free_port(), folder / "server.log"
    spec = ServingSpec(
        model=str(model),
        served_name=name,
        dtype="bfloat16",
        max_model_len=CONTEXT,
        max_num_seqs=32,
        eager=eager,
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGTERM))),
                *("-", str(BESIDE_US), *spec.command(str(python), "127.0.0.1", port, gpu=False)),
                *JSON_OUTPUT,
            ],
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=environment(python),
            # A group of its own: the server starts an engine process that must end with it.
            start_new_session=True,
        )
    server = VllmServer(url=f"http://127.0.0.1:{port}/v1", model=name, process=process)
    try:
        _wait(server, log)
        yield server
    finally:
        server.kill()


def environment(python: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _wait(server: VllmServer, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise RuntimeError(f"vLLM ended with {server.process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"{server.url}/models", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"vLLM was not ready in {START} s:\n{log.read_text()[-4000:]}")
