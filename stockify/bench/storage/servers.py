"""The servers that are loaded, set up as `stockify up` does it: plain PostgreSQL and TimescaleDB.

Each is empty, migrated, on a port of its own, and gone afterwards. TimescaleDB is that of this
machine, or Debian's in the chroot that the tests keep in the cache; else there is none. Never
loads anything.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from pipeline import config, migrations
from pipeline.config import Settings
from pipeline.queries import statement
from stockify import plan
from stockify.bench import embedded
from stockify.engines.postgres import STOP_STEPS, Postgres, configuration
from stockify.engines.postgres_place import system_programs
from stockify.processes import Launch

PLAIN, HYPERTABLE = "plain", "hypertable"
NO_TIMESCALE = "no TimescaleDB here: neither installed, nor in the chroot of the tests"
START_S = 30.0
_CHROOT_PROGRAMS = "/usr/lib/postgresql/17/bin"
_CHROOT_USER = "postgres:postgres"


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that the servers' user can enter."""
    with tempfile.TemporaryDirectory(prefix="stockify-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextlib.contextmanager
def running(directory: Path, wanted: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The URLs of the wanted kinds of servers that can be had here, migrated and empty."""
    with contextlib.ExitStack() as stack:
        urls = {}
        if PLAIN in wanted:
            urls[PLAIN] = stack.enter_context(_engine(directory, Path("/nowhere")))
        if HYPERTABLE in wanted:
            if system_programs() is not None:
                urls[HYPERTABLE] = stack.enter_context(_engine(directory, Path("/")))
            elif (root := _chroot()) is not None:
                urls[HYPERTABLE] = stack.enter_context(_in_chroot(directory, root))
        for url in urls.values():
            asyncio.run(migrations.migrate(url))
            # Storage workers keep nothing while another session does: nobody's turn shall have the
            # candles of somebody else's rows in it.
            keeper = stack.enter_context(psycopg.connect(url, autocommit=True))
            keeper.execute(statement("try_keeping"))
        yield urls


@contextlib.contextmanager
def _engine(directory: Path, system_root: Path) -> Iterator[str]:
    """The embedded engine: of the wheel, or what is installed under a root."""
    own = Path(tempfile.mkdtemp(dir=directory))
    own.chmod(0o755)
    engine = Postgres(
        own / "postgres",
        plan.Ports().free(),
        system_data=own / "data",
        system_root=system_root,
    )
    with embedded.running(
        engine.prepare(plan.environment(Settings(), "postgres")), own / "server.log"
    ):
        _wait_for(engine.url, own / "server.log")
        yield engine.url


def _chroot() -> Path | None:
    """Where the tests keep Debian's TimescaleDB; only root can use it."""
    root = config.cache_path() / "trixie-timescale"
    return root if os.geteuid() == 0 and (root / ".finished").exists() else None


@contextlib.contextmanager
def _in_chroot(directory: Path, root: Path) -> Iterator[str]:
    port, name = plan.Ports().free(), f"stockify-bench-{secrets.token_hex(6)}"
    inside = f"/var/lib/postgresql/{name}"
    data = root / inside.removeprefix("/")
    programs = ("chroot", f"--userspec={_CHROOT_USER}", str(root))
    own = plan.environment(Settings(), "postgres")
    environment = {"PATH": own["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    password = secrets.token_urlsafe(24)

    def run(*argv: str, text: str = "") -> None:
        done = subprocess.run(
            (*programs, *argv),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode:
            raise RuntimeError(f"{argv[0]} in the chroot: {done.stderr[-2_000:]}")

    try:
        run("sh", "-c", f"umask 077; cat >{inside}.password", text=password)
        run(
            *(f"{_CHROOT_PROGRAMS}/initdb", "-D", inside, "--username", "stockify"),
            *("--auth", "scram-sha-256", "--pwfile", f"{inside}.password"),
            *("--encoding", "UTF8", "--locale", "C", "--data-checksums"),
        )
        run("sh", "-c", f"cat >>{inside}/postgresql.conf", text=configuration(has_timescale=True))
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # a chroot need not have /dev/shm
        }
        told = (part for option in options.items() for part in ("-c", "=".join(option)))
        argv = (*programs, f"{_CHROOT_PROGRAMS}/postgres", "-D", inside)
        launch = Launch(name="timescale", argv=(*argv, *told), env=environment, stop=STOP_STEPS)
        url = f"postgresql://stockify:{password}@127.0.0.1:{port}/postgres"
        log = directory / "timescale.log"
        with embedded.running(launch, log):
            _wait_for(url, log)
            yield url
    finally:
        shutil.rmtree(data, ignore_errors=True)
        data.with_name(f"{name}.password").unlink(missing_ok=True)


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-3_000:]
                raise RuntimeError(f"Postgres did not come up: {error}\n{said}") from None
        time.sleep(0.02)
