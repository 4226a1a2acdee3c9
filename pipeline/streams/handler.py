"""One-file workers: a consumption and a function that handles one chain.

`@worker(consume(…))` makes of the function what `stockify run package.module:name` starts. It never
lets an error of the function stop the group.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from pipeline.errors import StockifyError
from pipeline.runtime import Context, jittered, pause
from pipeline.streams.batch import Batch, Source
from pipeline.streams.kit import Consumption

FIRST_PAUSE_S = 0.05  # before a second try; each further one waits twice as long

Results = Iterable[Any] | None
Handler = Callable[..., Results | Awaitable[Results]]


class HandlerWorker:
    """A worker that hands each chain, or entry of another stream, to a function.

    One that raises is tried again in place, so that its underlying stays in order: for as long as
    it says that the same may succeed later (`retryable` of our errors), else until deliveries and
    tries together reach `max_attempts`; then the entry is a dead letter with the error.
    """

    def __init__(self, handle: Handler, consumption: Consumption, target: str) -> None:
        self.handle = handle
        self.order = msgspec.structs.replace(consumption.order, manual_ack=True)
        self._target = target
        self._takes_context = len(inspect.signature(handle).parameters) > 1

    async def __call__(self, context: Context) -> None:
        """Work until stopping."""
        telemetry = context.telemetry
        handled = telemetry.counter("entries_handled", "entries that the handler has finished")
        written = telemetry.counter("results", "entries written of what the handler gave")
        record_age = telemetry.histogram("age_handled", "from receipt to the handler's end")
        async with Consumption(self.order, context) as batches:
            async for batch in batches:
                with telemetry.span("handle", (entry.traceparent for entry in batch.entries)):
                    done, results = await self._work(context, batch)
                    if self._target:
                        written.add(await batch.finish(self._target, results, only=done))
                    else:
                        await batch.ack(only=done)
                handled.add(len(done))
                if batch.entries:
                    record_age((context.clock.now_ns() - batch.entries[-1].ts) / 1e9)

    async def _work(
        self, context: Context, batch: Batch
    ) -> tuple[list[Source], list[tuple[Source, Any]]]:
        """What is done of the batch, and what came of it."""
        done: list[Source] = []
        results: list[tuple[Source, Any]] = []
        sources: list[Source] = [*(batch.chains if self.order.has_frames else batch.entries)]
        for source in sources:
            made, is_done = await self._tried(context, batch, source)
            if is_done:
                done.append(source)
                results += [(source, result) for result in made]
            elif context.stopping.is_set():
                break
            await asyncio.sleep(0)  # the lease is kept by a task beside a handler that never waits
        return done, results

    async def _tried(
        self, context: Context, batch: Batch, source: Source
    ) -> tuple[list[Any], bool]:
        """What the handler gave, and whether it came to an end."""
        telemetry, stopping = context.telemetry, context.stopping
        failures = telemetry.counter("handler_failures", "tries that raised an error")
        entry = source if isinstance(source, msgspec.Struct) else source.entry
        attempt = 0
        while True:
            try:
                made = self.handle(source, context) if self._takes_context else self.handle(source)
                results = await made if inspect.isawaitable(made) else made
                return list(results or ()), True
            except Exception as error:
                failures.add()
                says = f"{type(error).__name__}: {error}"
                telemetry.log.warning(
                    "handler_failed", key=entry.key, id=entry.stream_id, error=says[:200]
                )
                may_succeed = isinstance(error, StockifyError) and error.retryable
                if not may_succeed and entry.attempts + attempt >= context.settings.max_attempts:
                    await batch.dead_letter(source, "handler", says)
                    return [], False
            await pause(stopping, jittered(attempt, first_s=FIRST_PAUSE_S))
            attempt += 1
            if stopping.is_set():
                return [], False


def worker(consumption: Consumption, *, target: str = "") -> Callable[[Handler], HandlerWorker]:
    """Make a worker of a function, plain or async: `@worker(consume("my-group", …))`.

    The function takes a chain, or an entry where the stream carries none, and as a second argument
    the worker's `Context` if it has one. What it gives is appended to the stream `target`, in one
    step with the acknowledgement; each is of a class that the consumption `writes`.
    """
    return lambda handle: HandlerWorker(handle, consumption, target)
