"""Processes a bench starts for itself and stops when it is done, a Valkey among them."""

import contextlib
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from pipeline.config import Settings
from stockify import plan
from stockify.engines.valkey import Valkey
from stockify.processes import Launch

STOP_S = 15.0


@contextlib.contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """The address of a Valkey of the bench's own, as `stockify up` configures it."""
    engine = Valkey(directory / "valkey", plan.Ports().free(), secrets.token_urlsafe(24))
    environment = plan.environment(Settings(redis_url=engine.url), "valkey")
    with running(engine.prepare(environment), directory / "valkey.log"):
        with contextlib.closing(redis.Redis.from_url(engine.url)) as client:
            _wait_for(client)
        yield engine.url


@contextlib.contextmanager
def running(launch: Launch, log: Path) -> Iterator[int]:
    """The pid of what a launch describes; told to stop afterwards."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            stdout=output,
            stderr=output,
            user=launch.user,
            group=launch.group,
            extra_groups=None if launch.user is None else (),
        )
    try:
        yield process.pid
    finally:
        _stop(process, launch)


def _stop(process: "subprocess.Popen[bytes]", launch: Launch) -> None:
    for step in launch.stop:
        process.send_signal(step.signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(step.seconds, STOP_S))
            return
    process.kill()
    process.wait()


def _wait_for(client: redis.Redis) -> None:
    deadline = time.monotonic() + STOP_S
    while True:
        with contextlib.suppress(redis.RedisError):
            client.ping()
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the embedded Valkey did not come up")
        time.sleep(0.02)
