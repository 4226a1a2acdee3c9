"""Enriched frames to Postgres, exactly once: rows and ledger line commit together, then the ack."""

import asyncio
import gc

from pipeline import rows
from pipeline.database import Database
from pipeline.runtime import Context, cancel, run
from workers.storage.keeping import Keeper
from workers.storage.outage import Outage
from workers.storage.shard import COMMITS, Shard

# How long one attempt waits for a connection: with the last attempts of a shard together well
# within the time a worker has to drain.
CONNECTION_WAIT_S = 2.0
KEEPER_CONNECTIONS = 2  # the one that holds the lock, and the one for its chores
SESSION_S = 30.0  # a batch takes a fraction of a second; so long nobody but a silent server does
CHECK_AFTER_S = 5.0  # in a stream of batches a connection that was lost is told by its use


async def store(context: Context) -> None:
    """Store every shard of the enriched stream until stopping."""
    await asyncio.to_thread(rows.warmup)  # seconds where the cache is cold; the heartbeat goes on
    database = Database(
        context.settings.database_url,
        max_size=(COMMITS + 1) * context.topics.shards,  # and one to look things up
        wait_s=CONNECTION_WAIT_S,
        check_after_s=CHECK_AFTER_S,
        session_s=SESSION_S,
    )
    # The keeper's sessions last: one holds its lock for good, and a chore may take minutes.
    kept = Database(
        context.settings.database_url, max_size=KEEPER_CONNECTIONS, wait_s=CONNECTION_WAIT_S
    )
    await database.open()
    await kept.open()
    try:
        outage = Outage(context.telemetry, context.stopping)
        shards = [Shard(context, database, outage, n) for n in range(context.topics.shards)]
        keeping = asyncio.create_task(Keeper(context, kept).work())
        try:
            await asyncio.gather(*(shard.work() for shard in shards))
        finally:
            await cancel(keeping)
    finally:
        await kept.close()
        await database.close()


def main() -> None:
    """Run the worker."""
    gc.freeze()  # what a batch leaves behind is looked through without all that was imported
    run("storage", store)


if __name__ == "__main__":
    main()
