"""A file system of a few megabytes, to be filled; and a database that lies on it, log excepted."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PostgresServer, open_directory

SIZE_MB = 64
_TEMPLATE = "stockify_template"
_MOUNT, _UMOUNT = "/bin/mount", "/bin/umount"


class SmallDisk:
    """A mounted file system; `fill` leaves no byte of it, `free` gives them back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self) -> None:
        """Take all there is left."""
        with open(self._filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(65_536)):
                pass
        assert os.statvfs(self.directory).f_bavail == 0

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


@contextlib.contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Mount one. Skips the test where that is refused."""
    if os.geteuid() != 0 or not Path(_MOUNT).exists():
        pytest.skip("only root can mount a small file system")
    with open_directory() as directory:
        mounted = directory / "small"
        mounted.mkdir()
        done = subprocess.run(
            (_MOUNT, *("-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=755", "tmpfs"), str(mounted)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no small file system: {done.stderr.strip()}")
        try:
            yield SmallDisk(mounted)
        finally:
            subprocess.run((_UMOUNT, "-l", str(mounted)), check=True)


@contextlib.contextmanager
def database_on(server: PostgresServer, disk: SmallDisk) -> Iterator[str]:
    """The URL of a migrated database whose tables lie on that disk."""
    name = f"test_{secrets.token_hex(6)}"
    place = disk.directory / "tables"
    place.mkdir(mode=0o700)
    if server.launch.user is not None:
        shutil.chown(place, server.launch.user, server.launch.group)
    _execute(server, f"CREATE TABLESPACE {name} LOCATION '{place}'")
    try:
        _execute(server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} TABLESPACE {name}")
        try:
            yield server.database_url(name)
        finally:
            _execute(server, f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        _execute(server, f"DROP TABLESPACE {name}")


def _execute(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True, connect_timeout=20) as connection:
        connection.execute(statement.encode())
