"""A primary of the wheel's PostgreSQL and a streaming standby of it, each of whose commits waits
for the other."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from stockify.processes import Launch
from tests.support.postgres import PostgresServer, open_directory, wheel_engine
from tests.support.servers import free_port

_FAST = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")
COPY_S = 60.0


@contextlib.contextmanager
def running_pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary in which databases can be made, and its synchronous standby."""
    with open_directory() as directory:
        engine = wheel_engine(directory)
        launch = engine.prepare(os.environ)
        primary = PostgresServer(
            _changed(launch, (*launch.argv, *_FAST)), engine.url, directory / "primary.log"
        )
        primary.start()
        try:
            primary.make_template()
            standby = _copied(primary, directory)
            standby.start()
            try:
                with psycopg.connect(primary.url, autocommit=True) as connection:
                    connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                    connection.execute("SELECT pg_reload_conf()")
                yield primary, standby
            finally:
                primary.stop()  # before the one that its commits wait for
                standby.stop()
        finally:
            primary.stop()


def either(primary: PostgresServer, standby: PostgresServer, database_url: str) -> str:
    """A URL of that database on whichever of both takes writes."""
    parts = urlsplit(database_url)
    account = parts.netloc.rpartition("@")[0]
    hosts = ",".join(f"127.0.0.1:{urlsplit(one.url).port}" for one in (primary, standby))
    return f"postgresql://{account}@{hosts}{parts.path}?target_session_attrs=read-write"


def promote(standby: PostgresServer) -> None:
    """Let the standby be the primary; return when it is."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_promote()").fetchone()
    assert row == (True,)


def _copied(primary: PostgresServer, directory: Path) -> PostgresServer:
    launch = primary.launch
    assert launch.cwd is not None
    data, port = Path(launch.cwd) / "standby", free_port()
    subprocess.run(
        (
            str(Path(launch.argv[0]).with_name("pg_basebackup")),
            *("-D", str(data), "-d", primary.url, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
        ),
        check=True,
        capture_output=True,
        timeout=COPY_S,
        env=dict(launch.env),
        cwd=launch.cwd,
        user=launch.user,
        group=launch.group,
        extra_groups=None if launch.user is None else (),
    )
    argv = list(launch.argv)
    argv[argv.index("-D") + 1] = str(data)
    own = urlsplit(primary.url)
    argv[argv.index(f"port={own.port}")] = f"port={port}"
    url = primary.url.replace(f":{own.port}/", f":{port}/")
    return PostgresServer(_changed(launch, tuple(argv)), url, directory / "standby.log")


def _changed(launch: Launch, argv: tuple[str, ...]) -> Launch:
    return Launch(
        name=launch.name,
        argv=argv,
        env=launch.env,
        cwd=launch.cwd,
        user=launch.user,
        group=launch.group,
        stop=launch.stop,
        stage=launch.stage,
    )
