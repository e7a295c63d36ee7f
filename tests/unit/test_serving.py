"""The command that starts vLLM for a model of a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.release import ReleaseInvalid, load_release
from llm.serving import ServingSpec

RELEASE = Path(__file__).resolve().parents[2] / "deploy" / "releases" / "vllm.toml"


def words(spec: ServingSpec, *, gpu: bool = True) -> str:
    return " ".join(spec.command("python", "127.0.0.1", 8000, gpu=gpu))


def test_the_shipped_release_is_served_with_prefix_caching_chunks_and_priorities() -> None:
    said = words(load_release(RELEASE).body.models[0].spec())
    assert "--model Qwen/Qwen3-8B --served-model-name Qwen/Qwen3-8B" in said
    assert "--enable-prefix-caching --enable-chunked-prefill --scheduling-policy priority" in said
    assert "--max-model-len 16384 --max-num-seqs 128" in said


def test_what_a_release_leaves_out_is_left_to_vllm() -> None:
    said = words(ServingSpec(model="a/b"))
    for name in ("--revision", "--max-model-len", "--quantization", "--tensor-parallel-size", "--max-num"):
        assert name not in said


def test_everything_that_a_release_can_say_is_in_the_command() -> None:
    spec = ServingSpec(
        model="/models/m",
        served_name="m",
        revision="abc",
        dtype="float16",
        quantization="fp8",
        max_model_len=8192,
        max_num_seqs=64,
        max_num_batched_tokens=4096,
        prefix_caching=False,
        chunked_prefill=True,
        scheduling="fcfs",
        tensor_parallel=2,
        memory_share=0.5,
        eager=True,
        reasoning_parser="qwen3",
    )
    said = words(spec)
    for option in (
        "--model /models/m --served-model-name m",
        "--revision abc --quantization fp8 --max-model-len 8192",
        "--max-num-seqs 64 --max-num-batched-tokens 4096 --no-enable-prefix-caching",
        "--scheduling-policy fcfs --tensor-parallel-size 2 --gpu-memory-utilization 0.5",
        "--reasoning-parser qwen3 --enforce-eager",
    ):
        assert option in said


def test_without_a_gpu_its_memory_is_not_shared_out() -> None:
    assert "--gpu-memory-utilization" not in words(ServingSpec(model="m"), gpu=False)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"model": "--trust-remote-code"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "revision": "-x"}, "revision"),
        ({"model": "m", "memory_share": 0.0}, "memory_share"),
        ({"model": "m", "tensor_parallel": 0}, "tensor_parallel"),
        ({"model": "m", "quantization": "fp8; rm"}, "quantization"),
        ({"model": "m", "reasoning_parser": "--help"}, "reasoning_parser"),
        ({"model": "m", "max_num_seqs": 64, "max_num_batched_tokens": 32}, "max_num_batched_tokens"),
        (
            {"model": "m", "chunked_prefill": False, "max_model_len": 4096, "max_num_batched_tokens": 2048},
            "chunked_prefill",
        ),
    ],
)
def test_what_vllm_would_refuse_is_refused_before_it_is_started(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ServingSpec(**given)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ('[[models]]\nname = "-m"\n', "dash"),
        ('[[models]]\nname = "m"\n[models.serving]\ndtype = "int3"\n', "dtype"),
        ('[[models]]\nname = "m"\n[models.serving]\ntrust = true\n', "trust"),
        ('[[models]]\nname = "extractive"\n[models.serving]\ndtype = "auto"\n', "built in"),
    ],
)
def test_a_release_that_cannot_be_served_says_which_key(tmp_path: Path, models: str, said: str) -> None:
    file = tmp_path / "release.toml"
    file.write_text(f'name = "r"\n{models}')
    with pytest.raises(ReleaseInvalid, match=said):
        load_release(file)


def test_a_model_in_a_folder_is_served_by_the_name_that_the_release_knows(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    file.write_text('name = "r"\n[[models]]\nname = "tiny"\nrevision = "abc"\n')
    said = words(load_release(file).body.models[0].spec("/models/tiny-1"))
    assert "--model /models/tiny-1 --served-model-name tiny" in said
    assert "--revision" not in said
