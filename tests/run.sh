#!/usr/bin/env bash
# Runs the test suite on a fresh machine: bash tests/run.sh [--all] [--python 3.12] [pytest arguments]
#
#   --all         also runs the tests marked slow
#   --python X.Y  uses that interpreter, with a virtual environment of its own (.venv-X.Y)
#
# Makes .venv and installs the suite into it. As root on Debian, on a machine that has no Slurm, it also installs
# Slurm's packages with their services kept stopped; the tests then start a private Slurm of their own
# (slurm/devcluster). There it installs Chromium too, which looks at the reports. Everywhere else the Slurm tests
# are skipped, those of the pages where there is no Chromium, and pytest's summary says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

selection=(-m "not slow")
interpreter=python3
venv=.venv
while (($#)); do
  case $1 in
    --all) selection=() ;;
    --python)
      interpreter=python${2:?--python needs a version, such as 3.12}
      venv=.venv-$2
      shift
      ;;
    *) break ;;
  esac
  shift
done

# Debian package → the command that shows it is there, and the services it would start.
declare -A command_of=([slurm-wlm]=slurmctld [slurmdbd]=slurmdbd [munge]=munged [mariadb-server]=mariadbd)
declare -A services_of=([slurm-wlm]="slurmctld slurmd" [slurmdbd]=slurmdbd [munge]=munge [mariadb-server]=mariadb)
apt_log=build/apt.log

# apt_install PACKAGE…: installs Debian packages; their services neither start now nor with the next boot.
apt_install() {
  echo "installing $* (log: $apt_log)"
  local policy=/usr/sbin/policy-rc.d own_policy= status=0 package
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    own_policy=yes
  fi
  {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update &&
      apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
  } >"$apt_log" 2>&1 || status=$?
  if [[ $own_policy ]]; then rm -f $policy; fi
  if ((status)); then
    tail -n 20 "$apt_log" >&2
    echo "apt-get failed; the tests that need $* are skipped" >&2
    return
  fi
  if command -v systemctl >/dev/null; then
    for package in "$@"; do
      # Word splitting is meant: one package has several services.
      systemctl disable ${services_of[$package]-} >>"$apt_log" 2>&1 || true
    done
  fi
}

mkdir -p build
if ((EUID == 0)) && [[ -e /etc/debian_version ]]; then
  missing=()
  browser=
  "$interpreter" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  # Where a slurm.conf exists the Slurm is somebody's, and its machine is left as it is.
  if [[ -z ${SLURM_CONF-} && ! -e /etc/slurm/slurm.conf ]]; then
    for package in "${!command_of[@]}"; do
      command -v "${command_of[$package]}" >/dev/null || missing+=("$package")
    done
    command -v chromium >/dev/null || browser=chromium
  fi
  if ((${#missing[@]})); then apt_install "${missing[@]}"; fi
  # By itself, so that Slurm is there where no such package is.
  if [[ $browser ]]; then apt_install $browser; fi
fi

# The stamp names what is installed, so that a changed requirement is installed and a known one costs nothing.
stamp=$(cat setup.cfg pyproject.toml constraints.txt | sha256sum)
if [[ ! -x $venv/bin/python ]]; then
  "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "Python 3.11 or newer is needed; $interpreter is $("$interpreter" -V)" >&2; exit 2; }
  "$interpreter" -m venv "$venv"
fi
if [[ $(cat "$venv/tests-installed" 2>/dev/null) != "$stamp" ]]; then
  echo "installing into $venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt \
    -e '.[train,data,hf,eval,llamacpp,community,trace,slurm,dev]'
  # Its checks run with the rich of the suite, which its requirements do not allow.
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -c constraints.txt roc-validator
  echo "$stamp" >"$venv/tests-installed"
fi

# The name is chosen here so that the private Slurm ends with this script, even when pytest was killed.
export ELM_TEST_CLUSTER=tests-$$
trap '"$venv/bin/python" -m slurm.devcluster down --name "$ELM_TEST_CLUSTER" >/dev/null 2>&1 || true' EXIT

# The Slurm tests mostly wait: two workers, one for them and one for all others, take half the time.
workers=()
if (($# == 0)); then workers=(-n 2 --dist loadgroup --no-loadscope-reorder --durations=20); fi

"$venv/bin/python" -m pytest "${workers[@]}" "${selection[@]}" "$@"
