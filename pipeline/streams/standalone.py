"""A context for a script or a notebook, where no runtime has made one.

It has the running instance's addresses, says only what is wrong, and leaves the process as it was.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline import config, layout
from pipeline.attached import attached_settings
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.errors import BusUnavailable
from pipeline.runtime import LAYOUT_S, Context, attach, cancel, connect
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics

_STOPPERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.asynccontextmanager
async def standalone(name: str, stopping: asyncio.Event | None = None) -> AsyncIterator[Context]:
    """A context under that name, by the settings of the environment and the running instance.

    SIGINT and SIGTERM ask it to stop, unless the caller gives an event of its own for that; a
    second one does what it did before. It stops too when the bus is cut into another number of
    shards. Raises ConfigError, then as well, and BusUnavailable where Redis is away at the start.
    """
    settings = await _with_shards(attached_settings())
    if not config.is_given("log_level"):
        settings = msgspec.structs.replace(settings, log_level="warning")
    with contextlib.ExitStack() as stack:
        if stopping is None:
            stopping = asyncio.Event()
            stack.enter_context(_stopped_by_signals(stopping))
        telemetry = Telemetry(name, settings)
        stack.callback(telemetry.close)
        async with attach(name, settings, Clock(settings.clock), telemetry, stopping) as context:
            replaced = asyncio.create_task(_until_replaced(context))
            replaced.add_done_callback(lambda _: stopping.set())
            try:
                yield context
                if replaced.done():
                    await replaced
            finally:
                await cancel(replaced)


async def _with_shards(settings: Settings) -> Settings:
    """The settings, with as many shards as the bus has where nobody has said how many."""
    client = connect(settings, retries=0)
    try:
        record = await layout.read(client)
        if record is not None and not config.is_given("shards"):
            settings = msgspec.structs.replace(settings, shards=record.current.shards)
        await layout.check(client, Topics(settings.shards, settings.redis_cluster))
        return settings
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
    finally:
        await client.aclose()


async def _until_replaced(context: Context) -> None:
    """Ends with a ConfigError when the streams are not, or no longer, those in use."""
    while True:
        with contextlib.suppress(RedisError, OSError):
            await layout.check(context.redis, context.topics)
        await asyncio.sleep(LAYOUT_S)


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
