"""The gateway as a process of its own, for what one loop cannot show."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from pipeline import config
from pipeline.config import Settings
from tests.support.gateway import SECRET
from tests.support.servers import free_port

START_S = 30.0


@contextlib.contextmanager
def process(settings: Settings, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that is killed at the end; what it says goes to a pipe, or to `log`."""
    with contextlib.ExitStack() as stack:
        output: Any = subprocess.PIPE if log is None else stack.enter_context(log.open("wb"))
        started = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env=config.environment(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait(10)
            if started.stdout is not None:
                started.stdout.close()


def answer(url: str, status: int) -> dict[str, object]:
    """The JSON at a URL once it answers with that status."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(url, timeout=5)
            if response.status_code == status:
                body: dict[str, object] = response.json()
                return body
        assert time.monotonic() < deadline, f"{url} never answered {status}"
        time.sleep(0.05)


def settings(redis_port: int, **changes: Any) -> Settings:
    """Those of a gateway on a free port, at a Redis on this machine."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    return Settings(
        **{"redis_url": url, "gateway_port": free_port(), "jwt_secret": SECRET} | changes
    )
