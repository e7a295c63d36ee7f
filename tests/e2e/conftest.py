"""A real vLLM on the CPU for the whole run, where its environment is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm_server import ROOT, VllmServer, make_model, serving


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
    make_model(vllm_python, folder)
    return folder


@pytest.fixture(scope="session")
def vllm_server(
    vllm_python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Up for the whole run (it takes about 90 s to start), but for the tests of the judge, the last:
    they kill it."""
    with serving(vllm_python, tiny_model, tmp_path_factory.mktemp("vllm"), eager=True) as server:
        yield server
