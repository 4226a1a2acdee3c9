"""asyncpg's `copy_records_to_table` as its users call it, a batch of rows a transaction.

Started by its path with the Python of `.venv-bench`, which has none of this project's packages, so
it imports none. Records are made off the clock. Never compares: it answers what it is asked.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

NULL_INTEGER = -(2**63)
_EPOCH = datetime.fromtimestamp(0, UTC)


def records(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows of a batch; `ts` comes in µs, NaN and the least integer are None."""
    names, lists = [], []
    with np.load(path) as stored:
        for name in stored.files:
            values = stored[name]
            names.append(name)
            if name == "ts":
                lists.append([_EPOCH + timedelta(microseconds=us) for us in values.tolist()])
                continue
            given = values.astype(object)
            given[np.isnan(values) if values.dtype.kind == "f" else values == NULL_INTEGER] = None
            lists.append(given.tolist())
    return names, list(zip(*lists, strict=True))


def batches(folder: Path) -> list[Path]:
    """The files of the batches, in order."""
    return sorted(folder.glob("*.npz"))


async def load(connection: Any, folder: Path) -> dict[str, float]:
    """Load the batches of a folder, each made into records before its clock starts."""
    wall = cpu = 0.0
    rows = 0
    for path in batches(folder):
        names, batch = records(path)
        began = time.perf_counter(), time.process_time()
        await connection.copy_records_to_table("option_contracts", records=batch, columns=names)
        wall += time.perf_counter() - began[0]
        cpu += time.process_time() - began[1]
        rows += len(batch)
    return {"rows": rows, "wall_s": wall, "cpu_s": cpu}


async def serve(folder: Path) -> None:
    """Answer each line `{"url"}` of stdin with what loading all batches there took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        asyncpg: Any = importlib.import_module("asyncpg")
    except ImportError as error:
        answer(missing=str(error))
        return
    answer(version=asyncpg.__version__)
    connections: dict[str, Any] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        url = json.loads(line)["url"]
        if url not in connections:
            connections[url] = await asyncpg.connect(url)
        answer(**await load(connections[url], folder))
    for connection in connections.values():
        await connection.close()


def main() -> None:
    """Run until stdin ends, on uvloop where it is installed."""
    folder = Path(sys.argv[1])
    try:
        loops: Any = importlib.import_module("uvloop")
    except ImportError:
        asyncio.run(serve(folder))
    else:
        loops.run(serve(folder))


if __name__ == "__main__":
    main()
