"""One shard of the enriched stream on its way into Postgres: read, prepare, commit, acknowledge.

While two batches are on their way to their commits the next one is read and prepared; they are
acknowledged in the order of the stream. While Postgres is away they are kept, reading stops where
as much is held as may be, and nothing is acknowledged. A leg that Postgres will never take becomes
a dead letter, and the rest of its chain is stored; a chain of which not even that can be becomes
one as a whole.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import msgspec

from pipeline.database import Database
from pipeline.entries import Entry
from pipeline.errors import DecodeError, RowsRejected, StoreError
from pipeline.models import CONTRACT_LETTER_TYPE, ENRICHED_CHAIN_TYPE, ENRICHED_POLLS_TYPE
from pipeline.runtime import Context, cancel
from pipeline.streams import Consumer
from workers.storage.contracts import add_contract, letter_of
from workers.storage.intake import READ_ENTRIES, Intake, Item
from workers.storage.outage import Outage
from workers.storage.reports import Reported, add_reports, reported_from
from workers.storage.writer import Arrived, Prepared, Refused, Writer, Written, arrived_from

# Of one shard on their way at a time: while the server flushes one to its disk it takes the next.
COMMITS = 2


class _Batch(msgspec.Struct, frozen=True):
    """Items, and their chains prepared; None where that did not go, and the commit has to."""

    items: list[Item]
    prepared: Prepared | None


class Shard:
    """One shard of the enriched stream on its way into Postgres."""

    def __init__(self, context: Context, database: Database, outage: Outage, number: int) -> None:
        telemetry, settings = context.telemetry, context.settings
        self._context, self._database, self._outage = context, database, outage
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
        storing: list[asyncio.Task[bool]] = []  # each waits for the one before it
        self._telemetry.set_state("ready")
        try:
            while True:
                awaited = storing if len(storing) == COMMITS else [coming, *storing]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if not all(task.result() for task in storing if task.done()):
                    break
                storing = [task for task in storing if not task.done()]
                if len(storing) == COMMITS or not coming.done():
                    continue
                batch = coming.result()
                if batch is None:
                    break
                coming = asyncio.create_task(self._prepared())
                before = storing[-1] if storing else None
                storing.append(asyncio.create_task(self._store(batch, before)))
            if all(await asyncio.gather(*storing)):
                await reader  # it has ended; what went wrong there comes out here
        finally:
            await cancel(reader, coming, *storing)
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
            with self._outage.watch():
                return _Batch(items, await self._writer.prepare(_chains(items)))
        except StoreError:
            return _Batch(items, None)  # the commit prepares it anew, and says what is wrong

    async def _store(self, batch: _Batch, before: "asyncio.Task[bool] | None") -> bool:
        """Commit a batch and acknowledge it; False if Postgres stayed away while we had to stop.

        Its chains may be committed beside those of the batch before, the rest only after it.
        """
        started = time.perf_counter()
        with self._telemetry.span("store", (item.entry.traceparent for item in batch.items)):
            rejected: dict[str, str] = {}
            written = await self._write_chains(batch, rejected)
            is_before_done = before is None or await before
            if written is not None:
                written = await self._write_rest(batch, written, rejected)
        if written is None:
            self._telemetry.log.warning("left_pending", entries=len(batch.items))
            return False
        self._record_commit(time.perf_counter() - started)
        await self._finish(batch.items, written, rejected)
        return is_before_done

    async def _write_chains(self, batch: _Batch, rejected: dict[str, str]) -> Written | None:
        """Write the chains of a batch together; one by one where that does not go."""
        chains = _chains(batch.items)
        try:
            return await self._until_written(chains, batch.prepared)
        except RowsRejected:
            self._writer.forget()
            return await self._one_by_one(chains, rejected)

    async def _write_rest(
        self, batch: _Batch, written: Written, rejected: dict[str, str]
    ) -> Written | None:
        """Write single contracts and reports; gives what was written in all."""
        for item in batch.items:
            if item.arrived is not None and item.entry.type == CONTRACT_LETTER_TYPE:
                added = await self._add_contract(item.arrived, rejected)
                if added is None:
                    return None
                written = written.plus(added)
        return written if await self._write_reports(batch.items, rejected) else None

    async def _one_by_one(
        self, chains: Sequence[Arrived], rejected: dict[str, str]
    ) -> Written | None:
        total = Written()
        for arrived in chains:
            try:
                written = await self._alone(arrived)
            except RowsRejected as error:
                rejected[arrived.id] = str(error)
                continue
            if written is None:
                return None
            total = total.plus(written)
        return total

    async def _alone(self, arrived: Arrived) -> Written | None:
        """Write a chain, without the legs that the server refuses. Raises RowsRejected."""
        try:
            return await self._until_written([arrived])
        except RowsRejected:
            self._writer.forget()
        try:
            return await self._without_refused(arrived)
        except RowsRejected:
            self._writer.forget()
        # One that was taken for dead over its commit may have woken and stored it meanwhile.
        return await self._until_written([arrived])

    async def _without_refused(self, arrived: Arrived) -> Written | None:
        """Write a chain without the legs that only the server knows it cannot hold."""

        async def search() -> dict[int, str]:
            return await self._writer.refused_by_server(arrived)

        refused = await self._outage.until_answered(search)
        if refused is None:
            return None
        return await self._outage.until_answered(
            lambda: self._writer.write([arrived], {arrived.id: refused})
        )

    async def _add_contract(self, arrived: Arrived, rejected: dict[str, str]) -> Written | None:
        async def add() -> bool:
            return await add_contract(self._database, arrived)

        try:
            try:
                added = await self._outage.until_answered(add)
            except RowsRejected:  # as in `_alone`
                added = await self._outage.until_answered(add)
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
                if await self._outage.until_answered(write) is None:
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

        return await self._outage.until_answered(write)

    async def _finish(
        self, items: Sequence[Item], written: Written, rejected: dict[str, str]
    ) -> None:
        """Acknowledge entries whose commit is done, or set aside what could not be stored."""
        legs: dict[str, list[Refused]] = {}
        for refused in written.refused:
            legs.setdefault(refused.arrived.stream_id, []).append(refused)
        plain: list[Entry] = []
        for item in items:
            entry = item.entry
            if entry.id in rejected:
                await self._consumer.dead_letter(entry, "rejected", rejected[entry.id])
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
