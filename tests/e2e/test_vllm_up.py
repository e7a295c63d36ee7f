"""`plumbline up --model`: an instance that serves its own model, with a real vLLM on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import live
from tests.live import Instance

# Starting vLLM takes minutes on a busy machine.
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]
LOADED = 600.0
LEAVE = {
    "id": "leave",
    "title": "Paid leave",
    "text": "Every employee has 28 days of paid leave a year. Leave is asked for in the portal.",
}


@pytest.fixture(scope="module")
def loading(tiny_model: Path, vllm_python: Path, parts_folder: Path) -> Iterator[Instance]:
    """An instance that is up while its model still loads."""
    folder = parts_folder / "model"
    folder.mkdir(mode=0o711)
    release = folder / "release.toml"
    release.write_text(
        f'name = "served"\n[[models]]\nname = "{tiny_model.name}"\n'
        '[models.serving]\ndtype = "bfloat16"\nmax_model_len = 4096\nmax_num_seqs = 8\neager = true\n'
        '[[models]]\nname = "extractive"\n[sampling]\nmax_tokens = 16\n'
    )
    environment = {"PLUMBLINE_VLLM_PYTHON": str(vllm_python), "PLUMBLINE_RELEASE": str(release)}
    options = ("--no-sample", "--model", str(tiny_model))
    with live.instance(folder, *options, environment=environment, status="degraded") as one:
        live.add(one, LEAVE)
        yield one


def ask(one: Instance) -> dict[str, Any]:
    body = {
        "model": "plumbline",
        "messages": [{"role": "user", "content": "How many days of paid leave does an employee have?"}],
        "plumbline": {"cache": False},
    }
    reply = httpx.post(f"{one.url}/v1/chat/completions", json=body, timeout=120)
    told: dict[str, Any] = reply.raise_for_status().json()
    return told


def test_questions_are_answered_while_the_model_loads_and_by_the_model_when_it_has(
    loading: Instance, tiny_model: Path
) -> None:
    early = ask(loading)
    assert "28 days" in early["choices"][0]["message"]["content"]
    assert "model:extractive" in early["plumbline"]["degraded"]

    live.wait_ready(loading, LOADED)
    late = ask(loading)
    assert late["plumbline"]["model"] == tiny_model.name
    assert "model:extractive" not in late["plumbline"]["degraded"]
    assert late["usage"]["completion_tokens"] == 16


def test_a_model_that_was_killed_comes_back_and_answers_go_on_meanwhile(
    loading: Instance, tiny_model: Path
) -> None:
    live.wait_ready(loading, LOADED)
    loading.part("vllm.entrypoints").kill()
    assert "28 days" in ask(loading)["choices"][0]["message"]["content"]
    live.wait_said(loading, "model is back", LOADED)
    live.wait_ready(loading, LOADED)
    assert ask(loading)["plumbline"]["model"] == tiny_model.name


def test_zz_nothing_of_the_model_is_left_when_the_instance_stops(loading: Instance) -> None:
    """Last: it stops the instance."""
    model = loading.part("vllm.entrypoints")
    family = [model, *model.children(recursive=True)]
    loading.process.terminate()
    loading.process.wait(90)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
