#!/usr/bin/env bash
# Makes a virtual environment as venv.sh does, and keeps a copy of it for the next checkout.
#
#   setup/kept-venv.sh DIRECTORY PIP-ARGUMENT...
#
# The copies are in ${XDG_CACHE_HOME:-~/.cache}/stockify/venv, one for each Python and set of
# requirements; those used last are kept. Files are linked, not copied, where the file system can:
# pip replaces files and never writes into them.
set -euo pipefail

cd "$(dirname "$0")/.."
directory=$1
home=~
kept="${XDG_CACHE_HOME:-$home/.cache}/stockify/venv"
most=4

# Whatever decides what an environment consists of.
key() {
  {
    "${PYTHON:-python3}" -c 'import sys; print(sys.version, sys.executable, sys.base_prefix)'
    printf '%s\n' "${CONSTRAINTS-constraints.txt}" "$@"
    cat pyproject.toml constraints.txt setup/*.txt setup/*venv.sh
  } | sha256sum | cut -c 1-16
}

copy() { cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2"; cp -a "$1" "$2"; }; }

# Scripts, settings and the finder of this project name the checkout that they were made in.
take() {
  local copied="$directory.copied" made_in packages
  rm -rf "$copied"
  copy "$1" "$copied"
  made_in=$(<"$copied/.checkout")
  packages=$(echo "$copied"/lib/python*/site-packages)
  {
    grep -lIsF -- "$made_in" "$copied"/bin/* "$copied/pyvenv.cfg" "$packages"/__editable__* \
      "$packages"/*.dist-info/direct_url.json || true
  } |
    xargs --no-run-if-empty sed --in-place "s|$made_in|$PWD|g"
  rm -rf "$packages"/__pycache__/__editable__* "$copied"/.checkout "$copied"/.installed*
  mv "$copied" "$directory"
  touch "$1"
}

keep() {
  mkdir -p "$kept"
  local half
  half=$(mktemp -d "$kept/half.XXXXXX")
  copy "$directory" "$half/it"
  printf '%s' "$PWD" >"$half/it/.checkout"
  rm -rf "$1"
  mv -T "$half/it" "$1" 2>/dev/null || true # another was faster
  rm -rf "$half"
  touch "$1"
  find "$kept" -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn | tail -n +$((most + 1)) |
    cut -d ' ' -f 2- | xargs --no-run-if-empty -d '\n' rm -rf
}

mine="$kept/$(key "$@" 2>/dev/null)"
if [[ ! -e $directory && -d $mine ]]; then
  take "$mine"
  exit
fi
setup/venv.sh "$@"
keep "$mine"
