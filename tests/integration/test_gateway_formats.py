"""Every answer in every format, as real clients ask for it: alike, tagged, and compressed."""

import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
import pytest_asyncio
from pyarrow import parquet

from api.rest.formats import Format
from api.rest.history import CONTRACT_FIELDS
from tests.support import chains, gateway, servers
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEAREST = "/v1/chains/NIFTY/nearest"
HISTORY = "/v1/contracts/NIFTY-20260127-25000-CE/history"
LISTS = (NEAREST, HISTORY, "/v1/underlyings", "/v1/underlyings/NIFTY/history")
SNAPSHOTS = 10


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Gateway]:
    """A gateway over ten snapshots, one second apart."""
    directory = tmp_path_factory.mktemp("formats")
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, *(moved(CHAIN, seconds=n) for n in range(SNAPSHOTS)))
        async with gateway.running(server.url, url) as running:
            await running.publish(CHAIN, 1)
            yield running


def rows_of(kind: Format, response: httpx.Response) -> list[dict[str, Any]]:
    """The rows of an answer, as any client of that format reads them."""
    body = response.content
    if kind is Format.JSON:
        rows: list[dict[str, Any]] = json.loads(body)["data"]
    elif kind is Format.MSGPACK:
        rows = msgspec.msgpack.decode(body)["data"]
    elif kind is Format.NDJSON:
        rows = [json.loads(line) for line in body.splitlines()]
    elif kind is Format.CSV:
        rows = list(csv.DictReader(io.StringIO(body.decode())))
    elif kind is Format.ARROW:
        rows = pa.ipc.open_stream(body).read_all().to_pylist()
    else:
        rows = parquet.read_table(io.BytesIO(body)).to_pylist()
    return rows


def plain(value: Any) -> Any:
    """A value as CSV has it."""
    return "" if value is None else str(value)


@pytest.mark.parametrize("kind", Format, ids=lambda kind: kind.suffix)
@pytest.mark.parametrize("path", LISTS)
async def test_every_list_is_the_same_in_every_format(
    served: Gateway, path: str, kind: Format
) -> None:
    wanted = rows_of(Format.JSON, await served.get(path))
    asked = await served.get(f"{path}?format={kind.suffix}")
    accepted = await served.get(path, headers={"Accept": kind.media_type})
    for response in (asked, accepted):
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == kind.content_type
        assert "Accept" in response.headers["vary"]
        rows = rows_of(kind, response)
        assert len(rows) == len(wanted) > 0
        for row, want in zip(rows, wanted, strict=True):
            for name in ("symbol", "last", "iv", "volume", "spot", "atm_iv"):
                if name in want:
                    value = plain(want[name]) if kind is Format.CSV else want[name]
                    assert row[name] == value


async def test_object_has_the_formats_of_objects(served: Gateway) -> None:
    path = "/v1/underlyings/NIFTY"
    wanted = (await served.get(path)).json()["data"]
    assert json.loads((await served.get(f"{path}?format=ndjson")).content) == wanted
    packed = await served.get(path, headers={"Accept": "application/msgpack"})
    assert msgspec.msgpack.decode(packed.content)["data"] == wanted
    for response in (
        await served.get(f"{path}?format=csv"),
        await served.get(path, headers={"Accept": "application/vnd.apache.parquet"}),
        await served.get(NEAREST, headers={"Accept": "image/png"}),
    ):
        assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert (await served.get(f"{path}?format=xml")).status_code == 400


async def test_rows_alone_have_meta_and_next_beside_them(served: Gateway) -> None:
    path = f"{HISTORY}?end=2026-01-25T10:00:30Z&limit=4&format="
    meta = (await served.get(path + "json")).json()["meta"]
    lines = await served.get(path + "ndjson")
    told = json.loads(lines.headers["x-meta"])
    assert told["coverage"] == meta["coverage"]
    assert told["rows"] == 4
    seen = 0
    following: str | None = path + "arrow"
    while following is not None:
        response = await served.get(following)
        table = pa.ipc.open_stream(response.content).read_all()
        seen += table.num_rows
        following = response.links.get("next", {}).get("url")
        assert (b"stockify.next" in table.schema.metadata) == (following is not None)
        assert json.loads(table.schema.metadata[b"stockify.meta"])["coverage"] == meta["coverage"]
    assert seen == SNAPSHOTS


async def test_arrow_has_instants_and_the_columns_of_an_empty_list(served: Gateway) -> None:
    full = pa.ipc.open_stream((await served.get(f"{HISTORY}?format=arrow")).content).read_all()
    assert full["ts_ingest"].type == pa.timestamp("ns", "UTC")
    assert full["ts_ingest"][0].value == chains.TS_INGEST
    path = f"{HISTORY}?start=2020-01-01&end=2020-01-02&format="
    empty = pa.ipc.open_stream((await served.get(path + "arrow")).content).read_all()
    assert empty.num_rows == 0
    assert {name: empty.schema.field(name) for name in full.schema.names} == {
        name: full.schema.field(name) for name in full.schema.names
    }
    assert (await served.get(path + "csv")).text == ",".join(CONTRACT_FIELDS) + "\n"
    assert (await served.get(path + "csv&fields=last,iv")).text == "last,iv\n"


async def test_entity_tag_is_one_a_format(served: Gateway) -> None:
    tags = set()
    for kind in Format:
        headers = {"Accept": kind.media_type}
        tag = (await served.get(NEAREST, headers=headers)).headers["etag"]
        tags.add(tag)
        same = await served.get(NEAREST, headers=headers | {"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert "Accept" in same.headers["vary"]
    assert len(tags) == len(Format)
    json_tag = (await served.get(NEAREST)).headers["etag"]
    other = await served.get(f"{NEAREST}?format=csv", headers={"If-None-Match": json_tag})
    assert other.status_code == 200


async def test_large_text_is_compressed_for_who_takes_it(served: Gateway) -> None:
    async def raw(path: str, coding: str) -> tuple[str | None, bytes]:
        headers = {"Authorization": f"Bearer {served.token()}", "Accept-Encoding": coding}
        async with served.http.stream("GET", path, headers=headers) as response:
            body = b"".join([piece async for piece in response.aiter_raw()])
            return response.headers.get("content-encoding"), body

    said, whole = await raw(NEAREST, "identity")
    assert said is None
    said, smaller = await raw(NEAREST, "gzip")
    assert said == "gzip"
    assert len(smaller) < len(whole) / 2
    assert json.loads(gzip.decompress(smaller))["data"] == json.loads(whole)["data"]
    said, smallest = await raw(NEAREST, "gzip, zstd")
    assert (said, len(smallest) < len(whole) / 2) == ("zstd", True)
    for path in (f"{NEAREST}?format=arrow", f"{NEAREST}?format=parquet", "/v1/underlyings"):
        assert (await raw(path, "gzip, zstd"))[0] is None
