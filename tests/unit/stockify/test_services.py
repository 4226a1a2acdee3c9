import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from stockify import services
from stockify.health import Health
from stockify.processes import Launch, StopStep
from stockify.services import Service

WAIT = "import time; time.sleep(60)"


@pytest.fixture
async def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Service]]:
    monkeypatch.setattr(services, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(services, "MAX_DELAY_S", 0.02)
    made: list[Service] = []
    (tmp_path / "marks").mkdir()

    async def well() -> Health | None:
        return Health()

    def make(*arguments: str, probe: services.Probe = well) -> Service:
        launch = Launch(
            name="worker",
            argv=arguments,
            env=dict(os.environ),
            stop=(StopStep(signal.SIGTERM, 5.0),),
        )
        service = Service(launch, probe, tmp_path, tmp_path / "marks")
        made.append(service)
        return service

    yield make
    for service in made:
        await service.stop(asyncio.Event())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("deaths", "delay_s"), [(1, 0), (2, 1), (3, 2), (4, 4), (6, 16), (7, 30), (100, 30)]
)
def test_first_restart_is_at_once_and_later_ones_wait(deaths: int, delay_s: float) -> None:
    assert services.restart_delay_s(deaths) == delay_s


@pytest.mark.parametrize(("code", "words"), [(1, "exit 1"), (-9, "killed by signal 9")])
def test_exit_is_told_in_words(code: int, words: str) -> None:
    assert services.describe_exit(code) == words


async def test_killed_process_is_started_again(make: Callable[..., Service]) -> None:
    service = make(sys.executable, "-I", "-S", "-c", WAIT)
    await service.start()
    first = service.status().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: service.status().pid not in (None, first))
    status = service.status()
    assert status.restarts == 1
    assert "killed by signal 9" in status.reason


async def test_crash_loop_is_named_and_not_given_up(make: Callable[..., Service]) -> None:
    service = make(sys.executable, "-I", "-S", "-c", "raise SystemExit(7)")
    await service.start()
    await until(lambda: service.status().state == "crash-loop")
    assert "exit 7" in service.status().reason
    seen = service.restarts
    await until(lambda: service.restarts > seen)


async def test_stopped_process_is_not_started_again(
    make: Callable[..., Service], tmp_path: Path
) -> None:
    service = make(sys.executable, "-I", "-S", "-c", WAIT)
    await service.start()
    assert await service.stop(asyncio.Event()) == -signal.SIGTERM
    status = service.status()
    assert (status.state, status.pid, status.restarts) == ("stopped", None, 0)


async def test_stop_in_the_middle_of_a_crash_loop_ends_it(make: Callable[..., Service]) -> None:
    service = make(sys.executable, "-I", "-S", "-c", "raise SystemExit(1)")
    await service.start()
    await until(lambda: service.restarts >= 2)
    await service.stop(asyncio.Event())
    seen = service.restarts
    await asyncio.sleep(0.1)
    assert service.restarts == seen
    assert service.status().state == "stopped"


async def test_process_is_starting_until_it_answers(make: Callable[..., Service]) -> None:
    answers: list[Health | None] = [None, Health(state="degraded", reason="no feed")]

    async def probe() -> Health | None:
        return answers.pop(0)

    service = make(sys.executable, "-I", "-S", "-c", WAIT, probe=probe)
    await service.start()
    await service.look()
    assert service.status().state == "starting"
    assert not service.is_up
    await service.look()
    assert (service.status().state, service.status().reason) == ("degraded", "no feed")
    assert service.is_up


async def test_process_that_stopped_answering_is_called_silent(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "SILENT_S", 0.0)
    service = make(sys.executable, "-I", "-S", "-c", WAIT)
    await service.start()
    await service.look()
    await until(lambda: service.status().state == "silent")
    assert not service.is_up
