"""Entries on their way to the raw stream: in order, once, and on disk while Redis is away."""

import asyncio

import msgspec

from pipeline.entries import NewEntry
from pipeline.errors import BusError, OutcomeUnknown
from pipeline.runtime import jittered, pause
from pipeline.streams import Producer
from pipeline.streams.spool import Spool
from pipeline.telemetry import Telemetry


class _Spooled(msgspec.Struct, frozen=True):
    stream: str
    entry: NewEntry


_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder(_Spooled)


class Outbox:
    """Appends at once where it can; else spools, and whatever follows queues up behind."""

    def __init__(
        self, producer: Producer, spool: Spool, telemetry: Telemetry, stopping: asyncio.Event
    ) -> None:
        self._producer = producer
        self._spool = spool
        self._telemetry = telemetry
        self._stopping = stopping
        self.trouble = ""  # why entries go to disk now; empty when they do not
        self._turn = asyncio.Lock()  # appends keep the order in which bodies arrived
        self._appended = telemetry.counter("entries_appended", "entries appended to a stream")
        self._dropped = telemetry.counter("entries_dropped", "entries the full spool refused")
        telemetry.gauge("spool_entries", "entries on disk, waiting for Redis", self._waiting)

    async def put(self, stream: str, entry: NewEntry) -> None:
        """Append an entry, or spool it. When the spool is full it is dropped, counted, logged."""
        async with self._turn:
            if not self._spool.records and await self._sent(stream, entry):
                return
            if not self._spool.put(_pack.encode(_Spooled(stream, entry))):
                self._dropped.add()
                self._telemetry.log.error("spool_full", dropped=self._dropped.value, key=entry.key)

    async def drain(self) -> None:
        """Append what is spooled, oldest first, until stopping."""
        attempt = 0
        while not self._stopping.is_set():
            record = self._spool.peek()
            if record is None:
                attempt = 0
                await pause(self._stopping, 0.2)
                continue
            spooled = _unpack.decode(record)
            async with self._turn:
                try:
                    await self._producer.settle(spooled.stream, [spooled.entry])
                except BusError as error:
                    self.trouble = f"spooling to disk: {error}"
                else:
                    self._spool.drop()
                    self._appended.add()
                    self.trouble = ""
                    attempt = 0
                    continue
            await pause(self._stopping, jittered(attempt, cap_s=2.0))
            attempt += 1

    async def close(self) -> None:
        """Close the connection and the spool's file; what is spooled is sent after a restart."""
        await self._producer.close()
        self._spool.close()

    async def _sent(self, stream: str, entry: NewEntry) -> bool:
        try:
            try:
                await self._producer.append(stream, entry)
            except OutcomeUnknown:
                await self._producer.settle(stream, [entry])
        except BusError as error:
            self._telemetry.log.warning("append_failed", key=entry.key, error=str(error))
            return False
        self._appended.add()
        return True

    def _waiting(self) -> float:
        return self._spool.records
