"""The server that all take turns at, and redis-benchmark, which says what it can do.

redis-benchmark cuts what it reads from stdin at the first zero byte, so it is given letters, as
many as a frame has bytes; what then stands in the stream is looked at.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from pipeline import config
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.topics import Topics
from stockify import plan
from stockify.bench.report import MissingPeer

CEILING_STREAM = Topics().stream("ceiling", 0)
PLAIN_STREAM = Topics().stream("plain", 0)
REST_S = 5.0


class Server:
    """One Redis, and a client of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = redis.Redis.from_url(url)
        # A rewrite in the middle of somebody's turn would be his alone.
        self._client.config_set("auto-aof-rewrite-percentage", 0)
        self._binary, self._environment = redis_benchmark()

    def ceiling(self, like: NewEntry, count: int, depth: int) -> float:
        """Entries a second of `redis-benchmark -c 1` with the fields and the size of that one."""
        parts = urlsplit(self.url)
        argv = (
            *(str(self._binary), "-h", "127.0.0.1", "-p", str(parts.port), "-a"),
            *(parts.password or "", "-c", "1", "-P", str(depth), "-n", str(count), "--csv", "-x"),
            *("XADD", CEILING_STREAM, "*", *_fields(like)),
        )
        done = subprocess.run(
            argv,
            input=b"x" * len(like.data),
            env=self._environment,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"redis-benchmark: {done.stderr.decode()[-1_000:]}")
        newest: Any = self._client.xrevrange(CEILING_STREAM, count=1)
        written = len(newest[0][1][b"data"])
        if self.length(CEILING_STREAM) < count or written != len(like.data):
            raise RuntimeError("redis-benchmark did not append what it was told to")
        return float(done.stdout.decode().splitlines()[-1].split('","')[1])

    def length(self, stream: str) -> int:
        """How many entries a stream has."""
        return int(self._client.xlen(stream))

    def pending(self, stream: str, group: str) -> int:
        """How many entries a group has not acknowledged."""
        return int(self._client.xpending(stream, group)["pending"])

    def clear(self, *streams: str) -> None:
        """Empty streams without losing their groups, and wait until the server is idle again."""
        for stream in streams:
            self._client.xtrim(stream, maxlen=0, approximate=False)
        self.rest()

    def shrink_log(self) -> None:
        """Write the append-only file again, so that it does not grow with every turn."""
        self._client.bgrewriteaof()
        self.rest()

    def rest(self) -> None:
        """Wait until what was written is on the disk: whose turn is next shall not pay for it."""
        deadline = time.monotonic() + REST_S
        while time.monotonic() < deadline:
            state = self._client.info("persistence")
            if not any(int(state.get(name, 0)) for name in _BUSY):
                return
            time.sleep(0.01)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


_BUSY = (
    *("aof_rewrite_in_progress", "aof_rewrite_scheduled"),
    *("aof_pending_bio_fsync", "aof_buffer_length"),
)


def _fields(like: NewEntry) -> list[str]:
    """What the append call writes, without the payload: its own numbering comes first."""
    texts = [str(field) for field in like.fields()[:-1]]
    return ["seq", "123456", "epoch", "1769050000000000", *texts]


def redis_benchmark() -> tuple[Path, dict[str, str]]:
    """The program, and the environment in which it finds its libraries. Raises MissingPeer."""
    environment = plan.environment(Settings(), "bench-peers")
    found = shutil.which("redis-benchmark")
    if found:
        return Path(found), environment
    unpacked = config.cache_path() / "redis-7" / "usr"
    if (unpacked / "bin" / "redis-benchmark").exists():
        libraries = unpacked / "lib" / f"{os.uname().machine}-linux-gnu"
        environment |= {"LD_LIBRARY_PATH": str(libraries)}
        return unpacked / "bin" / "redis-benchmark", environment
    raise MissingPeer("redis-benchmark is not on this machine")
