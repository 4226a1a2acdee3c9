#!/usr/bin/env bash
# Writes constraints.txt: the newest versions that pyproject.toml allows, resolved in an
# environment of their own. One file serves every supported Python, so it holds versions only.
set -euo pipefail

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --editable '.[test,otlp]'
{
  printf '# Versions known to work together; `make lock` writes this file again.\n'
  "$scratch/venv/bin/python" -m pip freeze --disable-pip-version-check |
    grep -E '^[A-Za-z0-9._-]+==[^ @]+$' | grep -v -i '^stockify=='
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
chmod 644 constraints.txt
printf 'constraints.txt: %d packages\n' "$(grep -c '==' constraints.txt)"
