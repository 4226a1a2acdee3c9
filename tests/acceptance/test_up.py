"""`stockify up` as its user meets it, once it is up: it serves and survives."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import instance as instances
from tests.support.instance import Instance, moves_on, until


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with instances.prepared() as prepared:
        prepared.start()
        yield prepared


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
    with instances.starting():  # or another instance takes its port meanwhile
        os.kill(before, signal.SIGKILL)
        until(lambda: instance.pid_of(name) not in (None, before), 20, instance.said)
        until(lambda: instance.status()["state"] == "ready", 60, instance.said)
    moves_on(instance)


def test_one_file_of_a_user_is_a_worker(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "async def counts(context):\n"
        "    length = await context.redis.xlen(context.topics.enriched())\n"
        "    context.telemetry.log.info('counted', entries=length)\n"
        "    await context.stopping.wait()\n"
    )
    command = (sys.executable, "-m", "stockify", "run", "counting:counts")
    with (
        subprocess.Popen(
            command, cwd=tmp_path, env=instance.environment, stdout=subprocess.PIPE, text=True
        ) as worker,
        contextlib.ExitStack() as failing,
    ):
        failing.callback(worker.kill)  # else a failure waits for it for ever
        assert worker.stdout is not None
        event = json.loads(worker.stdout.readline())
        worker.terminate()
        assert worker.wait(20) == 0
    assert (event["event"], event["service"]) == ("counted", "counts")
    assert event["entries"] > 0
