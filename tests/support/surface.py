"""A gateway with something to say on every route, and how each described route is asked."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg

from pipeline import schemas
from pipeline.clock import SECOND_NS
from pipeline.entries import NewEntry
from pipeline.keys import ApiKeys
from pipeline.polls import MINUTE_NS
from pipeline.streams import Consumer
from tests.support import bus, chains, gateway, servers, storing
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.reports import missing, report, write_polls

SCOPES = ("live", "history", "export", "admin")
CHAIN_SYMBOL, CONTRACT = "NIFTY-20260127", "NIFTY-20260127-25000-CE"
BEFORE_NS = CHAIN.header.ts_ingest - MINUTE_NS
GAP = missing(BEFORE_NS, BEFORE_NS + 20 * SECOND_NS, 1)
TICK = """
INSERT INTO ticks (ts, ts_event, instrument_id, last, last_size, volume)
SELECT '2026-01-25T10:00:01Z', '2026-01-25T10:00:00.9Z', instrument_id, 94.75, 65, 43225
FROM instruments WHERE symbol = %s
"""


@dataclass(frozen=True)
class Surface:
    """A gateway, an API key of all scopes, ids of three dead letters and of a schema."""

    gateway: Gateway
    key: str
    letters: list[str]
    schema_id: str


@contextlib.asynccontextmanager
async def running(
    directory: Path, postgres: PostgresServer, **changes: Any
) -> AsyncIterator[Surface]:
    """A gateway over a chain, its stored past, a registry, an API key and dead letters."""
    with servers.running(servers.valkey_binary(), directory) as server, postgres.database() as url:
        past = [chains.with_smile(moved(CHAIN, seconds=n), chains.SMILE) for n in range(5)]
        async with open_database(url) as database:
            await storing.write(database, *past)
            await write_polls(
                database,
                report(CHAIN_SYMBOL, BEFORE_NS, 0, GAP),
                report(CHAIN_SYMBOL, BEFORE_NS + MINUTE_NS, len(past)),
            )
        with psycopg.connect(url) as connection:
            connection.execute(TICK, [CONTRACT])
        async with gateway.running(server.url, url, **changes) as served:
            await served.publish(chains.with_smile(CHAIN, chains.SMILE), 1)
            await schemas.register(served.redis, [*schemas.SCHEMAS.values()])
            await _set_aside(served)
            latest = await served.get("/v1/subjects/chain.enriched/versions/latest")
            yield Surface(
                served, await _key(served), await _letters(served), str(latest.json()["id"])
            )


async def _set_aside(served: Gateway) -> None:
    stream = served.topics.raw(0)
    async with bus.context(served.settings.redis_url) as context:
        for number in range(3):
            entry = NewEntry(
                id=f"m{number}", type="chain.raw.v1", key="NIFTY", ts=number + 1, data=b"{"
            )
            await bus.append(context, stream, entry)
        reader = Consumer(
            context, stream, "processor", dead_stream=served.topics.dead(0), start="earliest"
        )
        for entry in await bus.take(reader, 3):
            await reader.dead_letter(entry, "undecodable", "no JSON at 1")
        await reader.close()


async def _letters(served: Gateway) -> list[str]:
    headers = {"Authorization": f"Bearer {served.token('admin')}"}
    body = (await served.http.get("/v1/admin/dead-letters", headers=headers)).json()
    return [letter["id"] for letter in body["data"]]


async def _key(served: Gateway) -> str:
    text, _ = await ApiKeys(served.redis).create("desk", SCOPES)
    return text


def address(path: str, operation: dict[str, Any], **values: str) -> str:
    """The address of an operation, with its own examples for the parameters of its path."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            name = parameter["name"]
            text = values.get(name, parameter["example"])
            path = path.replace(f"{{{name}}}", quote(text, safe=""))
    return path


async def told(
    surface: Surface, path: str, method: str, operation: dict[str, Any]
) -> httpx.Response:
    """The success of the gateway at an operation, of the stream as far as the first values."""
    served = surface.gateway
    name = operation["operationId"]
    letter = {"redrive": 0, "drop": 1}.get(name, 2)
    target = address(path, operation, letter_id=surface.letters[letter], number=surface.schema_id)
    if name == "analytics_history":
        target += "?metric=spot,atm_iv"
    if name == "snapshots":
        target += f"?ids=NIFTY,{CONTRACT}"
    if name == "stream":
        return await _streamed(served, f"{target}?channels=underlying:NIFTY")
    if name == "symbols":
        target += "?q=25000"
    if name == "export":
        target += "?format=json"
    if method == "get" and "start" in {each["name"] for each in operation["parameters"]}:
        target += ("&" if "?" in target else "?") + "start=2026-01-25&end=2026-01-26"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    token = surface.key if name == "exchange" else served.token(*SCOPES)
    sent = None if name in ("revoke", "exchange") else body.get("example")
    response = await served.http.request(
        method.upper(), target, headers={"Authorization": f"Bearer {token}"}, json=sent
    )
    assert response.status_code == 200, (target, response.status_code, response.text)
    return response


async def _streamed(served: Gateway, target: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {served.token()}"}
    text = ""
    async with served.http.stream("GET", target, headers=headers) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            text += f"{line}\n"
            if '"snapshot"' in line:
                break
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def value_of(response: httpx.Response) -> Any:
    """What an answer holds: JSON, or text where that is what it is."""
    return response.json() if "json" in response.headers["content-type"] else response.text


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (path, method, operation) of a description."""
    return [
        (path, method, operation)
        for path, each in document["paths"].items()
        for method, operation in each.items()
    ]
