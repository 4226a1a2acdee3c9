"""How `stockify up` begins and ends: by hand, in a terminal, by a kill; and begins again."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import instance as instances
from tests.support import postgres, servers
from tests.support.instance import Instance, instant, moves_on, until

# Standard input becomes the terminal that controls the session, so that ^C is a signal.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, (sys.executable, "-m", "stockify", "up"))
"""


@pytest.fixture
def fresh() -> Iterator[Instance]:
    with instances.prepared() as prepared:
        yield prepared


def test_interrupt_drains_and_the_next_start_goes_on_with_the_data(fresh: Instance) -> None:
    fresh.start(umask=0o077)
    moves_on(fresh)
    kept = instant(fresh.chain())
    assert fresh.stop(signal.SIGINT) == 0
    assert fresh.members() == []
    assert fresh.command("status").returncode == 3
    said = fresh.said()
    order = [f"✓ stop {name}" for name in ("ingest", "processor", "storage", "gateway", "valkey")]
    assert [said.index(line) for line in order] == sorted(said.index(line) for line in order)
    fresh.start()
    first = fresh.get("/v1/underlyings/NIFTY/history?limit=10000&order=asc").json()["data"]
    assert str(first[0]["ts_ingest"]) <= kept
    moves_on(fresh)
    assert fresh.stop(signal.SIGTERM) == 0


def test_killed_supervisor_leaves_nobody_behind(fresh: Instance) -> None:
    fresh.state.mkdir(mode=0o700)
    fresh.start()
    assert fresh.process is not None
    assert len(fresh.members()) > len(instances.WORKERS)
    fresh.process.kill()
    fresh.process.wait(5)
    began = time.monotonic()
    until(lambda: not fresh.members(), 10, lambda: f"still there: {fresh.members()}")
    assert time.monotonic() - began < 10
    assert fresh.command("status").returncode == 3
    fresh.start()
    assert fresh.stop() == 0


def test_hurried_stop_does_not_wait_for_workers(fresh: Instance) -> None:
    fresh.start()
    assert fresh.process is not None
    pid = fresh.pid_of("ingest")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it cannot drain
    fresh.process.send_signal(signal.SIGINT)
    until(lambda: "once more to hurry" in fresh.said(), 5)
    began = time.monotonic()
    while fresh.process.poll() is None and time.monotonic() - began < 15:
        time.sleep(0.6)
        fresh.process.send_signal(signal.SIGINT)
    assert fresh.process.wait(15) == 0
    assert fresh.members() == []


def test_given_servers_are_used_and_their_settings_examined(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with (
        servers.running(servers.valkey_binary(), tmp_path / "redis") as redis_server,
        postgres.running_wheel() as postgres_server,
        postgres_server.database() as database_url,
        instances.prepared(REDIS_URL=redis_server.url, DATABASE_URL=database_url) as prepared,
    ):
        with redis.Redis.from_url(redis_server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        prepared.start()
        assert "! Redis: maxmemory-policy is allkeys-lru" in prepared.said()
        assert set(prepared.status()["processes"]) == set(instances.WORKERS)
        moves_on(prepared)
        assert prepared.stop() == 0
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.ping()


def test_terminal_shows_a_table_and_a_typed_interrupt_ends_it(fresh: Instance) -> None:
    reading, terminal = pty.openpty()
    with contextlib.ExitStack() as start:
        start.enter_context(instances.starting())
        with (
            subprocess.Popen(
                (sys.executable, "-c", IN_A_TERMINAL),
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                env=fresh.environment | {"TERM": "xterm-256color", "COLUMNS": "80"},
                start_new_session=True,
            ) as process,
            contextlib.ExitStack() as ending,
        ):
            fresh.process = process
            ending.callback(process.kill)  # else a failure waits for it for ever
            os.close(terminal)
            shown = read_until(reading, "first chain")
            start.close()
            assert "storage" in shown
            assert re.search(r"/#token=[\w.-]{200,}\s", shown), "the address is not whole"
            os.write(reading, b"\x03")
            shown = read_until(reading, "stop valkey, postgres")
            assert process.wait(30) == 0
    os.close(reading)


def read_until(terminal: int, text: str) -> str:
    """What a terminal shows up to a text, without its control sequences."""
    shown = ""
    deadline = time.monotonic() + instances.START_S
    while text not in shown:
        assert time.monotonic() < deadline, shown[-2_000:]
        if select.select([terminal], [], [], 1.0)[0]:
            shown += os.read(terminal, 65_536).decode(errors="replace")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
