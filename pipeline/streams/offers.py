"""What is offered to a lane by callers who wait, and one sync of the disk for many of them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from pipeline.entries import NewEntry
from pipeline.streams.segments import Place
from pipeline.streams.spool import Spool, sync

Fate = Literal["appended", "spooled", "dropped"]

BATCH_ENTRIES = 64
BATCH_BYTES = 1024 * 1024


class Offer(NamedTuple):
    """An entry whose caller waits; without places where the spool had no room for it."""

    entry: NewEntry
    size: int
    place: Place | None
    following: Place | None
    fate: "asyncio.Future[Fate]"


class Offers:
    """Entries in the order of their calls."""

    def __init__(self) -> None:
        self._waiting: deque[Offer] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(
        self, entry: NewEntry, size: int, place: Place | None, following: Place | None
    ) -> "asyncio.Future[Fate]":
        """Queue an entry; what becomes of it is the result."""
        fate: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self._waiting.append(Offer(entry, size, place, following, fate))
        return fate

    def first_place(self) -> Place | None:
        """Where the first that has a record has it."""
        return next((offer.place for offer in self._waiting if offer.place is not None), None)

    def batch(self) -> list[Offer]:
        """The first few, to be sent in one call."""
        return list(self._first_few())

    def appended(self, count: int) -> None:
        """That many have been sent."""
        for _one in range(count):
            offer = self._waiting.popleft()
            if not offer.fate.done():  # its caller may have been cancelled
                offer.fate.set_result("appended")

    def release(self, failure: Exception | None = None) -> None:
        """Let callers go: what has a record is appended later, what has none is dropped."""
        while self._waiting:
            offer = self._waiting.popleft()
            if offer.fate.done():
                continue
            if failure is not None:
                offer.fate.set_exception(failure)
            else:
                offer.fate.set_result("dropped" if offer.place is None else "spooled")

    def _first_few(self) -> Iterator[Offer]:
        size = 0
        for count, offer in enumerate(self._waiting):
            size += offer.size
            if count and (size > BATCH_BYTES or count >= BATCH_ENTRIES):
                return
            yield offer


class SharedSync:
    """Brings a spool to the disk, away from the event loop, once for all who wait."""

    def __init__(self, spool: Spool, failed: Callable[[OSError], None]) -> None:
        self._spool = spool
        self._failed = failed
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def started(self) -> "asyncio.Task[None]":
        """Done when all that was put before is on the disk, or `failed` has been told."""
        if self._next is None:
            self._next = asyncio.create_task(self._sync(self._running))
        return self._next

    async def ended(self) -> None:
        """Wait for what was started."""
        for task in (self._running, self._next):
            if task is not None:
                await task

    async def _sync(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await before
        # What is put from here on is for the next one.
        self._running, self._next = self._next, None
        try:
            await asyncio.to_thread(sync, self._spool.unsynced())
        except OSError as error:
            self._failed(error)
        finally:
            self._spool.synced()
            self._running = None
