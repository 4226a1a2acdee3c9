"""A test that hangs fails in time, and says where every thread and every task of it stood.

Three steps, each for what the one before cannot end: pytest-timeout's alarm raises in the test
(`timeout` of pyproject.toml, more for whole instances); after a failure what tidies up has a limit
of its own; and faulthandler's thread, which needs no Python to run, prints the stacks and ends the
process (`faulthandler_timeout`). What makes a test hang by the way it was started is taken back
too: signals that a shell's `&` or nohup has ignored, and the diffs of a continuous integration.
Loaded as a plugin.
"""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest

INSTANCE_S = 300.0  # one test of a whole instance: START_S is 120 s, and some start it again
TIDY_S = 150.0  # an instance, and every engine of a session, stop within this
_STDERR = pytest.StashKey[int]()
# Under any of these pytest explains a failed comparison by the whole difference line by line, in
# cubic time: for two lists of three thousand that is hours, in which nothing says what failed.
_WHOLE_DIFFS = ("CI", "BUILD_NUMBER")
# Inherited by every child, also those whose end by just that signal is what a test is about.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(2)  # before it is captured
    for number, default in _DEFAULTS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "acceptance" in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(INSTANCE_S))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    hidden = {name: os.environ.pop(name) for name in _WHOLE_DIFFS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(pytest.fail.Exception):
        report.sections.append(("Tasks that wait", waiting_tasks()))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """A test that failed has let both alarms go, and what hung it may hang its fixtures too."""
    _end_after(TIDY_S, item.config)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """From here the process has to come to its end: a thread left behind must not hold it."""
    _end_after(TIDY_S, session.config)


def waiting_tasks() -> str:
    """Where each unfinished task of this process stands, outermost call first."""
    told = []
    for task in gc.get_objects():
        if isinstance(task, asyncio.Task) and not task.done():
            lines = [f"{task.get_name()}", *(f"  {line}" for line in _calls(task.get_coro()))]
            told.append("\n".join(lines))
    return "\n".join(told) or "none"


def _calls(awaited: object) -> Generator[str, None, None]:
    """Down the chain of what waits for what, to what is no coroutine."""
    while awaited is not None:
        frame: FrameType | None = None
        for kind in ("cr", "gi", "ag"):
            frame = frame or getattr(awaited, f"{kind}_frame", None)
        if frame is None:
            yield repr(awaited)
            return
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        awaited = next(
            (
                inner
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (inner := getattr(awaited, name, None)) is not None
            ),
            None,
        )


def _end_after(seconds: float, config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[_STDERR])
