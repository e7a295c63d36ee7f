"""Which vLLM a measurement runs against: one that runs, or one that it starts on the CPU with a tiny model.

python -m tests.load.vllm --vllm .venv-vllm/bin/python        (starts one, says where, and waits for Ctrl-C)
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vllm_server import MODEL, make_model, serving


@contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    """Its URL, which ends in /v1."""
    if options.url:
        yield options.url
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = options.vllm.absolute()  # Not resolved: a link to the interpreter is its environment.
        make_model(python, folder / "model")
        with serving(python, folder / "model", folder) as running:
            yield running.url


def source_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="A vLLM that runs; ends in /v1.")
    where.add_argument("--vllm", type=Path, help="Python of an environment with vLLM.")
    parser.add_argument("--model", default=MODEL)


def main() -> None:
    parser = argparse.ArgumentParser(description="A tiny model in vLLM, on the CPU.")
    source_options(parser)
    options = parser.parse_args()
    with server(options) as url:
        print(f"--model-url {url} --model {options.model}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
