import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from stockify import guard, processes
from stockify.logs import RotatingLog
from stockify.processes import Child, Guard, Launch, StopStep

Starter = Callable[..., Awaitable[Child]]
READY = "print('ready', flush=True); import time; time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Starter]:
    children: list[Child] = []
    (tmp_path / "marks").mkdir()

    async def begin(program: str, awaited: str = "ready", **options: object) -> Child:
        launch = Launch(
            name="child",
            argv=(sys.executable, "-I", "-S", "-c", program),
            env=dict(os.environ),
            **options,  # type: ignore[arg-type]
        )
        log = RotatingLog(tmp_path / "child.log")
        child = await processes.start(launch, log, tmp_path / "marks")
        children.append(child)
        await printed(tmp_path / "child.log", awaited)
        return child

    yield begin
    for child in children:
        if child.is_running:
            os.kill(child.pid, signal.SIGKILL)
        await child.exit
        await child.drained()


async def printed(path: Path, text: str) -> None:
    async with asyncio.timeout(5):
        while text not in content(path):
            await asyncio.sleep(0.01)


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_child_leads_a_session_of_its_own_and_holds_its_mark(
    begin: Starter, tmp_path: Path
) -> None:
    child = await begin(READY)
    assert os.getsid(child.pid) == child.pid
    assert [member.pid for member in guard.members(tmp_path / "marks")] == [child.pid]


async def test_what_a_child_prints_last_is_in_its_log(begin: Starter, tmp_path: Path) -> None:
    child = await begin("import sys; print('out'); print('err', file=sys.stderr)", awaited="err")
    assert await child.exit == 0
    await child.drained()
    assert sorted((tmp_path / "child.log").read_text().split()) == ["err", "out"]


async def test_child_that_leaves_when_asked_is_not_killed(begin: Starter) -> None:
    child = await begin(READY)
    assert await child.stop(asyncio.Event()) == -signal.SIGTERM


async def test_child_that_does_not_leave_gets_the_next_step(begin: Starter) -> None:
    steps = (StopStep(signal.SIGTERM, 0.1), StopStep(signal.SIGQUIT, 5.0))
    child = await begin(DEAF, stop=steps)
    assert await child.stop(asyncio.Event()) == -signal.SIGQUIT


async def test_child_that_never_leaves_is_killed(begin: Starter) -> None:
    child = await begin(DEAF, stop=(StopStep(signal.SIGTERM, 0.1),))
    assert await child.stop(asyncio.Event()) == -signal.SIGKILL


async def test_hurry_kills_a_worker_at_once(begin: Starter) -> None:
    child = await begin(DEAF, stop=(StopStep(signal.SIGTERM, 30.0),))
    hurry = asyncio.Event()
    began = time.monotonic()
    stopping = asyncio.create_task(child.stop(hurry))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    hurry.set()
    assert await stopping == -signal.SIGKILL
    assert time.monotonic() - began < 2


async def test_hurried_engine_still_gets_its_last_step(begin: Starter) -> None:
    steps = (StopStep(signal.SIGINT, 30.0), StopStep(signal.SIGTERM, 30.0))
    child = await begin(READY, stop=steps, stage=guard.ENGINE_STAGE)
    hurry = asyncio.Event()
    hurry.set()
    assert await child.stop(hurry) == -signal.SIGTERM


async def test_program_that_is_not_there_leaves_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    launch = Launch(name="none", argv=(str(tmp_path / "none"),), env={})
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        await processes.start(launch, RotatingLog(tmp_path / "none.log"), tmp_path / "marks")
    assert len(os.listdir("/proc/self/fd")) == before


async def test_cancelled_step_leaves_no_process(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    log = RotatingLog(tmp_path / "step.log")
    launch = Launch(name="step", argv=(sys.executable, "-c", READY), env=dict(os.environ))
    step = asyncio.create_task(processes.run_to_end(launch, log, marks, asyncio.Event()))
    await printed(log.path, "ready")
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert guard.members(marks) == []
    log.close()


async def test_guard_that_died_is_seen_and_can_be_started_again(tmp_path: Path) -> None:
    watch = Guard(tmp_path, tmp_path / "guard.log")
    await watch.start()
    first = watch.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(5):
        while watch.pid is not None:
            await asyncio.sleep(0.01)
    await watch.start()
    assert watch.pid not in (None, first)
    await watch.stop()
    assert watch.pid is None
