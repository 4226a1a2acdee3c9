"""Chains on their way into Postgres without the bus between."""

import hashlib

from pipeline.database import Database
from pipeline.frames import encode_frame, open_frame
from pipeline.models import EnrichedChain
from workers.storage.writer import Arrived, Writer, Written


def arrived(chain: EnrichedChain, number: int = 1, *, id: str = "") -> Arrived:
    """A chain as an entry would bring it; the same chain has the same message id."""
    frame = encode_frame(chain)
    digest = hashlib.sha256(frame).hexdigest()[:12]
    return Arrived(
        id or f"{chain.header.chain}:{digest}",
        f"{number}-0",
        "epoch",
        number,
        chain.header.ts_ingest + 1_000_000,
        *open_frame(frame),
    )


async def write(database: Database, *chains: EnrichedChain) -> Written:
    """Store chains as the worker would."""
    now_ns = max(chain.header.ts_ingest for chain in chains)
    batch = [arrived(chain, number) for number, chain in enumerate(chains, 1)]
    return await Writer(database, lambda: now_ns).write(batch)
