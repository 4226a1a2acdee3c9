"""All processes of an instance together: start one, run a step to its end, wait, look, drain."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from pipeline.errors import StockifyError
from stockify import guard, log_reader
from stockify.display import Display
from stockify.health import Probe
from stockify.instance import ProcessStatus, StateDirectory
from stockify.logs import RotatingLog
from stockify.processes import Guard, Launch, run_to_end
from stockify.services import Service

POLL_S = 0.05
HINT_LINES = 5


class StartFailed(StockifyError):
    """The instance could not be brought up; the message says what, and where to read more."""


class Crew:
    """The processes under one state directory. `hurry` set, stopping is no longer patient."""

    def __init__(self, state: StateDirectory, display: Display) -> None:
        self.hurry = asyncio.Event()
        self._state = state
        self._display = display
        self._services: dict[str, Service] = {}
        self._guard = Guard(state.marks, state.logs / "guard.log")

    async def take_over(self) -> None:
        """End what a crashed run left, then put a guard over this one."""
        left = await asyncio.to_thread(guard.end_all, self._state.marks_of_all_runs)
        if left:
            self._display.say(f"! ended {left} processes that an earlier run left")
        shutil.rmtree(self._state.marks_of_all_runs, ignore_errors=True)
        self._state.marks.mkdir(mode=0o700, parents=True)
        await self._guard.start()

    async def start(self, launch: Launch, probe: Probe, metrics_port: int | None = None) -> None:
        """Start a process that is to run on, and keep it running."""
        service = Service(launch, probe, self._state.logs, self._state.marks, metrics_port)
        self._services[launch.name] = service
        try:
            await service.start()
        except OSError as error:
            raise StartFailed(f"{launch.name} cannot be started: {error}") from error

    async def run_step(self, launch: Launch) -> None:
        """Run a process to its end. Raises StartFailed unless it ends with 0."""
        log = RotatingLog(self._state.logs / f"{launch.name}.log")
        try:
            code = await run_to_end(launch, log, self._state.marks, self.hurry)
        except OSError as error:
            raise StartFailed(f"{launch.name} cannot be started: {error}") from error
        finally:
            log.close()
        if code:
            raise StartFailed(f"{launch.name} ended with {code}{self._last_words(launch.name)}")

    async def until_ready(self, name: str, seconds: float) -> None:
        """Wait for a process. Raises StartFailed where it ends or is not ready in time."""
        service = self._services[name]

        async def is_ready() -> bool:
            await service.look()
            if service.has_failed:
                reason = service.status().reason
                raise StartFailed(f"{name}: {reason}{self._last_words(name)}")
            return service.is_ready

        if not await holds_within(is_ready, seconds):
            raise StartFailed(f"{name} is not up after {seconds:g} s{self._last_words(name)}")

    async def look(self) -> None:
        """Ask every process how it is, all at once; start the guard again if it died."""
        if self._guard.pid is None:
            await self._guard.start()
        await asyncio.gather(*(service.look() for service in self._services.values()))

    def not_up(self) -> list[str]:
        """Names of the processes that have not got past their start, or are gone."""
        return [name for name, service in self._services.items() if not service.is_up]

    def statuses(self) -> dict[str, ProcessStatus]:
        """Every process, by the last look."""
        return {name: service.status() for name, service in self._services.items()}

    async def drain(self, order: Iterable[Iterable[str]]) -> None:
        """Stop everything, one stage after the other; what a stage leaves the guard ends."""
        for stage in order:
            present = [self._services[name] for name in stage if name in self._services]
            if present:
                with self._display.step(f"stop {', '.join(each.name for each in present)}"):
                    await asyncio.gather(*(self._stop(service) for service in present))
        await self._guard.stop()
        shutil.rmtree(self._state.marks_of_all_runs, ignore_errors=True)

    async def _stop(self, service: Service) -> None:
        try:
            code = await service.stop(self.hurry)
        except TimeoutError:
            self._display.say(f"! {service.name} cannot be killed; left behind")
            return
        if code:
            self._display.say(f"! {service.name} did not end cleanly: {code}")

    def _last_words(self, name: str) -> str:
        path = self._state.logs / f"{name}.log"
        lines = log_reader.last_lines({name: path}, HINT_LINES)
        words = "".join(f"\n    {line.event}" for line in lines)
        return f"; see {path}{words}"


async def holds_within(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Wait until it holds; False if it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if await holds():
            return True
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure comes out as itself, after the others were cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
