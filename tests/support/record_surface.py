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

ELEMENTS, WORDS = 1, 5  # of a list; of one of plain values
_SECRETS = {"token": "eyJhbGciOi…", "ticket": "st_…", "token_id": "0a1b2c3d4e5f"}


def shortened(value: Any, name: str = "") -> Any:
    """A value without most of its elements, and without what lets anybody in."""
    if isinstance(value, dict):
        return {key: shortened(each, key) for key, each in value.items()}
    if isinstance(value, list):
        is_plain = not any(isinstance(each, dict | list) for each in value)
        return [shortened(each, name) for each in value[: WORDS if is_plain else ELEMENTS]]
    if name in _SECRETS:
        return _SECRETS[name]
    if name == "request_id":
        return "5c8ae0b1f2d34a67"
    if name == "stream":
        return re.sub(r"data: (\[.*)", _shortened_event, value)
    return value


def _shortened_event(line: re.Match[str]) -> str:
    messages = msgspec.json.decode(line[1])
    return f"data: {msgspec.json.encode([shortened(each) for each in messages]).decode()}"


async def record(directory: Path, server: postgres.PostgresServer) -> dict[str, Any]:
    """The answers by the names of their operations; bodies of requests are kept as they are."""
    found = {name: each for name, each in EXAMPLES.items() if name.endswith(".body")}
    async with surface.running(directory, server) as served:
        document = (await served.gateway.http.get("/openapi.json")).json()
        for path, method, operation in surface.operations(document):
            name = operation["operationId"]
            answer = surface.value_of(await surface.told(served, path, method, operation))
            found[name] = shortened(answer, name)
    return dict(sorted(found.items()))


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as directory, postgres.running_wheel() as server:
        found = asyncio.run(record(Path(directory), server))
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
