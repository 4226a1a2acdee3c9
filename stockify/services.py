"""One supervised process: kept running with back-off, asked how it is, stopped when told."""

import asyncio
import contextlib
import time
from pathlib import Path

from stockify.health import Health, Probe, Rates
from stockify.instance import ProcessStatus
from stockify.logs import RotatingLog
from stockify.processes import Child, Launch, start

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
STEADY_S = 60.0  # after running this long a death counts as the first again
LOOP_DEATHS = 3  # quick deaths in a row that are called a crash loop
SILENT_S = 10.0  # without an answer this long, a process that answered before is called silent


class Service:
    """A process that is started again whenever it ends unasked: at once, then after 1 … 30 s."""

    def __init__(
        self,
        launch: Launch,
        probe: Probe,
        logs: Path,
        marks: Path,
        metrics_port: int | None = None,
    ) -> None:
        self.launch = launch
        self.restarts = 0
        self._probe = probe
        self._log = RotatingLog(logs / f"{launch.name}.log")
        self._marks = marks
        self._metrics_port = metrics_port
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._deaths_in_a_row = 0
        self._trouble = ""
        self._health: Health | None = None
        self._answered_at = 0.0
        self._rates = Rates()

    @property
    def name(self) -> str:
        """The process's name."""
        return self.launch.name

    @property
    def is_ready(self) -> bool:
        """Whether it runs and says so itself."""
        return self.status().state == "ready"

    @property
    def is_up(self) -> bool:
        """Whether it runs and has got past its start, be it degraded."""
        return self.status().state in ("ready", "degraded")

    @property
    def has_failed(self) -> bool:
        """Whether it ended unasked since it was last well."""
        return self._deaths_in_a_row > 0

    async def start(self) -> None:
        """Start it and keep it running. Raises OSError where even the first start fails."""
        self._child = await start(self.launch, self._log, self._marks)
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def stop(self, hurry: asyncio.Event) -> int | None:
        """Stop it for good; gives its return code, None where it was not running."""
        self._stopping.set()
        if self._keeper is not None:
            await self._keeper
        code = None
        if self._child is not None and self._child.is_running:
            code = await self._child.stop(hurry)
        self._log.close()
        return code

    async def look(self) -> None:
        """Ask it how it is."""
        if self._child is None or not self._child.is_running:
            return
        health = await self._probe()
        if health is None:
            return
        self._health, self._answered_at = health, time.monotonic()
        self._rates.add(health.counters)
        if time.monotonic() - self._child.started > STEADY_S:
            self._deaths_in_a_row = 0

    def status(self) -> ProcessStatus:
        """How it is, by the last look."""
        child = self._child
        if child is None or not child.is_running:
            state = "stopped" if self._stopping.is_set() or child is None else "restarting"
            if self._deaths_in_a_row >= LOOP_DEATHS and not self._stopping.is_set():
                state = "crash-loop"
            return ProcessStatus(state=state, reason=self._trouble, restarts=self.restarts)
        state, reason = self._state_of_running()
        return ProcessStatus(
            state=state,
            pid=child.pid,
            reason=reason,
            uptime_s=round(time.monotonic() - child.started, 1),
            restarts=self.restarts,
            metrics_port=self._metrics_port,
            rates=self._rates.per_second(),
            gauges=self._health.gauges if self._health else {},
        )

    def _state_of_running(self) -> tuple[str, str]:
        if self._stopping.is_set():
            return "draining", ""
        if self._health is None:
            return "starting", self._trouble
        quiet_s = time.monotonic() - self._answered_at
        if quiet_s > SILENT_S:
            return "silent", f"no answer for {quiet_s:.0f} s"
        return self._health.state, self._health.reason

    async def _keep(self) -> None:
        """Start it again whenever it ends; returns once stopping, whatever it is doing then."""
        while self._child is not None:
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([self._child.exit, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._stopping.is_set():
                return
            await self._child.drained()
            await self._pause(self._after_death(self._child.exit.result()))
            while not self._stopping.is_set():
                try:
                    self._child = await start(self.launch, self._log, self._marks)
                    break
                except OSError as error:
                    self._trouble = f"cannot be started: {error.strerror}"
                    await self._pause(MAX_DELAY_S)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _after_death(self, code: int) -> float:
        """Note the death; gives the seconds to wait before the next start."""
        self.restarts += 1
        self._deaths_in_a_row += 1
        self._health = None
        self._rates = Rates()
        delay_s = restart_delay_s(self._deaths_in_a_row)
        self._trouble = f"{describe_exit(code)}, death {self._deaths_in_a_row} in a row"
        self._log.write(f"supervisor: {self.name} ended: {self._trouble}\n".encode())
        return delay_s


def restart_delay_s(deaths_in_a_row: int) -> float:
    """Seconds before the next start: none after the first death, then 1, 2, 4 … 30."""
    if deaths_in_a_row <= 1:
        return 0.0
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** (deaths_in_a_row - 2))


def describe_exit(code: int) -> str:
    """A return code in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit {code}"
