"""Kernels are compiled once, before anybody waits for them, and by one process at a time."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pipeline.config import Settings
from stockify import cli, plan, warm
from tests.support.servers import free_port

DEADLINE_S = 120.0


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No role has a compiled kernel; only the smallest role is asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(warm, "ROLES", ("storage",))


def state(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return str(msgspec.json.decode(answer.read())["state"])
    except urllib.error.HTTPError as error:
        return str(msgspec.json.decode(error.read())["state"])
    except OSError:
        return ""


@pytest.mark.usefixtures("cold")
def test_worker_is_ready_only_with_its_kernels(valkey: str, plain_database_url: str) -> None:
    port = free_port()
    settings = Settings(redis_url=valkey, database_url=plain_database_url, metrics_port=port)
    argv = (sys.executable, "-m", "workers.storage")
    with subprocess.Popen(argv, env=plan.environment(settings, "storage")) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            compiled, said = warm.kernels("storage"), state(port)
            assert (compiled, said != "ready") == (0, True)
            while said != "ready":
                assert time.monotonic() < deadline
                time.sleep(0.01)
                said = state(port)
            assert warm.kernels("storage") > 0
        finally:
            process.kill()


@pytest.mark.usefixtures("cold")
def test_warmup_counts_what_it_compiled_and_is_content_the_next_time() -> None:
    first = CliRunner().invoke(cli.commands, ["warmup"])
    assert first.exit_code == 0, first.output
    begun, done = first.output.splitlines()
    assert begun == "storage: compiling its kernels"
    assert done.startswith(f"storage: {warm.kernels('storage')} kernels in ")
    assert warm.kernels("storage") > 0
    assert CliRunner().invoke(cli.commands, ["warmup"]).output == "kernels are warm\n"


@pytest.mark.usefixtures("cold")
def test_two_that_warm_one_role_at_once_both_find_it_warm() -> None:
    launch = warm.launch("storage")
    both = [subprocess.Popen(launch.argv, env=dict(launch.env)) for _ in range(2)]
    assert [process.wait(DEADLINE_S) for process in both] == [0, 0]
    assert warm.cold_roles() == []
    assert warm.kernels("storage") > 0
