"""Checks of the machine, the settings and the servers; each says what it found and what to do.

It looks and never changes anything. A server is asked only where one is given or an instance runs.
"""

import asyncio
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from pathlib import Path

import msgspec
import psutil

from pipeline import migrations
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, ConfigError, StockifyError
from stockify import page, plan, warm
from stockify.engines import postgres, postgres_place, servers, valkey
from stockify.instance import StateDirectory

MIN_PYTHON = (3, 11)
MIN_MEMORY_MB = 1_500
MIN_DISK_MB = 2_000  # a day of four underlyings is some hundred megabytes
SLOW_FSYNC_MS = 50.0
MAX_SKEW_S = 1.0
_MB = 1024 * 1024


class Mark(Enum):
    """How a check went."""

    GOOD = "✓"
    POOR = "!"
    BAD = "✗"


class Check(msgspec.Struct, frozen=True):
    """What was found, and what to do about it where something should be done."""

    mark: Mark
    name: str
    found: str
    advice: str = ""


async def examine(settings: Settings, state: StateDirectory) -> AsyncIterator[Check]:
    """Every check, in order, as it is done."""
    for local in (_python, _processor, _memory, _engines, _kernels, _page):
        for check in local():
            yield check
    for check in _state(state):
        yield check
    for check in _ports(settings, is_running=state.holder() is not None):
        yield check
    yield _credentials(settings)
    for remote in (_redis, _postgres):
        async for check in remote(settings):
            yield check


def _python() -> Iterator[Check]:
    good = sys.version_info >= MIN_PYTHON
    wanted = ".".join(map(str, MIN_PYTHON))
    yield Check(
        Mark.GOOD if good else Mark.BAD,
        "python",
        f"{platform.python_version()} in {sys.prefix}",
        "" if good else f"use Python {wanted} or newer",
    )


def _processor() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    flags = warm.processor_flags().split()
    has_vectors = "avx2" in flags or "asimd" in flags
    name = f"{cores} cores, {'vector units' if has_vectors else 'no AVX2'}"
    if cores < 2:
        yield Check(Mark.POOR, "processor", name, "one core serves a demonstration, not a market")
    elif not has_vectors:
        yield Check(Mark.POOR, "processor", name, "Greeks take several times as long")
    else:
        yield Check(Mark.GOOD, "processor", name)


def _memory() -> Iterator[Check]:
    free_mb = psutil.virtual_memory().available // _MB
    good = free_mb >= MIN_MEMORY_MB
    advice = "" if good else f"an instance wants {MIN_MEMORY_MB} MB"
    yield Check(Mark.GOOD if good else Mark.POOR, "memory", f"{free_mb:,} MB available", advice)


def _engines() -> Iterator[Check]:
    yield _tried("valkey", lambda: str(valkey.binary()), "or set STOCKIFY_REDIS_URL")

    def which_postgres() -> str:
        programs = postgres_place.system_programs() or postgres_place.wheel_programs()
        kind = "TimescaleDB" if programs.has_timescale else "native partitions"
        return f"PostgreSQL {programs.major}, {kind}, {programs.directory}"

    yield _tried("postgres", which_postgres, "or set STOCKIFY_DATABASE_URL")


def _kernels() -> Iterator[Check]:
    cold = warm.cold_roles()
    found = f"not compiled for {', '.join(cold)}" if cold else "compiled"
    advice = "stockify warmup, or wait at the next start" if cold else ""
    yield Check(Mark.POOR if cold else Mark.GOOD, "kernels", found, advice)


def _page() -> Iterator[Check]:
    built = (page.WEB / "dist").is_dir()
    found, advice = ("built", "") if built else ("not built", "stockify up builds it")
    yield Check(Mark.GOOD if built else Mark.POOR, "page", found, advice)


def _state(state: StateDirectory) -> Iterator[Check]:
    directory = state.path
    while not directory.exists():
        directory = directory.parent
    if not os.access(directory, os.W_OK | os.X_OK):
        advice = "give it to this user, or set STOCKIFY_STATE_DIR"
        yield Check(Mark.BAD, "state", f"{directory} is not writable", advice)
        return
    if state.path.exists() and state.path.stat().st_mode & 0o066:
        advice = f"chmod 700 {state.path}"
        yield Check(Mark.POOR, "state", f"others can look into {state.path}", advice)
    else:
        yield Check(Mark.GOOD, "state", str(state.path))
    free_mb = shutil.disk_usage(directory).free // _MB
    good = free_mb >= MIN_DISK_MB
    advice = "" if good else f"want {MIN_DISK_MB:,} MB"
    yield Check(Mark.GOOD if good else Mark.BAD, "disk", f"{free_mb:,} MB free", advice)
    took_ms = _fsync_ms(directory)
    slow = took_ms > SLOW_FSYNC_MS
    advice = "commits wait for it: use a faster disk for the state" if slow else ""
    yield Check(Mark.POOR if slow else Mark.GOOD, "fsync", f"{took_ms:.1f} ms", advice)


