"""Prints every chain of NIFTY as it comes: a script beside the running instance."""

import asyncio

from pipeline.streams import consume


async def main() -> None:
    """Until Ctrl-C or SIGTERM."""
    async with consume("my-watch", underlying="NIFTY", band_percent=1.0) as batches:
        async for batch in batches:
            for chain in batch:
                header, columns = chain.header, chain.columns
                print(header.chain, f"{header.forward:.2f}", columns["iv"].round(4), flush=True)
                for leg in chain.legs():
                    print("  ", leg.symbol, leg.bid, leg.ask, leg.delta, flush=True)


asyncio.run(main())
