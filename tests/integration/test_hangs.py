"""A test that hangs fails, whatever it hangs in, and whoever reads of it learns where."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.rooms import CHECKOUT

DEADLINE_S = 60.0

TASK = """
import asyncio

async def test_one():
    await asyncio.create_task(waiting_for_nothing())

async def waiting_for_nothing():
    await asyncio.Event().wait()
"""
DEAF = """
import hashlib

def test_one():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
"""
LONG_LISTS = """
def test_one():
    assert [str(n) for n in range(3_000)] == [str(n + 5_000) for n in range(3_000)]
"""


def run(folder: Path, text: str, **options: float) -> subprocess.CompletedProcess[str]:
    """Run a file of one test with the limits given, as continuous integration does."""
    file = folder / "test_one.py"
    file.write_text(text)
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        (
            *(sys.executable, "-m", "pytest", "-p", "tests.support.hangs"),
            *("-p", "no:cacheprovider", "-c", str(CHECKOUT / "pyproject.toml"), *given, str(file)),
        ),
        cwd=CHECKOUT,
        env=os.environ | {"CI": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def test_task_that_waits_for_ever_fails_and_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, TASK, timeout=0.3)
    assert done.returncode == 1, done.stderr
    assert "Failed: Timeout (>0.3s)" in done.stdout
    assert "test_one.py:8 waiting_for_nothing" in done.stdout


def test_what_cannot_be_interrupted_ends_with_its_stack(tmp_path: Path) -> None:
    done = run(tmp_path, DEAF, timeout=0.2, faulthandler_timeout=0.6)
    assert done.returncode == 1
    assert "test_one.py" in done.stderr
    assert "in test_one" in done.stderr


def test_long_lists_that_differ_are_told_at_once(tmp_path: Path) -> None:
    done = run(tmp_path, LONG_LISTS)
    assert done.returncode == 1, done.stderr
    assert "At index 0 diff" in done.stdout


def test_signals_that_a_shell_ignores_are_heard() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_IGN
