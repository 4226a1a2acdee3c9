"""Finds the instance that runs on this machine, for processes that it did not start.

A running instance leaves two files in its state directory: who holds it, and the addresses that
others need. Only read here; `stockify.instance` writes them.
"""

from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from pipeline import config
from pipeline.config import Settings

HOLDER = Path("run/holder.json")  # below the state directory
RUNNING = Path("run/instance.json")
SAME_PROCESS_S = 1.0  # two readings of one process's start time differ by less
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class Holder(msgspec.Struct, frozen=True):
    """Who runs the instance: a supervisor's pid, when its process was made, and where its page is.

    The start time keeps a later process with the same pid from being taken for it.
    """

    pid: int
    created: float
    since: str
    page: str = ""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer of the running instance needs; `environment` has the full URLs."""

    gateway: str
    environment: dict[str, str]


def attached_settings() -> Settings:
    """This process's settings, with the running instance's for what the environment leaves open.

    Without a running instance they are the environment's alone. Raises ConfigError.
    """
    settings = config.load()
    found = running(settings.state_path())
    return config.load(found.environment) if found else settings


def running(state: Path) -> Running | None:
    """What the instance that runs in that state directory left for others; None where none runs."""
    return read(state / RUNNING, Running) if holder(state) else None


def holder(state: Path) -> Holder | None:
    """The living supervisor that holds the state directory; None where there is none."""
    found = read(state / HOLDER, Holder)
    return found if found is not None and _is_alive(found) else None


def read(path: Path, kind: type[_Struct]) -> _Struct | None:
    """A file of the instance; None where it is not there or not what it should be."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _is_alive(holder: Holder) -> bool:
    try:
        created = psutil.Process(holder.pid).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(created - holder.created) < SAME_PROCESS_S
