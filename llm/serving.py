"""The command line that starts vLLM for a model, from what a release says of it.

Kept apart from whoever runs it: `plumbline up --model`, a container, a unit file, a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Policy = Literal["priority", "fcfs"]
MODULE = "vllm.entrypoints.openai.api_server"
"""Not the `vllm` command: the CPU build installs one that does not start."""
_PARSER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
_QUANTIZATION = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSpec:
    """How a model is served; None leaves a value to vLLM. `memory_share` is of the GPU's memory.

    Raises `ValueError` for what vLLM would refuse only after minutes of loading.
    """

    model: str
    revision: str | None = None
    served_name: str | None = None
    dtype: Dtype = "auto"
    quantization: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    prefix_caching: bool = True
    chunked_prefill: bool = True
    scheduling: Policy = "priority"
    tensor_parallel: int = 1
    memory_share: float = 0.9
    eager: bool = False
    reasoning_parser: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("model", "revision", "served_name"):
            value = getattr(self, name)
            if value is not None and (not value or value.startswith("-")):
                raise ValueError(f"{name} must be a name and not begin with a dash")
        if not 0 < self.memory_share <= 1:
            raise ValueError("memory_share must be more than 0 and at most 1")
        if self.quantization is not None and not _QUANTIZATION.fullmatch(self.quantization):
            raise ValueError("quantization must be a method that vLLM knows, such as fp8 or awq")
        if self.reasoning_parser is not None and not _PARSER.fullmatch(self.reasoning_parser):
            raise ValueError("reasoning_parser must be one that vLLM knows, such as qwen3 or deepseek_r1")
        self._require_batch()

    def _require_batch(self) -> None:
        batch = self.max_num_batched_tokens
        if batch is None:
            return
        if not self.chunked_prefill and batch < (self.max_model_len or 0):
            raise ValueError("without chunked_prefill, max_num_batched_tokens must be at least max_model_len")
        if batch < (self.max_num_seqs or 0):
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")

    def command(self, python: str, host: str, port: int, *, gpu: bool = True) -> tuple[str, ...]:
        """The command, to be run without a shell. Without a `gpu` what only one has is left out."""
        return (
            *(python, "-m", MODULE, "--model", self.model),
            *("--served-model-name", self.served_name or self.model),
            *("--host", host, "--port", str(port), "--dtype", self.dtype),
            *_option("--revision", self.revision),
            *_option("--quantization", self.quantization),
            *_option("--max-model-len", self.max_model_len),
            *_option("--max-num-seqs", self.max_num_seqs),
            *_option("--max-num-batched-tokens", self.max_num_batched_tokens),
            *_switch("--{}enable-prefix-caching", self.prefix_caching),
            *_switch("--{}enable-chunked-prefill", self.chunked_prefill),
            *("--scheduling-policy", self.scheduling),
            *_option("--tensor-parallel-size", self.tensor_parallel if self.tensor_parallel > 1 else None),
            *_option("--gpu-memory-utilization", self.memory_share if gpu else None),
            *_option("--reasoning-parser", self.reasoning_parser),
            *(("--enforce-eager",) if self.eager else ()),
            # A line for each request helps nobody: the service logs its own.
            "--disable-uvicorn-access-log",
        )


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))


def _switch(pattern: str, on: bool) -> tuple[str, ...]:
    return (pattern.format("" if on else "no-"),)
