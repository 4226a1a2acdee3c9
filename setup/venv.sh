#!/usr/bin/env bash
# Makes a virtual environment if there is none, and installs into it.
#
#   setup/venv.sh DIRECTORY PIP-ARGUMENT...
#
# Wants Python 3.11 or newer as python3 (or as $PYTHON). $CONSTRAINTS, if empty, lifts the ones of
# constraints.txt. Never touches the system's own packages,
# but for Debian's python3-venv, which root may install and anybody else is asked to.
set -euo pipefail

directory=$1
shift
python=${PYTHON:-python3}

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

check_python() {
  command -v "$python" >/dev/null ||
    fail "no $python found; install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
  local version
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is Python $version, and 3.11 or newer is needed; name another with PYTHON=…"
}

# Debian keeps ensurepip, and so the making of environments, in a package of its own.
check_ensurepip() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  local package
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    printf 'Installing %s, which Python needs to make an environment\n' "$package"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "this Python cannot make environments; as root: apt-get install $package"
}

make_environment() {
  # An environment that was moved, or whose Python is gone, is made again.
  "$directory/bin/python" -c 'import pip' 2>/dev/null && return
  check_python
  check_ensurepip
  printf 'Making %s with Python %s\n' "$directory" \
    "$("$python" -c 'import platform; print(platform.python_version())')"
  "$python" -m venv --clear "$directory"
  # One that comes with an older Python takes twice as long for all that follows.
  install --upgrade pip || true
}

# A person sees what pip is at, on one line; a log gets only what goes wrong.
install() {
  local pip=("$directory/bin/python" -m pip install --disable-pip-version-check --no-compile)
  local -x PYTHONWARNINGS=ignore # what a package's build says to its author
  if [[ ! -t 1 ]]; then
    "${pip[@]}" --quiet "$@"
    return
  fi
  "${pip[@]}" --progress-bar off "$@" | while IFS= read -r line; do
    printf '\r\033[K  %.90s' "$line"
  done
  printf '\r\033[K'
}

cd "$(dirname "$0")/.."
make_environment
printf 'Installing Python packages into %s (a minute or two the first time)\n' "$directory"
constraints=${CONSTRAINTS-constraints.txt}
install ${constraints:+--constraint "$constraints"} "$@"
# By all processors at once. Some packages hold templates that are no Python yet.
"$directory/bin/python" -m compileall -qq -j 0 "$directory"/lib || true