def _ports(settings: Settings, *, is_running: bool) -> Iterator[Check]:
    if is_running:
        yield Check(Mark.GOOD, "ports", "in use by the running instance")
        return
    usual = {
        "gateway": (settings.gateway_host, settings.gateway_port),
        "simulator": (settings.simulator_host, settings.simulator_port),
        "valkey": (plan.LOOPBACK, valkey.USUAL_PORT),
        "postgres": (plan.LOOPBACK, postgres.USUAL_PORT),
    }
    taken = [
        f"{name} {port}" for name, (host, port) in usual.items() if not plan.is_free(host, port)
    ]
    found = f"taken: {', '.join(taken)}" if taken else "the usual ones are free"
    advice = "others will be chosen" if taken else ""
    yield Check(Mark.POOR if taken else Mark.GOOD, "ports", found, advice)


def _credentials(settings: Settings) -> Check:
    try:
        plan.check_provider(settings)
    except ConfigError:
        advice = "set STOCKIFY_DHAN_CLIENT_ID and _ACCESS_TOKEN for stockify up --no-sim"
        return Check(Mark.POOR, "provider", "no credentials; only the simulator", advice)
    path = settings.dhan_token_file
    if path and not os.access(Path(path).expanduser(), os.R_OK):
        return Check(Mark.BAD, "provider", f"{path} cannot be read", "correct the token file")
    return Check(Mark.GOOD, "provider", f"credentials of client {settings.dhan_client_id}")


async def _redis(settings: Settings) -> AsyncIterator[Check]:
    if not settings.redis_url:
        yield Check(Mark.GOOD, "redis", "the embedded one, not running now")
        return
    try:
        findings = await servers.findings(settings)
        skew_s = await _redis_skew_s(settings)
    except BusUnavailable as error:
        yield Check(Mark.BAD, "redis", str(error), "start it, or correct STOCKIFY_REDIS_URL")
        return
    for finding in findings:
        yield Check(Mark.BAD if finding.is_fatal else Mark.POOR, "redis", finding.text)
    if not findings:
        yield Check(Mark.GOOD, "redis", "noeviction, append-only, keyspace events")
    good = abs(skew_s) <= MAX_SKEW_S
    advice = "" if good else "synchronise the clocks: stream ids and ages come from both"
    mark = Mark.GOOD if good else Mark.POOR
    yield Check(mark, "clock", f"{skew_s * 1e3:+.0f} ms from Redis's", advice)


async def _redis_skew_s(settings: Settings) -> float:
    """The greatest difference of a server's clock from ours."""
    before_s = Clock().now_ns() / 1e9
    times = await servers.ask_owners(settings, ("TIME",))
    ours_s = (before_s + Clock().now_ns() / 1e9) / 2
    skews = [int(seconds) + int(microseconds) / 1e6 - ours_s for seconds, microseconds in times]
    return max(skews, key=abs)


async def _postgres(settings: Settings) -> AsyncIterator[Check]:
    if not settings.database_url:
        yield Check(Mark.GOOD, "database", "the embedded one, not running now")
        return
    try:
        standing = await migrations.plan(settings.database_url)
    except StockifyError as error:
        yield Check(Mark.BAD, "database", str(error), "start it, or correct STOCKIFY_DATABASE_URL")
        return
    words = {
        "plain": "no TimescaleDB: native partitions",
        "apache": "TimescaleDB, Apache edition: hypertables",
        "community": "TimescaleDB, Community edition: hypertables, columnstore, policies",
    }
    yield Check(Mark.GOOD, "database", words[standing.edition])
    if standing.pending:
        names = ", ".join(f"{each.number:04d}_{each.name}" for each in standing.pending)
        yield Check(Mark.POOR, "schema", f"pending: {names}", "stockify migrate")
    else:
        yield Check(Mark.GOOD, "schema", "up to date")


def _tried(name: str, look: Callable[[], str], advice: str) -> Check:
    try:
        return Check(Mark.GOOD, name, look())
    except ConfigError as error:
        return Check(Mark.BAD, name, str(error), advice)


def _fsync_ms(directory: Path) -> float:
    """The median of a few small synchronous writes."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(5):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return sorted(took)[len(took) // 2]


def run(settings: Settings, state: StateDirectory, show: Callable[[Check], None]) -> bool:
    """Examine, show each check as it is done, and say whether none was bad."""

    async def examined() -> bool:
        fine = True
        async for check in examine(settings, state):
            show(check)
            fine = fine and check.mark is not Mark.BAD
        return fine

    return asyncio.run(examined())
