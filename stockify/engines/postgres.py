"""The embedded Postgres: a cluster of its own, on 127.0.0.1, behind a generated password.

Makes the cluster on the first start, clears what a killed server left, and says how to start it.
It never starts or stops the server itself, and knows nothing of the tables in it.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from pipeline.errors import ConfigError
from stockify import guard
from stockify.engines.postgres_place import (
    SYSTEM_DATA,
    SYSTEM_PROGRAMS,
    Account,
    Place,
    Programs,
    make_base,
    reachable,
    run_program,
    server_account,
    settle,
)
from stockify.instance import write_private
from stockify.processes import Launch, StopStep

USUAL_PORT = 5490
USER = "stockify"
DATABASE = "stockify"
# SIGINT disconnects everybody and checkpoints; SIGQUIT leaves recovery to the next start.
STOP_STEPS = (StopStep(signal.SIGINT, 30.0), StopStep(signal.SIGQUIT, 5.0))
ASK_TIMEOUT_S = 2.0
LEFT_OVER_S = 15.0  # how long the last server of a killed instance gets to leave
_MB = 1024 * 1024
_PROTOCOL_3 = 196_608

# Written into a new cluster's postgresql.conf, where its owner may change them. Durability is as
# the server ships it.
_SETTINGS = {
    "max_connections": "60",
    "max_wal_size": "'2GB'",
    "checkpoint_timeout": "'15min'",
    "wal_compression": "on",
    "work_mem": "'16MB'",
    "maintenance_work_mem": "'128MB'",
    "random_page_cost": "1.1",
    "max_locks_per_transaction": "256",  # a statement over a year locks every day's partition
    "jit": "off",  # our queries are short; compiling them takes longer than running them
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_checkpoints": "off",
}
_TIMESCALE_SETTINGS = {
    "shared_preload_libraries": "'timescaledb'",
    "timescaledb.telemetry_level": "off",
}


class Postgres:
    """One PostgreSQL under a directory, on a port of 127.0.0.1.

    `directory` keeps the password and the note of where the data are; the data are there too where
    the server can come there. `system_root` is where installed servers are looked for. `prepare`
    blocks for a second or two when it makes the cluster.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        system_data: Path = SYSTEM_DATA,
        system_programs: Path = SYSTEM_PROGRAMS,
        system_root: Path = Path("/"),
    ) -> None:
        self._directory = directory
        self._port = port
        self._system_data = system_data
        self._system_programs = system_programs
        self._system_root = system_root

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self._port}/{DATABASE}"

    def prepare(self, environment: Mapping[str, str]) -> Launch:
        """Make the cluster if there is none and say how to start it. Raises ConfigError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = self._password()
        account = server_account()
        place, programs = settle(
            self._directory, account, system_data=self._system_data, root=self._system_root
        )
        programs = reachable(programs, account, system_programs=self._system_programs)
        base = make_base(place, account)
        kept = {name: environment[name] for name in ("PATH", "TMPDIR") if name in environment}
        kept |= {"LC_ALL": "C", "TZ": "UTC", "HOME": str(base)}
        if not (place.data / "PG_VERSION").is_file():
            _make_cluster(place, programs, account, kept, password)
        clear_left_over(place.data)
        return Launch(
            name="postgres",
            argv=(programs.program("postgres"), "-D", str(place.data), *self._options()),
            env=kept,
            cwd=base,
            user=account.user,
            group=account.group,
            stop=STOP_STEPS,
            stage=guard.ENGINE_STAGE,
        )

    async def is_ready(self) -> bool:
        """Whether it takes connections: it asks for our password and is not still recovering."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await _asks_for_password(self._port)
        except (OSError, TimeoutError):
            return False

    def _options(self) -> tuple[str, ...]:
        """What holds at every start, whatever postgresql.conf says."""
        fixed = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        return tuple(part for name, value in fixed.items() for part in ("-c", f"{name}={value}"))

    def _password(self) -> str:
        path = self._directory / "password"
        try:
            return path.read_text()
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, secrets.token_urlsafe(24).encode())
            return path.read_text()


def configuration(*, has_timescale: bool) -> str:
    """What is written at the end of a new cluster's postgresql.conf."""
    settings = dict(_SETTINGS) | {"shared_buffers": f"'{_shared_buffers_mb()}MB'"}
    if has_timescale:
        settings |= _TIMESCALE_SETTINGS
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return f"\n# Set by stockify for a small machine\n{lines}"


def clear_left_over(data: Path) -> None:
    """Let a server that a killed instance left behind leave, and remove its stale pid file.

    The caller holds the instance, so whatever still works on these data belongs to nobody. Raises
    ConfigError if it does not leave.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        pid = 0
    working = _working_on(data)
    if pid in working:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    # Without its postmaster every other process of a server leaves by itself.
    deadline = time.monotonic() + LEFT_OVER_S
    while _working_on(data):
        if time.monotonic() > deadline:
            raise ConfigError(f"a PostgreSQL still works on {data}: pids {_working_on(data)}")
        time.sleep(0.05)
    # A pid that some other process has by now would keep the server from starting.
    pid_file.unlink(missing_ok=True)


def _working_on(data: Path) -> list[int]:
    """Processes whose working directory is the cluster: the postmaster's and its children's is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd() == str(data.resolve()):
                found.append(process.pid)
    return found


def _make_cluster(
    place: Place, programs: Programs, account: Account, environment: Mapping[str, str], secret: str
) -> None:
    """A new cluster with our user and database, in place only when it is whole."""
    base = Path(place.base)
    half = base / "data.new"
    shutil.rmtree(half, ignore_errors=True)
    password_file = base / ".initdb-password"
    write_private(password_file, secret.encode())
    account.own(password_file)
    try:
        argv = (
            *(programs.program("initdb"), "-D", str(half), "--username", USER),
            *("--pwfile", str(password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--data-checksums"),
        )
        run_program(argv, account, environment, base)
    finally:
        password_file.unlink()
    with open(half / "postgresql.conf", "a") as file:
        file.write(configuration(has_timescale=programs.has_timescale))
    run_program(
        (programs.program("postgres"), "--single", "-D", str(half), "postgres"),
        account,
        environment,
        base,
        text=f"CREATE DATABASE {DATABASE}\n",
    )
    if place.data.exists():
        raise ConfigError(f"{place.data} is there but is no whole cluster; move it away")
    half.rename(place.data)


def _shared_buffers_mb() -> int:
    """An eighth of the memory, between 128 and 512 MB."""
    return int(min(512, max(128, psutil.virtual_memory().total // 8 // _MB)))


async def _asks_for_password(port: int) -> bool:
    """Send a start-up message; only a server that takes connections answers it with `R`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        words = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
        writer.write(struct.pack("!II", len(words) + 8, _PROTOCOL_3) + words)
        await writer.drain()
        return await reader.read(1) == b"R"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
