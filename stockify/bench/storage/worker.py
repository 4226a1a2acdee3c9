"""The storage worker at work: the real process, on a Valkey of its own, and its stream.

It is held while the entries are appended and then let go; the clock runs until the last of them is
acknowledged. Its CPU is that of the process alone, start-up and warm-up left out.
"""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis

from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.streams import Producer
from pipeline.topics import Topics
from stockify import plan, warm
from stockify.bench import embedded
from stockify.bench.storage.loads import Tables, Took

DEADLINE_S = 240.0
LEASE_MS = 60_000  # it is held for longer than a shard is usually left to a silent process
GROUP = "storage"
_APPENDED_AT_ONCE = 64


class Worker:
    """One or several storage processes on the shards of one Valkey, loading into one database."""

    def __init__(self, settings: Settings, pids: Sequence[int], logs: Sequence[Path]) -> None:
        self._settings = settings
        self._processes = [psutil.Process(pid) for pid in pids]
        self._logs = logs
        self._topics = Topics(settings.shards)
        self._client = redis.Redis.from_url(settings.redis_url)
        self._tables = Tables(settings.database_url)

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [process.pid for process in self._processes]

    @property
    def redis_url(self) -> str:
        """Their Valkey."""
        return self._settings.redis_url

    def load(self, entries: Sequence[NewEntry]) -> Took:
        """Have entries stored, tables being empty before; what it took from first to last."""
        rows = sum(entry.contracts for entry in entries)
        self._tables.empty()
        for process in self._processes:
            process.suspend()
        try:
            last = asyncio.run(self._append(entries))
            before = self._cpu_s()
        finally:
            began = time.perf_counter()
            for process in self._processes:
                process.resume()
        self._wait(last)
        took = Took(rows, time.perf_counter() - began, self._cpu_s() - before)
        for stream in last:
            self._client.xtrim(stream, maxlen=0, approximate=False)
        found = self._tables.ask("bench_count")
        chains = len(entries)
        if found != {"rows": rows, "snapshots": chains, "lines": chains, "present": chains}:
            raise RuntimeError(f"{chains} chains of {rows} legs were stored as {found}")
        return took

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._tables.close()

    async def _append(self, entries: Sequence[NewEntry]) -> dict[str, str]:
        """The last stream id of each stream that got any."""
        parts: dict[str, list[NewEntry]] = {}
        for entry in entries:
            shard = self._topics.shard_of_key(entry.key)
            parts.setdefault(self._topics.enriched(shard), []).append(entry)
        producer = Producer(self._settings, "bench")
        last: dict[str, str] = {}
        for stream, part in parts.items():
            for first in range(0, len(part), _APPENDED_AT_ONCE):
                places = await producer.append_many(stream, part[first : first + _APPENDED_AT_ONCE])
            last[stream] = places[-1].stream_id
        await producer.close()
        return last

    def _wait(self, last: dict[str, str]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not all(self._is_through(stream, place) for stream, place in last.items()):
            if time.monotonic() > deadline or not all(p.is_running() for p in self._processes):
                said = "\n".join(log.read_text()[-3_000:] for log in self._logs)
                raise RuntimeError(f"not every entry was stored:\n{said}")
            time.sleep(0.005)

    def _is_through(self, stream: str, place: str) -> bool:
        groups: Any = self._client.xinfo_groups(stream)
        return any(
            group["name"].decode() == GROUP
            and group["last-delivered-id"].decode() == place
            and group["pending"] == 0
            for group in groups
        )

    def _cpu_s(self) -> float:
        return sum(_cpu_s(process) for process in self._processes)


def _cpu_s(process: psutil.Process) -> float:
    """CPU of a process, to the ns where the kernel tells it of each thread."""
    tasks = Path(f"/proc/{process.pid}/task")
    try:
        told = [task.joinpath("schedstat").read_text().split() for task in tasks.iterdir()]
    except OSError:
        times = process.cpu_times()
        return times.user + times.system
    return sum(int(spent) for spent, *_ in told) / 1e9


@contextlib.contextmanager
def storing(
    directory: Path,
    database_url: str,
    *,
    batch_rows: int,
    processes: int = 1,
    shards: int = 1,
    lease_ms: int = LEASE_MS,
) -> Iterator[Worker]:
    """So many workers, on the shards of a Valkey of their own; all stop afterwards."""
    directory.mkdir()
    if "storage" in warm.cold_roles():
        filling = warm.launch("storage")
        subprocess.run(filling.argv, env=dict(filling.env), check=True)
    with contextlib.ExitStack() as stack:
        settings = Settings(
            redis_url=stack.enter_context(embedded.valkey(directory)),
            database_url=database_url,
            state_dir=str(directory / "state"),
            shards=shards,
            storage_batch_rows=batch_rows,
            lease_ms=lease_ms,
        )
        logs = [directory / f"storage-{number}.log" for number in range(processes)]
        pids = [
            stack.enter_context(embedded.running(plan.launch("storage", settings), log))
            for log in logs
        ]
        worker = Worker(settings, pids, logs)
        stack.callback(worker.close)
        yield worker
