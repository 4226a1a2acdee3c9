"""Postgres away or slow: calls tried again until it answers, one state of the process for all.

Never decides what is stored; what can never be stored is its callers' matter.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from pipeline.errors import RowsRejected, StoreError
from pipeline.runtime import jittered, pause
from pipeline.telemetry import Telemetry

T = TypeVar("T")

SLOW_S = 5.0  # a batch takes a fraction of a second
LAST_ATTEMPTS = 3  # when told to stop with Postgres away; then entries stay pending


class Outage:
    """What the calls of all shards find wrong with Postgres.

    The process is degraded as long as one of them has got no answer for `slow_s`, or a bad one, and
    says what is wrong with the one that has waited longest.
    """

    def __init__(
        self, telemetry: Telemetry, stopping: asyncio.Event, slow_s: float = SLOW_S
    ) -> None:
        self._telemetry, self._stopping, self._slow_s = telemetry, stopping, slow_s
        self._reasons: dict[object, str] = {}  # by call, the one that has waited longest first

    @contextlib.contextmanager
    def watch(self) -> Iterator[object]:
        """A call that is slow where the block lasts too long; gives what to name it by."""
        call = object()
        slow = asyncio.get_running_loop().call_later(self._slow_s, self._find_slow, call)
        try:
            yield call
        finally:
            slow.cancel()
            if self._reasons.pop(call, None) is not None:
                self._say()

    async def until_answered(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Call, and while the store is away try again; None if it stays away when stopping.

        Raises RowsRejected as the call does.
        """
        attempt = last_attempts = 0
        with self.watch() as this:
            while True:
                try:
                    return await call()
                except RowsRejected:
                    raise
                except StoreError as error:
                    self._add(this, str(error))
                if self._stopping.is_set():
                    last_attempts += 1
                    if last_attempts >= LAST_ATTEMPTS:
                        return None
                    await asyncio.sleep(jittered(last_attempts))
                else:
                    await pause(self._stopping, jittered(attempt))
                attempt += 1

    def _find_slow(self, call: object) -> None:
        if call not in self._reasons:
            self._add(call, f"no answer for {self._slow_s:g} s")

    def _add(self, call: object, reason: str) -> None:
        self._reasons[call] = reason
        self._say()

    def _say(self) -> None:
        if self._reasons:
            self._telemetry.set_state("degraded", f"Postgres: {next(iter(self._reasons.values()))}")
        else:
            self._telemetry.set_state("draining" if self._stopping.is_set() else "ready")
