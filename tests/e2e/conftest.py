"""A real vLLM on the CPU, serving a tiny model that the run makes itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.embedded import free_port

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tiny"
CONTEXT = 4096
START = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServer:
    """`url` ends in /v1. `metric` reads one of vLLM's own gauges, summed over its labels."""

    url: str
    model: str
    process: subprocess.Popen[bytes]

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def kill(self) -> None:
        """End the server and its engine at once, as a crash of the machine would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of the vLLM environment; without one the tests that need it are skipped, but not in CI."""
    path = Path(os.environ.get("PLUMBLINE_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not path.exists():
        missing = f"no vLLM environment at {path}; make one with deploy/vllm/build_cpu_env.py"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def tiny_model(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-model")
    texts = [str(path) for folder in ("app", "llm") for path in sorted((ROOT / folder).rglob("*.py"))]
    subprocess.run([vllm_python, ROOT / "deploy" / "vllm" / "tiny_model.py", folder, *texts], check=True)
    return folder


@pytest.fixture(scope="session")
def vllm_server(
    vllm_python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Up for the whole run (it takes about 90 s to start). Tests that kill it must be the last."""
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(vllm_python, tiny_model, port),
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=_environment(vllm_python),
            # A group of its own: the server starts an engine process that must end with it.
            start_new_session=True,
        )
    server = VllmServer(url=f"http://127.0.0.1:{port}/v1", model=MODEL, process=process)
    try:
        _wait(server, log)
        yield server
    finally:
        server.kill()


def _command(python: Path, model: Path, port: int) -> list[str]:
    return [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "32", "--enforce-eager"),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    ]


def _environment(python: Path) -> dict[str, str]:
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
