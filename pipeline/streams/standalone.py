"""A context for a script or a notebook, where no runtime has made one.

It has the running instance's addresses, says only what is wrong, and leaves the process as it was.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec

from pipeline import config
from pipeline.attached import attached_settings
from pipeline.clock import Clock
from pipeline.runtime import Context, attach
from pipeline.telemetry import Telemetry

_STOPPERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.asynccontextmanager
async def standalone(name: str, stopping: asyncio.Event | None = None) -> AsyncIterator[Context]:
    """A context under that name, by the settings of the environment and the running instance.

    SIGINT and SIGTERM ask it to stop, unless the caller gives an event of its own for that; a
    second one does what it did before. Raises ConfigError.
    """
    settings = attached_settings()
    if not config.is_given("log_level"):
        settings = msgspec.structs.replace(settings, log_level="warning")
    with contextlib.ExitStack() as stack:
        if stopping is None:
            stopping = asyncio.Event()
            stack.enter_context(_stopped_by_signals(stopping))
        telemetry = Telemetry(name, settings)
        stack.callback(telemetry.close)
        async with attach(name, settings, Clock(settings.clock), telemetry, stopping) as context:
            yield context


@contextlib.contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def stop() -> None:
        stopping.set()
        restore()

    for number in _STOPPERS:
        handler = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, stop)
        except (ValueError, RuntimeError, NotImplementedError):
            break  # not the main thread: whoever runs it decides when it stops
        before[number] = handler
    try:
        yield
    finally:
        restore()
