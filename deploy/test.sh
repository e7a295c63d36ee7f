#!/usr/bin/env bash
# Every test that this machine can run, after the checks that need no server. With arguments (a path, say) it is one
# run of pytest that they go to.
#   VLLM=1 or CI=true also builds .venv-vllm and tests against a real vLLM on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$*"; }
began=$SECONDS

# The browser tests drive whatever Chromium the system has; without one they are skipped by name.
if [ "${CI:-}" = true ] && ! command -v chromium chromium-browser google-chrome > /dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    step "Chromium"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } ||
      echo "Chromium could not be installed: its tests will be skipped."
  fi
fi

vllm=
if [ "${CI:-}" = true ] || [ "${VLLM:-}" = 1 ]; then
  step "vLLM for the CPU, in an environment of its own"
  # Beside the checks: it waits for the network most of the time.
  .venv/bin/python deploy/vllm/build_cpu_env.py > .venv/vllm.log 2>&1 &
  vllm=$!
  trap '[ -z "$vllm" ] || kill "$vllm" 2>/dev/null || true' EXIT
fi

step "checks"
make --no-print-directory check

# As many processes as there are processors, if so many have room: each may take this many GB, with its real parts.
processes() {
  awk -v most="$(nproc)" -v each="$1" \
    '/^MemAvailable/ { fit = int($2 / 1e6 / each); print fit < 1 ? 1 : fit < most ? fit : most }' /proc/meminfo
}

# Those that start whole instances come last: some need vLLM, which is on its way meanwhile.
whole=(tests/browser tests/chaos tests/e2e)
failed=
if [ $# = 0 ]; then
  count=$(processes 2)
  step "tests of parts, in $count processes"
  .venv/bin/python -m pytest --numprocesses "$count" --max-worker-restart 2 tests "${whole[@]/#/--ignore=}" || failed=1
  set -- --numprocesses "$(processes 4)" --max-worker-restart 2 "${whole[@]}"
fi

if [ -n "$vllm" ]; then
  step "waiting for vLLM"
  wait "$vllm" || { cat .venv/vllm.log >&2; echo "vLLM could not be installed." >&2; exit 1; }
  vllm=
  tail -1 .venv/vllm.log
fi

step "tests"
.venv/bin/python -m pytest "$@" || failed=1
printf '\nall of it took %d s\n' $((SECONDS - began))
[ -z "$failed" ]
