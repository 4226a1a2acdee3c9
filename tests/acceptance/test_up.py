"""`stockify up` as its user meets it: comes up, serves, survives, ends, and starts again."""

import json
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
from tests.support.instance import Instance, until

# Standard input becomes the terminal that controls the session, so that ^C is a signal.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, (sys.executable, "-m", "stockify", "up"))
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with instances.prepared() as prepared:
        prepared.start()
        yield prepared


@pytest.fixture
def fresh() -> Iterator[Instance]:
    with instances.prepared() as prepared:
        yield prepared


def instant(chain: dict[str, object] | None) -> str:
    """When a chain of REST was received; empty for none."""
    return str(chain["meta"]["ts_ingest"]) if chain else ""  # type: ignore[index]


def moves_on(instance: Instance, seconds: float = 40.0) -> None:
    """The chain of REST gets newer than it is now."""
    before = instant(instance.chain())
    until(lambda: instant(instance.chain()) > before, seconds, instance.said)


def test_chain_with_greeks_is_served_over_rest(instance: Instance) -> None:
    chain = instance.chain()
    assert chain is not None
    near = [row for row in chain["data"] if row["iv"] is not None]
    assert len(near) > 20
    assert all(row["delta"] is not None for row in near)
    moves_on(instance)


def test_websocket_client_gets_a_snapshot(instance: Instance) -> None:
    message = instance.snapshot("underlying:NIFTY")
    assert message["channel"] == "underlying:NIFTY"


def test_page_is_served_at_the_printed_address(instance: Instance) -> None:
    page = instance.get("/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]


def test_status_names_every_process_with_pid_and_rates(instance: Instance) -> None:
    until(lambda: instance.status()["state"] == "ready", 60, instance.said)
    status = instance.status()
    assert status["gateway"] == instance.gateway
    assert set(status["processes"]) == {*instances.WORKERS, "valkey", "postgres"}
    assert all(process["pid"] > 0 for process in status["processes"].values())
    until(lambda: instance.status()["processes"]["storage"]["rates"]["rows_written"] > 0, 30)


def test_status_and_logs_hide_passwords(instance: Instance) -> None:
    environment = instance.command("env").stdout
    password = environment.split("redis://:")[1].split("@")[0]
    shown = [instance.command("status", "--json"), instance.command("status")]
    shown.append(instance.command("logs", "-n", "10000"))
    assert all(done.returncode == 0 for done in shown)
    assert not any(password in done.stdout + done.stderr for done in shown)
    assert password not in instance.said()


def test_token_command_opens_the_gateway(instance: Instance) -> None:
    token = instance.command("token", "--scope", "live").stdout.strip()
    kept, instance.token = instance.token, token
    assert instance.chain() is not None
    instance.token = kept


def test_doctor_finds_nothing_bad_in_a_running_instance(instance: Instance) -> None:
    done = instance.command("doctor")
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout


def test_second_up_names_the_holder_and_exits_1(instance: Instance) -> None:
    assert instance.process is not None
    done = instance.command("up")
    assert done.returncode == 1
    assert f"pid {instance.process.pid}, since 2" in done.stderr
    assert instance.gateway in done.stderr


@pytest.mark.parametrize("name", instances.WORKERS)
def test_killed_worker_is_restarted_and_data_flow_again(instance: Instance, name: str) -> None:
    before = instance.pid_of(name)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: instance.pid_of(name) not in (None, before), 20, instance.said)
    until(lambda: instance.status()["processes"][name]["state"] == "ready", 40, instance.said)
    moves_on(instance)


@pytest.mark.parametrize("name", ["valkey", "postgres"])
def test_killed_engine_is_restarted_and_data_flow_again(instance: Instance, name: str) -> None:
    before = instance.pid_of(name)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: instance.pid_of(name) not in (None, before), 20, instance.said)
    until(lambda: instance.status()["state"] == "ready", 60, instance.said)
    moves_on(instance)


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


def test_one_file_of_a_user_is_a_worker(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "async def counts(context):\n"
        "    length = await context.redis.xlen(context.topics.enriched())\n"
        "    context.telemetry.log.info('counted', entries=length)\n"
        "    await context.stopping.wait()\n"
    )
    command = (sys.executable, "-m", "stockify", "run", "counting:counts")
    with subprocess.Popen(
        command, cwd=tmp_path, env=instance.environment, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        event = json.loads(worker.stdout.readline())
        worker.terminate()
        assert worker.wait(20) == 0
    assert (event["event"], event["service"]) == ("counted", "counts")
    assert event["entries"] > 0


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
    with subprocess.Popen(
        (sys.executable, "-c", IN_A_TERMINAL),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=fresh.environment | {"TERM": "xterm-256color", "COLUMNS": "80"},
        start_new_session=True,
    ) as process:
        fresh.process = process
        os.close(terminal)
        shown = read_until(reading, "first chain")
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
