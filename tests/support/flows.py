"""Chains on their way from raw to enriched by the bus's own calls, without the kernels between."""

from collections.abc import Sequence
from typing import Any

from pipeline.clock import SECOND_NS
from pipeline.entries import NewEntry
from pipeline.frames import encode_frame
from pipeline.models import ENRICHED_CHAIN_TYPE, RAW_CHAIN_TYPE, EnrichedChain
from pipeline.runtime import Context
from pipeline.streams import Consumer
from tests.support import bus, chains

START = chains.TS_INGEST


def chain_at(number: int, underlying: str = "NIFTY", **changes: Any) -> EnrichedChain:
    """A chain received `number` seconds after START."""
    ts_ingest = START + number * SECOND_NS
    return chains.enriched(5, ts_ingest=ts_ingest, underlying=underlying, **changes)


def raw(chain: EnrichedChain) -> NewEntry:
    """The raw entry that a chain came of; its payload is left to those who decode it."""
    header = chain.header
    return NewEntry(
        id=f"{header.provider}:{header.chain}:{header.ts_ingest}:0123456789abcdef",
        type=RAW_CHAIN_TYPE,
        key=header.chain,
        ts=header.ts_ingest,
        data=b"a body",
    )


def enriched(chain: EnrichedChain, revision: int = 1) -> NewEntry:
    """The enriched entry of a chain, as the processor makes it."""
    return NewEntry(
        id=f"{raw(chain).id}:r{revision}",
        type=ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        te=chain.header.ts_ingest,
        data=encode_frame(chain),
        contracts=chain.header.n,
    )


def shard_of(context: Context, chain: EnrichedChain) -> int:
    return context.topics.shard_of(chain.header.underlying)


async def append_raw(context: Context, held: Sequence[EnrichedChain]) -> None:
    for chain in held:
        await bus.append(context, context.topics.raw(shard_of(context, chain)), raw(chain))


async def process(context: Context, held: Sequence[EnrichedChain], shard: int = 0) -> None:
    """Finish the raw entries of one shard, each with the frame of its chain."""
    by_id = {raw(chain).id: chain for chain in held}
    reader = Consumer(
        context,
        context.topics.raw(shard),
        "processor",
        dead_stream=context.topics.dead(shard),
        start="earliest",
    )
    entries = await bus.take(reader, len(held))
    await reader.finish(
        context.topics.enriched(shard),
        [(entry, enriched(by_id[entry.id])) for entry in entries],
    )
    await reader.close()
