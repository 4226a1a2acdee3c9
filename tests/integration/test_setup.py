"""The set-up scripts say what is wrong with a machine before they touch it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.rooms import CHECKOUT

SCRIPTS = sorted((CHECKOUT / "setup").glob("*.sh"))
BASH = shutil.which("bash") or "bash"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts alone, so that nothing is installed into this checkout."""
    shutil.copytree(CHECKOUT / "setup", tmp_path / "checkout" / "setup")
    return tmp_path / "checkout"


def python_that(folder: Path, body: str) -> Path:
    """A stand-in for Python on another machine: a shell script that answers as it would."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make_environment(checkout: Path, python: str | Path) -> subprocess.CompletedProcess[str]:
    # Without apt-get in the path, root cannot install anything either.
    return subprocess.run(
        [BASH, checkout / "setup/venv.sh", "environment", "nothing"],
        env=os.environ | {"PYTHON": str(python), "PATH": str(only_basics(checkout))},
        capture_output=True,
        text=True,
        check=False,
    )


def only_basics(folder: Path) -> Path:
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("dirname", "id", "bash", "sh"):
        found = shutil.which(name)
        if found and not (programs / name).exists():
            (programs / name).symlink_to(found)
    return programs


def test_missing_python_is_named(checkout: Path) -> None:
    done = make_environment(checkout, "python-of-tomorrow")
    assert done.returncode == 1
    assert "no python-of-tomorrow found; install Python 3.11 or newer" in done.stderr


def test_old_python_is_refused_with_its_version(checkout: Path) -> None:
    old = python_that(checkout, 'case "$2" in *"< (3"*) exit 1;; *) echo 3.10;; esac')
    done = make_environment(checkout, old)
    assert done.returncode == 1
    assert "is Python 3.10, and 3.11 or newer is needed" in done.stderr
    assert not (checkout / "environment").exists()


def test_python_without_ensurepip_names_the_package(checkout: Path) -> None:
    body = f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac'
    done = make_environment(checkout, python_that(checkout, body))
    assert done.returncode == 1
    major, minor = sys.version_info[:2]
    assert f"as root: apt-get install python{major}.{minor}-venv" in done.stderr


def test_kept_environment_serves_another_checkout(tmp_path: Path) -> None:
    wheel = wheel_of_one_command(tmp_path)
    cache = {
        "XDG_CACHE_HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "PYTHON": sys.executable,
    }
    prefixes = []
    for name in ("first", "second"):
        here = tmp_path / name
        shutil.copytree(CHECKOUT / "setup", here / "setup")
        for given in ("pyproject.toml", "constraints.txt"):
            shutil.copy(CHECKOUT / given, here)
        made = subprocess.run(
            [BASH, here / "setup/kept-venv.sh", "environment", wheel],
            env=os.environ | cache,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("Installing" in made.stdout) == (name == "first"), made.stdout
        said = subprocess.run([here / "environment/bin/where"], capture_output=True, check=True)
        prefixes.append(said.stdout.decode().strip())
    assert prefixes == [str(tmp_path / name / "environment") for name in ("first", "second")]


def wheel_of_one_command(folder: Path) -> Path:
    """A package whose command `where` says in which environment it is."""
    path, about = folder / "where-1-py3-none-any.whl", "where-1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("where.py", "import sys\n\ndef say():\n    print(sys.prefix)\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: where\nVersion: 1\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/entry_points.txt", "[console_scripts]\nwhere = where:say\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_parses_and_stops_at_the_first_failure(script: Path) -> None:
    checked = subprocess.run([BASH, "-n", script], capture_output=True, text=True, check=False)
    assert checked.stderr == ""
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


def test_make_help_names_every_target_for_people() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    shown = subprocess.run(
        [make, "--no-print-directory", "-C", CHECKOUT, "help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = {line.split()[1] for line in shown.splitlines()}
    assert targets >= {"up", "test", "setup", "setup-bench", "lint", "lock", "clean"}
