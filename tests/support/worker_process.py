"""A worker as a process of its own, so that a test can kill it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from pipeline import config
from pipeline.config import Settings

STOP_S = 20.0


@contextlib.contextmanager
def running(module: str, settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process of `python -m module …`; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        env=config.environment(settings),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_S)


def stopped(process: subprocess.Popen[bytes]) -> int:
    """The exit code after SIGTERM."""
    process.terminate()
    return process.wait(STOP_S)
