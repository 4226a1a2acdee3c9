"""Starting and stopping child processes: sessions of their own, marks, output into log files.

A child is never in the terminal's process group, so a Ctrl-C reaches the supervisor alone. This
room knows nothing of what the children do; what to start is a `Launch`, made elsewhere.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stockify import guard
from stockify.logs import RotatingLog

READ_BYTES = 64 * 1024
KILL_WAIT_S = 5.0  # a killed process that stays this long is stuck in the kernel
GUARD_S = 15.0  # it has ended all that is left within ten, see there
HURRY_S = 3.0  # what an engine gets when the user hurries; workers get nothing


class StopStep(msgspec.Struct, frozen=True):
    """A signal and how long a child may take to leave after it."""

    signal: signal.Signals
    seconds: float


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to start and how to end it.

    `env` is the whole environment. `user` and `group` are ids to change to, where root starts a
    server that refuses root. `stop` is tried step by step before SIGKILL. `stage` orders the end
    when the supervisor is gone: `guard.WORKER_STAGE` before `guard.ENGINE_STAGE`.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None = None
    user: int | None = None
    group: int | None = None
    stop: tuple[StopStep, ...] = (StopStep(signal.SIGTERM, 10.0),)
    stage: int = guard.WORKER_STAGE


class Child:
    """One started process; `exit` is done, with the return code, once it has ended."""

    def __init__(
        self, launch: Launch, process: asyncio.subprocess.Process, pump: asyncio.Task[None]
    ) -> None:
        self.launch = launch
        self.started = time.monotonic()
        self._process = process
        self._pump = pump
        self.exit = asyncio.create_task(process.wait(), name=f"exit of {launch.name}")

    @property
    def pid(self) -> int:
        """Its process id, which is also its session's and group's."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.exit.done()

    async def stop(self, hurry: asyncio.Event) -> int:
        """Ask it to leave, step by step, then kill it; gives its return code, negative a signal.

        Once `hurry` is set a worker is killed at once and an engine gets its last step, briefly.
        """
        for step in self.launch.stop:
            if hurry.is_set() or await self._leaves_after(step, hurry):
                break
        if self.is_running and self.launch.stage == guard.ENGINE_STAGE:
            await self._leaves_after(
                StopStep(self.launch.stop[-1].signal, HURRY_S), asyncio.Event()
            )
        if self.is_running:
            self._send_to_group(signal.SIGKILL)
        code = await asyncio.wait_for(asyncio.shield(self.exit), KILL_WAIT_S)
        await self.drained()
        return code

    async def drained(self) -> None:
        """Wait until what it printed last is in its log; bounded, for a grandchild may hold on."""
        await asyncio.wait([self._pump], timeout=1.0)
        self._pump.cancel()

    async def _leaves_after(self, step: StopStep, hurry: asyncio.Event) -> bool:
        if not self.is_running:
            return True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(step.signal)
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            [self.exit, hurried], timeout=step.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        return not self.is_running

    def _send_to_group(self, asked: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, asked)


async def start(launch: Launch, log: RotatingLog, marks: Path) -> Child:
    """Start a child; what it prints goes to `log`. Raises OSError where it cannot be started."""
    mark = guard.Mark(launch.stage, launch.name, tuple(step.signal for step in launch.stop))
    mark_fd = os.open(marks / mark.file_name, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    read_fd, write_fd = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
            env=dict(launch.env),
            cwd=launch.cwd,
            start_new_session=True,
            # With the reading end in its own hands too, a child whose supervisor was killed can
            # still print, and so drains instead of failing at its next line.
            pass_fds=(mark_fd, read_fd),
            user=launch.user,
            group=launch.group,
            extra_groups=None if launch.user is None else (),
        )
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(mark_fd)
        os.close(write_fd)
    return Child(launch, process, asyncio.create_task(_pump(read_fd, log)))


async def run_to_end(launch: Launch, log: RotatingLog, marks: Path, hurry: asyncio.Event) -> int:
    """Start a child that ends by itself and give its return code; cancelled, it is stopped."""
    child = await start(launch, log, marks)
    try:
        code = await asyncio.shield(child.exit)
    finally:
        await child.stop(hurry)
    return code


class Guard:
    """The running guard of this supervisor; closing the pipe, by death too, sets it to work."""

    def __init__(self, marks: Path, log_path: Path) -> None:
        self._marks = marks
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self._pipe = -1

    async def start(self) -> None:
        """Start it, again too if it has died."""
        self._close_pipe()
        read_fd, self._pipe = os.pipe()
        log_fd = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", guard.__file__, str(self._marks)),
                stdin=read_fd,
                stdout=log_fd,
                stderr=log_fd,
                cwd="/",
                env={},
                start_new_session=True,
            )
        finally:
            os.close(read_fd)
            os.close(log_fd)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def stop(self) -> None:
        """Let it end; it looks once more for what is left."""
        self._close_pipe()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), GUARD_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


async def _pump(read_fd: int, log: RotatingLog) -> None:
    reader = asyncio.StreamReader(limit=READ_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(READ_BYTES):
            log.write(chunk)
    finally:
        transport.close()
