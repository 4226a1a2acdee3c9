"""Reading the children's log files: the last lines of several, merged by time, or as they come.

Our own processes print one JSON event a line; the engines print their own forms, whose time and
level are read where they can be. A line without a time belongs to the one before it (a traceback).
Passwords inside URLs are hidden.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

TAIL_BYTES = 1024 * 1024  # of each file; a bound, not a promise, where lines are very long
FOLLOW_S = 0.2
LEVELS = ("debug", "info", "warning", "error")

_ISO = re.compile(r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d* ?(?:Z|UTC|GMT)?\s*(.*)")
_VALKEY = re.compile(r"^\d+:[A-Z] (\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d+) ([.*#-]) (.*)")
_VALKEY_LEVELS = {".": "debug", "-": "info", "*": "info", "#": "warning"}
_SEVERE = re.compile(r"\b(ERROR|FATAL|PANIC|CRITICAL|Traceback|guard:)\b")
_WORRYING = re.compile(r"\b(WARNING|Warning)\b")
_PASSWORD = re.compile(r"(\w+://[^\s:/@]*:)[^\s@/]+@")


class Line(msgspec.Struct, frozen=True):
    """One log line: when (seconds since 1970), whose, how grave, what."""

    at: float
    source: str
    level: str
    event: str
    fields: dict[str, Any]


class LineParser:
    """Turns the lines of one source into `Line`s, in order; keeps what the next inherits."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0.0
        self._level = "info"

    def parse(self, text: str) -> Line:
        """The line of that text."""
        text = _PASSWORD.sub(r"\1***@", text.rstrip("\r\n"))
        event = _json_event(text)
        if event is not None:
            return self._from_json(event)
        found = _VALKEY.match(text)
        if found:
            self._at = _seconds(found[1], "%d %b %Y %H:%M:%S.%f")
            self._level, text = _VALKEY_LEVELS[found[2]], found[3]
        else:
            found = _ISO.match(text)
            if found:
                form = "%Y-%m-%d %H:%M:%S.%f" if "." in found[2] else "%Y-%m-%d %H:%M:%S"
                self._at, text = _seconds(f"{found[1]} {found[2]}", form), found[3]
                self._level = "info"
        if _SEVERE.search(text):
            self._level = "error"
        elif _WORRYING.search(text):
            self._level = "warning"
        return Line(self._at, self._source, self._level, text, {})

    def _from_json(self, event: dict[str, Any]) -> Line:
        at = event.pop("at", None)
        if isinstance(at, str):
            self._at = datetime.fromisoformat(at).timestamp()
        self._level = str(event.pop("level", "info"))
        event.pop("service", None)
        return Line(self._at, self._source, self._level, str(event.pop("event", "")), event)


def last_lines(sources: Mapping[str, Path], count: int, level: str = "debug") -> list[Line]:
    """The `count` newest lines of all sources together that are at least as grave as `level`."""
    lines: list[Line] = []
    for source, path in sources.items():
        parser = LineParser(source)
        own = [parser.parse(text) for text in _tail(path)]
        lines += [line for line in own if is_at_least(line, level)][-count:]
    lines.sort(key=lambda line: line.at)  # stable: a traceback stays in its order
    return lines[-count:] if count else []


def follow(sources: Mapping[str, Path], level: str = "debug") -> Iterator[list[Line]]:
    """What is added to the sources from now on, for ever, a list at a time; survives rotation."""
    tails = [_Tail(source, path) for source, path in sources.items()]
    while True:
        lines = [line for tail in tails for line in tail.added() if is_at_least(line, level)]
        yield sorted(lines, key=lambda line: line.at)
        if not lines:
            time.sleep(FOLLOW_S)


def is_at_least(line: Line, level: str) -> bool:
    """Whether a line is as grave as `level` or more; an unknown level counts as grave."""
    rank = LEVELS.index(line.level) if line.level in LEVELS else len(LEVELS)
    return rank >= LEVELS.index(level)


class _Tail:
    """A file read from its present end on; follows it through rotations."""

    def __init__(self, source: str, path: Path) -> None:
        self._parser = LineParser(source)
        self._path = path
        self._inode, self._offset = _inode_and_size(path)
        self._partial = ""

    def added(self) -> Iterator[Line]:
        inode, size = _inode_and_size(self._path)
        if inode != self._inode:
            older = self._path.with_name(f"{self._path.name}.1")
            if self._inode and _inode_and_size(older)[0] == self._inode:
                yield from self._lines(older)
            self._inode, self._offset = inode, 0
        if size > self._offset:
            yield from self._lines(self._path)

    def _lines(self, path: Path) -> Iterator[Line]:
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *whole, self._partial = (self._partial + data.decode(errors="replace")).split("\n")
        for text in whole:
            yield self._parser.parse(text)


def _tail(path: Path) -> Iterable[str]:
    texts: list[str] = []
    for each in (path.with_name(f"{path.name}.1"), path):
        try:
            with each.open("rb") as file:
                start = max(0, each.stat().st_size - TAIL_BYTES)
                file.seek(start)
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        texts += lines[1:] if start else lines
    return texts


def _inode_and_size(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


def _json_event(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None


def _seconds(text: str, form: str) -> float:
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
