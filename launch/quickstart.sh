#!/usr/bin/env bash
# From a fresh clone to a small language model that speaks: bash launch/quickstart.sh [key=value …]
#
# Needs Python 3.11 or newer and nothing else, no root and no GPU. Makes .venv in the checkout, installs the suite
# into it (only when something changed since the last time), then runs the whole chain. data/ and runs/ are
# made in the folder it is called from. PYTHON=… chooses another interpreter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

fail() {
  echo "$1" >&2
  exit 2
}

# find_python: prints the first interpreter that is new enough.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed, found ${PYTHON:-$(python3 -V 2>&1 || echo none)}; set PYTHON=/path/to/python3.11."
}

if [[ ! -x $venv/bin/python ]]; then
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module; install it (on Debian: apt install python3-venv) or set PYTHON=…."
  echo "making $venv with $("$python" -V)"
  "$python" -m venv "$venv"
fi

# The stamps name what was installed: a changed requirement is installed, a known one costs nothing.
stamp=$(cat "$root"/{setup.cfg,pyproject.toml,constraints.txt} | sha256sum)
if ! grep -qsF "$stamp" "$venv"/{quickstart,tests}-installed; then
  echo "installing into $venv (some minutes, the first time)"
  (cd "$root" && "$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt \
    -e '.[train,data,hf,community,llamacpp]')
  echo "$stamp" >"$venv/quickstart-installed"
fi

exec "$venv/bin/python" "$root/launch/pipeline.py" experiment=quickstart "$@"
