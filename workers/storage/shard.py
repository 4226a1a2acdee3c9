"""One shard of the enriched stream on its way into Postgres: read, gather, commit, acknowledge.

Frames are gathered into batches by rows or age, whichever comes first. While Postgres is away the
batch is kept, nothing more is read, and nothing is acknowledged. What Postgres will never take
becomes a dead letter, and the rest of its batch is stored.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import DecodeError, RowsRejected, StoreError
from pipeline.models import ENRICHED_CHAIN_TYPE
from pipeline.runtime import Context, cancel, jittered, pause
from pipeline.streams import Consumer
from workers.storage.writer import Arrived, Writer, Written, arrived_from

READ_ENTRIES = 32  # the flat part of the cost curve of a read
# Reads that wait while a batch commits; with the batch itself this bounds the memory: some
# 20,000 + 5 · 32 · 300 rows, under 30 MB.
READS_AHEAD = 4
LAST_ATTEMPTS = 3  # when told to stop with Postgres away; then entries stay pending


class Shard:
    """One shard of the enriched stream on its way into Postgres."""

    def __init__(self, context: Context, database: Database, number: int) -> None:
        telemetry = context.telemetry
        self._context = context
        self._telemetry = telemetry
        self._writer = Writer(database, context.clock.now_ns)
        self._consumer = Consumer(
            context,
            context.topics.enriched(number),
            "storage",
            dead_stream=context.topics.dead(number),
            start="earliest",
        )
        self._read = telemetry.counter("entries_read", "entries read")
        self._rows = telemetry.counter("rows_written", "rows of option_contracts committed")
        self._snapshots = telemetry.counter("snapshots_written", "chain snapshots committed")
        self._known = telemetry.counter("entries_known", "entries found in the ledger and skipped")
        self._record_age = telemetry.histogram("age_committed", "from receipt to the commit")
        self._record_commit = telemetry.histogram("commit_duration", "writing one batch")

    async def work(self) -> None:
        """Read and commit until stopping, then commit what was read."""
        queue: asyncio.Queue[list[Entry] | None] = asyncio.Queue(READS_AHEAD)
        reader = asyncio.create_task(self._fill(queue))
        self._telemetry.set_state("ready")
        try:
            async with contextlib.aclosing(self._gathered(queue)) as batches:
                async for batch in batches:
                    if not await self._commit(batch):
                        self._telemetry.log.warning("left_pending", entries=len(batch))
                        return
            await reader  # it has ended; what went wrong there comes out here
        finally:
            await cancel(reader)
            await self._consumer.close()

    async def _fill(self, queue: asyncio.Queue[list[Entry] | None]) -> None:
        try:
            async for entries in self._consumer.batches(count=READ_ENTRIES):
                self._read.add(len(entries))
                await queue.put(entries)
        except Exception:
            await queue.put(None)  # not when cancelled: then nobody empties the queue any more
            raise
        await queue.put(None)

    async def _gathered(
        self, queue: asyncio.Queue[list[Entry] | None]
    ) -> AsyncGenerator[list[tuple[Entry, Arrived | None]], None]:
        """Decoded batches of enough rows or age; what does not decode is set aside here."""
        loop = asyncio.get_running_loop()
        settings = self._context.settings
        while (entries := await queue.get()) is not None:
            due = loop.time() + settings.storage_max_age_ms / 1_000
            batch = await self._decoded(entries)
            while entries is not None and _row_count(batch) < settings.storage_batch_rows:
                try:
                    async with asyncio.timeout_at(due):  # over the wait alone, so none gets lost
                        entries = await queue.get()
                except TimeoutError:
                    break
                if entries is not None:
                    batch += await self._decoded(entries)
            if batch:
                yield batch
            if entries is None:
                return

    async def _decoded(self, entries: list[Entry]) -> list[tuple[Entry, Arrived | None]]:
        """Each entry with its chain; None where it carries none, and only wants its ack."""
        decoded: list[tuple[Entry, Arrived | None]] = []
        for entry in entries:
            if entry.type != ENRICHED_CHAIN_TYPE:
                decoded.append((entry, None))
                continue
            try:
                decoded.append((entry, arrived_from(entry)))
            except DecodeError as error:
                await self._consumer.dead_letter(entry, "undecodable", str(error))
        return decoded

    async def _commit(self, batch: list[tuple[Entry, Arrived | None]]) -> bool:
        """Commit and acknowledge a batch; False if Postgres stayed away while we had to stop."""
        entries = [entry for entry, _ in batch]
        started = time.perf_counter()
        with self._telemetry.span("store", (entry.traceparent for entry in entries)):
            written = Written()
            rejected: set[str] = set()
            chains = [(entry, arrived) for entry, arrived in batch if arrived is not None]
            if chains:
                outcome = await self._write(chains)
                if outcome is None:
                    return False
                written, rejected = outcome
            await self._consumer.ack([e for e in entries if e.stream_id not in rejected])
        self._rows.add(written.rows)
        self._snapshots.add(written.snapshots)
        self._known.add(written.known)
        self._record_commit(time.perf_counter() - started)
        oldest = min(entry.ts for entry in entries)
        self._record_age((self._context.clock.now_ns() - oldest) / 1e9)
        self._telemetry.log.debug(
            "committed", entries=len(entries), rows=written.rows, known=written.known
        )
        return True

    async def _write(self, chains: list[tuple[Entry, Arrived]]) -> tuple[Written, set[str]] | None:
        """Write chains together, or one by one where some of them can never be stored.

        Gives what was written and the stream ids set aside; None if the store stayed away.
        """
        try:
            written = await self._until_written([arrived for _, arrived in chains])
            return None if written is None else (written, set())
        except RowsRejected:
            self._writer.forget()
        total, rejected = Written(), set()
        for entry, arrived in chains:
            try:
                written = await self._until_written([arrived])
            except RowsRejected as error:
                await self._consumer.dead_letter(entry, "rejected", str(error))
                rejected.add(entry.stream_id)
                continue
            if written is None:
                return None
            total = total.plus(written)
        return total, rejected

    async def _until_written(self, batch: list[Arrived]) -> Written | None:
        """Write, and while the store is away try again; None if it stays away when stopping."""
        stopping = self._context.stopping
        attempt = last_attempts = 0
        while True:
            try:
                written = await self._writer.write(batch)
            except RowsRejected:
                raise
            except StoreError as error:
                self._telemetry.set_state("degraded", f"Postgres: {error}")
            else:
                if attempt:
                    self._telemetry.set_state("draining" if stopping.is_set() else "ready")
                return written
            if stopping.is_set():
                last_attempts += 1
                if last_attempts >= LAST_ATTEMPTS:
                    return None
                await asyncio.sleep(jittered(last_attempts))
            else:
                await pause(stopping, jittered(attempt))
            attempt += 1


def _row_count(batch: Sequence[tuple[Entry, Arrived | None]]) -> int:
    return sum(arrived.chain.header.n for _, arrived in batch if arrived is not None)
