"""The enriched stream as the processor writes it, of synthetic chains."""

from pipeline import frames, models
from pipeline.entries import NewEntry
from pipeline.runtime import Context
from pipeline.streams import Producer
from tests.support import chains


def entry(number: int = 0, underlying: str = "NIFTY", strikes: int = 5) -> NewEntry:
    """The entry of the `number`th snapshot of an underlying's chain."""
    ts_ingest = chains.TS_INGEST + number
    chain = chains.enriched(strikes, ts_ingest=ts_ingest, underlying=underlying)
    return NewEntry(
        id=f"{underlying}-{number}",
        type=models.ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=ts_ingest,
        data=frames.encode_frame(chain),
        contracts=chain.header.n,
    )


async def append(context: Context, *entries: NewEntry) -> None:
    """Append entries to the shards of their underlyings."""
    producer = Producer(context.settings, "producer")
    try:
        for one in entries:
            shard = context.topics.shard_of(one.key.rpartition("-")[0] or one.key)
            await producer.append(context.topics.enriched(shard), one)
    finally:
        await producer.close()


async def append_chains(context: Context, *numbers: int, underlying: str = "NIFTY") -> None:
    """Append snapshots of those numbers."""
    await append(context, *(entry(number, underlying) for number in numbers))
