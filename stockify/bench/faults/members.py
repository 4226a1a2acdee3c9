"""One process of the rig, started again at once when it ends unasked, as `stockify up` does."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stockify.processes import Launch
from stockify.services import describe_exit

TAIL_BYTES = 256 * 1024
LONGEST_WORDS = 300
STOP_S = 25.0  # above what a worker is given to drain


class Member:
    """A process by its launch; `crashes` are its ends by no signal of ours, in words."""

    def __init__(self, name: str, launch: Launch, log: Path) -> None:
        self.name = name
        self.launch = launch
        self.log = log
        self.crashes: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._is_up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError while it does not run."""
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.returncode is None

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it and keep it running; `environment` is added to that of its launch."""
        self._leaving = False
        more = environment or {}
        await self._spawn(more)
        self._keeper = asyncio.create_task(self._keep(more), name=f"keeper of {self.name}")

    async def stop(self) -> None:
        """Ask it to leave, and kill it when it does not."""
        self._leaving = True
        if self._process is not None and self._process.returncode is None:
            self.send(signal.SIGCONT)
            self.send(self.launch.stop[0].signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_S)
        await self.kill_for_good()

    async def kill_for_good(self) -> None:
        """Kill it and do not start it again."""
        self._leaving = True
        self.send(signal.SIGKILL)
        if self._keeper is not None:
            await self._keeper

    async def until_running(self) -> None:
        """Wait while it is being started again."""
        await self._is_up.wait()

    def kill(self) -> bool:
        """Kill -9; False where it was down already."""
        if not self.is_running:
            return False
        self.send(signal.SIGKILL)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it has ended."""
        if self.is_running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self, environment: Mapping[str, str]) -> None:
        while True:
            code = await self._process.wait() if self._process is not None else 0
            self._is_up.clear()
            if self._leaving:
                return
            if code != -signal.SIGKILL:
                self.crashes.append(f"{self.name}: {describe_exit(code)}, {_last_words(self.log)}")
            await self._spawn(environment)
            if self._leaving:  # told so while it was being started
                self.send(signal.SIGKILL)

    async def _spawn(self, environment: Mapping[str, str]) -> None:
        launch = self.launch
        with open(self.log, "ab") as output:  # noqa: ASYNC230 - a local file, at once
            self._process = await asyncio.create_subprocess_exec(
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**launch.env, **environment},
                cwd=launch.cwd,
                user=launch.user,
                group=launch.group,
                extra_groups=None if launch.user is None else (),
            )
        self._is_up.set()


class _Line(msgspec.Struct):
    """What a line of a worker's log says."""

    event: str = ""
    exception: str = ""


def _last_words(log: Path) -> str:
    """What went wrong by the end of a log, in a line."""
    with open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        last = file.read().strip().rpartition(b"\n")[2]
    try:
        line = msgspec.json.decode(last, type=_Line)
    except msgspec.MsgspecError:
        return last.decode(errors="replace")[:LONGEST_WORDS]
    told = [part.strip(" |") for part in line.exception.splitlines() if ": " in part]
    return f"{line.event} {told[-1] if told else ''}".strip()[:LONGEST_WORDS]
