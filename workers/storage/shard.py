"""One shard of the enriched stream on its way into Postgres: read, prepare, commit, acknowledge.

While a batch is on its way to its commit the next one is read and prepared, and the last one
acknowledged. While Postgres is away the batch is kept, reading stops where as much is held as may
be, and nothing is acknowledged. A leg that Postgres will never take becomes a dead letter, and the
rest of its chain is stored; a chain of which not even that can be becomes one as a whole.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import DecodeError, RowsRejected, StoreError
from pipeline.models import CONTRACT_LETTER_TYPE, ENRICHED_CHAIN_TYPE, ENRICHED_POLLS_TYPE
from pipeline.runtime import Context, cancel, jittered, pause
from pipeline.streams import Consumer
from workers.storage.contracts import add_contract, letter_of
from workers.storage.intake import READ_ENTRIES, Intake, Item
from workers.storage.reports import Reported, add_reports, reported_from
from workers.storage.writer import Arrived, Prepared, Refused, Writer, Written, arrived_from

T = TypeVar("T")

LAST_ATTEMPTS = 3  # when told to stop with Postgres away; then entries stay pending


class _Batch(msgspec.Struct, frozen=True):
    """Items, and their chains prepared; None where that did not go, and the commit has to."""

    items: list[Item]
    prepared: Prepared | None


class _Outcome(msgspec.Struct, frozen=True):
    """What was written, and the message ids of entries of which nothing could be."""

    written: Written
    rejected: dict[str, str]


class Shard:
    """One shard of the enriched stream on its way into Postgres."""

    def __init__(self, context: Context, database: Database, number: int) -> None:
        telemetry, settings = context.telemetry, context.settings
        self._context, self._database = context, database
        self._telemetry = telemetry
        self._writer = Writer(database, context.clock.now_ns)
        self._intake = Intake(
            most_bytes=settings.storage_max_bytes,
            batch_rows=settings.storage_batch_rows,
            max_age_s=settings.storage_max_age_ms / 1_000,
        )
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
        self._refused = telemetry.counter("contracts_refused", "legs set aside as dead letters")
        self._record_age = telemetry.histogram("age_committed", "from receipt to the commit")
        self._record_commit = telemetry.histogram("commit_duration", "writing one batch")

    async def work(self) -> None:
        """Read and commit until stopping, then commit what was read."""
        batches = self._consumer.batches(count=READ_ENTRIES)
        reader = asyncio.create_task(self._intake.fill(batches, self._open))
        coming = asyncio.create_task(self._prepared())
        acknowledging: asyncio.Task[None] | None = None
        self._telemetry.set_state("ready")
        try:
            while (batch := await coming) is not None:
                coming = asyncio.create_task(self._prepared())
                outcome = await self._commit(batch)
                if outcome is None:
                    self._telemetry.log.warning("left_pending", entries=len(batch.items))
                    return
                if acknowledging is not None:
                    await acknowledging
                acknowledging = asyncio.create_task(self._finish(batch.items, outcome))
            await reader  # it has ended; what went wrong there comes out here
        finally:
            if acknowledging is not None:
                await acknowledging
            await cancel(reader, coming)
            await self._consumer.close()

    async def _open(self, entry: Entry) -> Item | None:
        """An entry with its chain; None where it did not decode, and was set aside."""
        self._read.add()
        try:
            if entry.type in (ENRICHED_CHAIN_TYPE, CONTRACT_LETTER_TYPE):
                return Item(entry, arrived_from(entry))
            if entry.type == ENRICHED_POLLS_TYPE:
                return Item(entry, reported=reported_from(entry))
            return Item(entry)
        except DecodeError as error:
            await self._consumer.dead_letter(entry, "undecodable", str(error))
            return None

    async def _prepared(self) -> _Batch | None:
        """The next batch, ready to be committed."""
        items = await self._intake.batch()
        if items is None:
            return None
        try:
            return _Batch(items, await self._writer.prepare(_chains(items)))
        except StoreError:
            return _Batch(items, None)  # the commit prepares it anew, and says what is wrong

    async def _commit(self, batch: _Batch) -> _Outcome | None:
        """Write a batch, chains together and then single contracts.

        Where some chain cannot be stored with the others they are written one by one. None if
        Postgres stayed away while we had to stop.
        """
        started = time.perf_counter()
        with self._telemetry.span("store", (item.entry.traceparent for item in batch.items)):
            chains = _chains(batch.items)
            rejected: dict[str, str] = {}
            try:
                written = await self._until_written(chains, batch.prepared)
            except RowsRejected:
                self._writer.forget()
                written = await self._one_by_one(chains, rejected)
            if written is None:
                return None
            for item in batch.items:
                if item.arrived is not None and item.entry.type == CONTRACT_LETTER_TYPE:
                    added = await self._add_contract(item.arrived, rejected)
                    if added is None:
                        return None
                    written = written.plus(added)
            if not await self._write_reports(batch.items, rejected):
                return None
        self._record_commit(time.perf_counter() - started)
        return _Outcome(written, rejected)

    async def _one_by_one(
        self, chains: Sequence[Arrived], rejected: dict[str, str]
    ) -> Written | None:
        total = Written()
        for arrived in chains:
            try:
                written = await self._until_written([arrived])
            except RowsRejected:
                self._writer.forget()
                try:
                    written = await self._without_refused(arrived)
                except RowsRejected as error:
                    rejected[arrived.id] = str(error)
                    continue
            if written is None:
                return None
            total = total.plus(written)
        return total

    async def _without_refused(self, arrived: Arrived) -> Written | None:
        """Write a chain without the legs that only the server knows it cannot hold."""

        async def search() -> dict[int, str]:
            return await self._writer.refused_by_server(arrived)

        refused = await self._until_answered(search)
        if refused is None:
            return None
        return await self._until_answered(
            lambda: self._writer.write([arrived], {arrived.id: refused})
        )

    async def _add_contract(self, arrived: Arrived, rejected: dict[str, str]) -> Written | None:
        try:
            added = await self._until_answered(lambda: add_contract(self._database, arrived))
        except RowsRejected as error:
            rejected[arrived.id] = str(error)
            return Written()
        if added is None:
            return None
        return Written(rows=1) if added else Written(known=1)

    async def _write_reports(self, items: Sequence[Item], rejected: dict[str, str]) -> bool:
        """Write the reports of a batch, after its chains; False if Postgres stayed away."""
        reports = [item.reported for item in items if item.reported is not None]
        together = [reports] if reports else []
        while together:
            some = together.pop()

            async def write(some: Sequence[Reported] = some) -> int:
                return await add_reports(self._database, some)

            try:
                if await self._until_answered(write) is None:
                    return False
            except RowsRejected as error:
                if len(some) == 1:
                    rejected[some[0].id] = str(error)
                else:
                    together += [[one] for one in some]
        return True

    async def _until_written(
        self, chains: Sequence[Arrived], prepared: Prepared | None = None
    ) -> Written | None:
        ready = prepared

        async def write() -> Written:
            nonlocal ready
            once, ready = ready, None  # whatever came of the first attempt, all is looked up anew
            return await (self._writer.write(chains) if once is None else self._writer.commit(once))

        return await self._until_answered(write)

    async def _until_answered(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Call, and while the store is away try again; None if it stays away when stopping."""
        stopping = self._context.stopping
        attempt = last_attempts = 0
        while True:
            try:
                answer = await call()
            except RowsRejected:
                raise
            except StoreError as error:
                self._telemetry.set_state("degraded", f"Postgres: {error}")
            else:
                if attempt:
                    self._telemetry.set_state("draining" if stopping.is_set() else "ready")
                return answer
            if stopping.is_set():
                last_attempts += 1
                if last_attempts >= LAST_ATTEMPTS:
                    return None
                await asyncio.sleep(jittered(last_attempts))
            else:
                await pause(stopping, jittered(attempt))
            attempt += 1

    async def _finish(self, items: Sequence[Item], outcome: _Outcome) -> None:
        """Acknowledge entries whose commit is done, or set aside what could not be stored."""
        written = outcome.written
        legs: dict[str, list[Refused]] = {}
        for refused in written.refused:
            legs.setdefault(refused.arrived.stream_id, []).append(refused)
        plain: list[Entry] = []
        for item in items:
            entry = item.entry
            if entry.id in outcome.rejected:
                error = outcome.rejected[entry.id]
                await self._consumer.dead_letter(entry, "rejected", error)
            elif entry.stream_id in legs:
                letters = [letter_of(refused) for refused in legs[entry.stream_id]]
                await self._consumer.dead_letters(entry, letters, "rejected")
            else:
                plain.append(entry)
        await self._consumer.ack(plain)
        sys.audit("stockify.storage", "acknowledged")
        self._intake.finished(items)
        self._rows.add(written.rows)
        self._snapshots.add(written.snapshots)
        self._known.add(written.known)
        self._refused.add(len(written.refused))
        oldest = min(item.entry.ts for item in items)
        self._record_age((self._context.clock.now_ns() - oldest) / 1e9)
        self._telemetry.log.debug(
            "committed", entries=len(items), rows=written.rows, known=written.known
        )


def _chains(items: Sequence[Item]) -> list[Arrived]:
    return [
        item.arrived
        for item in items
        if item.arrived is not None and item.entry.type == ENRICHED_CHAIN_TYPE
    ]
