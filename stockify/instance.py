"""An instance's place on disk: layout, passwords, who holds it, and what runs in it.

Everything here is for its owner alone (files 0600), whatever the umask. Nothing here starts or
stops a process.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from pipeline import attached
from pipeline.attached import Holder, Running
from pipeline.errors import ConfigError


class Secrets(msgspec.Struct, frozen=True):
    """What is generated once and kept for every later start."""

    jwt_secret: str
    redis_password: str


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the supervisor sees it; `rates` are per second of the last interval."""

    state: str
    pid: int | None = None
    reason: str = ""
    uptime_s: float = 0.0
    restarts: int = 0
    metrics_port: int | None = None
    rates: dict[str, float] = {}
    gauges: dict[str, float] = {}


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole instance; URLs without passwords. `at` is when it was written, RFC 3339."""

    state: str
    at: str
    pid: int
    since: str
    gateway: str
    redis: str
    database: str
    processes: dict[str, ProcessStatus]


class AlreadyHeld(ConfigError):
    """Another supervisor holds the state directory."""

    def __init__(self, state: Path, holder: Holder | None) -> None:
        if holder is None:
            who = "a supervisor that is just starting"
        else:
            where = f", page at {holder.page}" if holder.page else ""
            who = f"pid {holder.pid}, since {holder.since}{where}"
        super().__init__(f"{state} is held by {who}")
        self.holder = holder


class StateDirectory:
    """The layout of an instance's state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.marks_of_all_runs = path / "run" / "marks"
        # Of this run alone, so that the guard of a crashed one cannot take our children for its.
        self.marks = self.marks_of_all_runs / f"{os.getpid()}-{time.time_ns()}"
        self._lock = path / "lock"
        self._holder = path / attached.HOLDER
        self._secrets = path / "secrets.json"
        self._running = path / attached.RUNNING
        self._status = path / "run" / "status.json"

    def prepare(self) -> None:
        """Make the directories. Raises ConfigError where that is not possible."""
        try:
            self.path.mkdir(mode=_state_mode(), parents=True, exist_ok=True)
            for directory in (self.logs, self.path / "run", self.marks_of_all_runs):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"state directory {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the instance. Raises AlreadyHeld where a living supervisor does.

        The system drops the lock with its holder, so a crash leaves no obstacle.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyHeld(self.path, self.holder()) from None
            for left in (self._running, self._status):
                left.unlink(missing_ok=True)
            self.write_holder(holder)
            yield
            for own in (self._holder, self._running, self._status):
                own.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def write_holder(self, holder: Holder) -> None:
        """Say who holds the instance."""
        _write(self._holder, holder)

    def holder(self) -> Holder | None:
        """The living supervisor that holds the instance; None where there is none."""
        return attached.holder(self.path)

    def secrets(self) -> Secrets | None:
        """The generated secrets; None before the first start."""
        return attached.read(self._secrets, Secrets)

    def ensure_secrets(self) -> Secrets:
        """The generated secrets, made on the first call."""
        known = self.secrets()
        if known is None:
            known = Secrets(secrets.token_urlsafe(48), secrets.token_urlsafe(24))
            _write(self._secrets, known)
        return known

    def write_running(self, running: Running) -> None:
        """Leave what consumers need."""
        _write(self._running, running)

    def running(self) -> Running | None:
        """What the running instance left for consumers; None where none runs."""
        return attached.running(self.path)

    def write_status(self, status: Status) -> None:
        """Leave the present state."""
        _write(self._status, status)

    def status(self) -> Status | None:
        """The last state the running instance left; None where none runs or it is too young."""
        return attached.read(self._status, Status) if self.holder() else None

    def log_paths(self) -> dict[str, Path]:
        """The live log file of every process that has one, by process name."""
        return {path.stem: path for path in sorted(self.logs.glob("*.log"))}


def this_process(since: str) -> Holder:
    """This process as a holder."""
    return Holder(os.getpid(), psutil.Process().create_time(), since)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file, for its owner's eyes only, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def _state_mode() -> int:
    """Root's Postgres runs as another user: it may pass through to its data, and read nothing."""
    return 0o711 if os.geteuid() == 0 else 0o700


def _write(path: Path, value: msgspec.Struct) -> None:
    write_private(path, msgspec.json.encode(value))
