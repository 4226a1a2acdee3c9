"""Durable producing: an entry is on disk until its stream has it for good.

For good is when the server has it on its own disk (`Producer.confirm`; where the server cannot
tell, some seconds after it was appended) and every critical group has finished it, so that not even
the loss of the stream loses it. The second is best effort: what is confirmed is let go when the
spool needs room. What is not confirmed is never let go; when there is no room beside it, the new
entry goes out without a record, and where the server does not take it either it is dropped, which
is counted and logged.

After anything that may have cost the server an entry (an append without an answer, a connection
that ended, a start of this process) all that is not confirmed is settled before anything new is
sent; after the loss of a stream all that is not finished. Order is kept within a stream, and no
stream waits for another.

It looks into no entry.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

import msgspec

from pipeline.entries import NewEntry
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.runtime import Context
from pipeline.streams.lane import Lane, Tallies
from pipeline.streams.offers import Fate
from pipeline.streams.producer import Producer
from pipeline.streams.spool import SEGMENT_BYTES, Spool, record_bytes
from pipeline.telemetry import Telemetry

DRAIN_S = 3.0  # how long closing waits for what a server that answers has not been sent
SEGMENTS = 32  # at least so many in the bound, since no less than one can be let go

_pack = msgspec.msgpack.Encoder()


class Outbox:
    """Appends entries durably; an asynchronous context, and nothing is sent outside it.

    `directory` is this outbox's own and belongs to one process at a time (ConfigError while
    another holds it); its segments take at most `limit_bytes`. The producer is closed with it.
    `route` gives the stream for an entry's key in place of a stream that was retired meanwhile.
    """

    def __init__(
        self,
        producer: Producer,
        directory: Path,
        limit_bytes: int,
        telemetry: Telemetry,
        route: Callable[[str, str], str] | None = None,
    ) -> None:
        self._producer = producer
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max(1, limit_bytes // SEGMENTS))
        self._telemetry = telemetry
        self._route = route
        self._said: Callable[[], None] = self._set_state
        self._lanes: dict[str, Lane] = {}
        self._lock: int | None = None
        self._dropped = Tallies(telemetry).dropped
        self._let_go = telemetry.counter(
            "entries_let_go", "confirmed entries that made room before every group had finished"
        )
        self._next_drop_log = 0.0
        telemetry.gauge("spool_entries", "entries on disk, not yet appended", self._waiting)
        telemetry.gauge("spool_bytes", "bytes of entries on disk", self._size)
        telemetry.gauge(
            "unconfirmed", "entries appended, not known to be on the server's disk", self._doubtful
        )

    @property
    def trouble(self) -> str:
        """Why entries only go to disk now; empty where they do not."""
        return next((lane.trouble for lane in self._lanes.values() if lane.trouble), "")

    def listen(self, said: Callable[[], None]) -> None:
        """Call that when `trouble` changes, instead of setting the state of the process."""
        self._said = said

    async def put(self, stream: str, entry: NewEntry) -> Fate:
        """Append an entry, in the order of the calls; says what became of it.

        `appended`: it is in the stream, and on this disk or, with a full spool, only there.
        `spooled`: it is on this disk and will be appended after those before it.
        `dropped`: neither server nor spool took it; counted and logged.
        """
        lane = self._lanes.get(stream) or self._open(stream)
        data = _pack.encode(entry)
        full = self._full(record_bytes(data))
        waits: asyncio.Future[Fate] | None = None
        if not full:
            try:
                waits = lane.offer(entry, data)
            except OSError as error:
                full = f"the disk does not take it: {error}"
        if full:
            waits = lane.offer_unguarded(entry)
            fate: Fate = await waits if waits is not None else "dropped"
            self._say_full(stream, full, fate)
            return fate
        on_disk = lane.synced()
        fate = await waits if waits is not None else "spooled"
        await asyncio.shield(on_disk)
        return fate

    async def __aenter__(self) -> Self:
        """Open what a run before this one left; it is settled before anything new is sent."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._directory / "lock")
        for path in sorted(self._directory.iterdir()):
            if path.is_dir():
                self._open(unquote(path.name), await asyncio.to_thread(self._spool, path))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send what a server that answers will take in a moment; the rest stays on disk."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                for lane in self._lanes.values():
                    await lane.rested()
        for lane in self._lanes.values():
            await lane.close()
        self._lanes = {}
        await self._producer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self, stream: str, spool: Spool | None = None) -> Lane:
        if self._lock is None:
            raise RuntimeError("an outbox is used as an asynchronous context")
        if spool is None:
            spool = self._spool(self._directory / quote(stream, safe=""))
        if spool.cut_bytes:
            self._telemetry.log.warning("spool_cut", stream=stream, bytes=spool.cut_bytes)
        lane = Lane(stream, spool, self._producer, self._telemetry, self._tell, self._move)
        self._lanes[stream] = lane
        return lane

    async def _move(self, stream: str, entry: NewEntry) -> None:
        """Put an entry of a retired stream where it belongs now. Raises BusUnavailable."""
        target = self._route(stream, entry.key) if self._route is not None else stream
        if target == stream:
            raise BusUnavailable(f"{stream} is retired")
        if await self.put(target, entry) == "dropped":
            raise BusUnavailable(f"{stream} is retired, and {target} takes nothing")

    def _spool(self, path: Path) -> Spool:
        return Spool(path, self._segment_bytes)

    def _full(self, wanted: int) -> str:
        """Why a record has no room, after letting go of what may be; empty where it has."""
        while self._size() + wanted > self._limit_bytes:
            largest_first = sorted(self._lanes.values(), key=lambda lane: -lane.spool.size)
            went = (lane.spool.let_go() for lane in largest_first)
            count = next((count for count in went if count is not None), None)
            if count is None:
                return f"the spool's {self._limit_bytes} bytes are full"
            self._let_go.add(count)
        return ""

    def _say_full(self, stream: str, reason: str, fate: Fate) -> None:
        self._dropped.add(fate == "dropped")
        if time.monotonic() >= self._next_drop_log:
            self._next_drop_log = time.monotonic() + 1.0
            self._telemetry.log.error(
                "spool_full", stream=stream, reason=reason, fate=fate, dropped=self._dropped.value
            )

    def _tell(self) -> None:
        self._said()

    def _set_state(self) -> None:
        self._telemetry.set_state("degraded" if self.trouble else "ready", self.trouble)

    def _waiting(self) -> float:
        return sum(lane.waiting for lane in self._lanes.values())

    def _doubtful(self) -> float:
        return sum(lane.unconfirmed for lane in self._lanes.values())

    def _size(self) -> int:
        return sum(lane.spool.size for lane in self._lanes.values())


def open_outbox(context: Context, route: Callable[[str, str], str] | None = None) -> Outbox:
    """An outbox for a worker, in its state directory, bound by its settings."""
    settings = context.settings
    return Outbox(
        Producer(settings, context.name),
        settings.state_path() / "spool" / quote(context.name, safe=""),
        settings.spool_bytes,
        context.telemetry,
        route,
    )


def _locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise ConfigError(f"{path.parent} is in use by another process") from error
    return file
