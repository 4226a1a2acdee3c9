"""Writes the examples of the descriptions again: `python -m tests.support.record_surface`.

Asks a gateway over synthetic data what its description offers, and keeps the answers, shortened.
"""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from api.reference.examples import EXAMPLES, FILE
from tests.support import postgres, surface

ELEMENTS = 1  # of a list
_SECRETS = {"token": "eyJhbGciOi…", "ticket": "st_…", "token_id": "0a1b2c3d4e5f"}


def shortened(value: Any, name: str = "") -> Any:
    """A value without most of its elements, and without what lets anybody in."""
    if isinstance(value, dict):
        return {key: shortened(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each, name) for each in value[:ELEMENTS]]
    if name in _SECRETS:
        return _SECRETS[name]
    if name == "request_id":
        return "5c8ae0b1f2d34a67"
    return value


async def record(directory: Path, server: postgres.PostgresServer) -> dict[str, Any]:
    """The answers by the names of their operations; bodies of requests are kept as they are."""
    found = {name: each for name, each in EXAMPLES.items() if name.endswith(".body")}
    async with surface.running(directory, server) as served:
        document = (await served.gateway.http.get("/openapi.json")).json()
        for path, method, operation in surface.operations(document):
            name = operation["operationId"]
            if name == "stream":
                found[name] = EXAMPLES.get(name)
                continue
            answer = await surface.told(served, path, method, operation)
            if isinstance(answer, str):
                answer = "\n".join(re.split(r"\r?\n", answer)[:2])
            found[name] = shortened(answer)
    return dict(sorted(found.items()))


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as directory, postgres.running_wheel() as server:
        found = asyncio.run(record(Path(directory), server))
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
