"""Exports: whole ranges as files from a real Postgres, streamed, bounded, and seen to be whole."""

import asyncio
import csv
import io
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import psutil
import psycopg
import pyarrow as pa
import pytest
import pytest_asyncio
from pyarrow import parquet

from pipeline.exports import DATASETS
from pipeline.models import LEG_COLUMNS, NULL_INTEGER
from tests.support import gateway, servers
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

SNAPSHOTS = 6
SERIES = [
    moved(CHAIN, seconds=n, bid={n: math.nan}, volume={n + 1: NULL_INTEGER})
    for n in range(SNAPSHOTS)
]
RANGE = "start=2026-01-25&end=2026-01-26"
MANY = "start=2026-01-20&end=2026-01-21"
MANY_ROWS = 250_000
MANY_LEGS = """
INSERT INTO option_contracts (
    ts, instrument_id, volume, last, rev, iv_status, price_source, greeks_source
)
SELECT
    '2026-01-20T04:00:00Z'::timestamptz + (n / 100) * interval '5 s',
    (SELECT min(instrument_id) FROM instruments) + n %% 100,
    nullif(n %% 7, 0), (1 + n %% 1000)::real, 1, 0, 1, 1
FROM generate_series(0, %s - 1) AS n
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Gateway]:
    """A gateway over six snapshots of a chain, and 250,000 legs of another day."""
    directory = tmp_path_factory.mktemp("exports")
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, *SERIES)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT make_day('2026-01-20')")
            connection.execute(MANY_LEGS, [MANY_ROWS])
            connection.execute("ANALYZE option_contracts")  # or each export sorts them
            connection.execute(
                "INSERT INTO gaps VALUES ('2026-01-25T10:00Z', '2026-01-25T10:01Z', 3,"
                " 'NIFTY-20260127', 'dhan', 'us', 'a, \"b\"')"
            )
            connection.execute(
                "INSERT INTO ticks (ts, instrument_id, last, volume)"
                " SELECT '2026-01-20T04:00Z', min(instrument_id), 1.5, 7 FROM instruments"
            )
        async with gateway.running(server.url, url, gateway_burst=10_000) as running:
            yield running


@pytest.fixture(scope="module")
def database_url(served: Gateway) -> str:
    return served.settings.database_url


def headers(served: Gateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {served.token('export')}"}


async def export(served: Gateway, path: str) -> httpx.Response:
    response = await served.http.get(f"/v1/exports/{path}", headers=headers(served))
    assert response.status_code == 200, response.text
    return response


def arrow(response: httpx.Response) -> pa.Table:
    return pa.ipc.open_stream(response.content).read_all()


async def test_values_are_those_that_were_stored(served: Gateway, database_url: str) -> None:
    table = arrow(await export(served, f"option_contracts?{RANGE}"))
    names = DATASETS["option_contracts"].names
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            f"SELECT leg.ts AS {', '.join(names)}"  # noqa: S608 - our names
            " FROM option_contracts AS leg INNER JOIN instruments USING (instrument_id)"
            " WHERE leg.ts >= '2026-01-25' ORDER BY leg.ts, instrument_id, leg.rev",
            binary=True,
        ).fetchall()
    wanted = dict(zip(names, map(list, zip(*stored, strict=True)), strict=True))
    assert table.num_rows == CHAIN.header.n * SNAPSHOTS
    assert tuple(table.schema.names) == names
    for name in names:
        assert table[name].to_pylist() == wanted[name], name
    assert table["bid"].null_count == table["volume"].null_count == SNAPSHOTS
    assert table.schema.field("ts_ingest").type == pa.timestamp("us", "UTC")


def packed_rows(body: bytes, rows: int) -> Any:
    """So many maps that follow one another; an array is the same behind its length."""
    return msgspec.msgpack.decode(b"\xdd" + rows.to_bytes(4, "big") + body)


async def test_columns_name_their_units(served: Gateway) -> None:
    for kind in ("arrow", "parquet"):
        response = await export(served, f"option_contracts?{RANGE}&format={kind}")
        read = (
            arrow if kind == "arrow" else lambda each: parquet.read_table(io.BytesIO(each.content))
        )
        units = {field.name: (field.metadata or {}).get(b"unit") for field in read(response).schema}
        wanted = {column.name: column.unit.encode() or None for column in LEG_COLUMNS}
        assert {name: units[name] for name in units.keys() & wanted.keys()} == {
            name: wanted[name] for name in units.keys() & wanted.keys()
        }
        assert (units["iv"], units["strike"]) == (b"per year", b"rupees")
    headers_ = arrow(await export(served, f"market_snapshots?{RANGE}&fields=spot,years,rate,rev"))
    assert [(field.metadata or {}).get(b"unit") for field in headers_.schema] == [
        *(b"rupees", b"years", b"per year", None)
    ]
    rows = await served.get("/v1/contracts/NIFTY-20260127-25000-CE/history?format=arrow")
    assert arrow(rows).schema.field("vega").metadata == {b"unit": b"rupees per vol point"}


async def test_every_dataset_can_be_had_in_every_format(served: Gateway) -> None:
    for name, dataset in DATASETS.items():
        table = arrow(await export(served, f"{name}?start=2026-01-20&end=2026-01-26"))
        assert tuple(table.schema.names) == dataset.names
        rows = table.num_rows
        assert rows > 0
        path = (
            f"{name}?start=2026-01-20&end=2026-01-26&fields={','.join(dataset.names[:3])}&format="
        )
        names = list(dataset.names[:3])
        if rows > 10_000:
            path = path.replace("start=2026-01-20", "start=2026-01-25")
            rows = CHAIN.header.n * SNAPSHOTS
        flat = parquet.read_table(io.BytesIO((await export(served, path + "parquet")).content))
        whole = (await export(served, path + "json")).json()
        packed = packed_rows((await export(served, path + "msgpack")).content, rows)
        lines = (await export(served, path + "ndjson")).content.splitlines()
        head, *cells = csv.reader(io.StringIO((await export(served, path + "csv")).text))
        assert flat.schema.names == head == list(json.loads(lines[0])) == names
        assert flat.num_rows == len(lines) == len(cells) == rows
        assert whole["data"] == packed == list(map(json.loads, lines))
        assert (whole["meta"]["dataset"], whole["next"]) == (name, None)
        for row, line in zip(cells, lines, strict=True):
            told = ["" if value is None else str(value) for value in json.loads(line).values()]
            assert row == told


async def test_text_reads_as_rest_does(served: Gateway) -> None:
    path = f"option_contracts?{RANGE}&fields=ts_ingest,symbol,expiry,iv,volume&format=ndjson"
    line = json.loads((await export(served, path)).content.splitlines()[20])
    rest = await served.get(f"/v1/contracts/{line['symbol']}/history?limit=1&end=2026-01-26")
    row = rest.json()["data"][0]
    assert {name: line[name] for name in ("ts_ingest", "iv", "volume")} == {
        name: row[name] for name in ("ts_ingest", "iv", "volume")
    }
    assert line["expiry"] == "2026-01-27"
    gaps = await export(served, f"gaps?{RANGE}&format=csv")
    assert next(csv.DictReader(io.StringIO(gaps.text)))["detail"] == 'a, "b"'


async def test_export_says_what_it_is_and_what_it_lacks(served: Gateway) -> None:
    path = f"market_snapshots?{RANGE}&underlying=NIFTY&expiry=2026-01-27"
    response = await export(served, path)
    meta = json.loads(response.headers["x-meta"])
    assert meta["coverage"]["symbol"] == "NIFTY-20260127"
    assert [gap["detail"] for gap in meta["coverage"]["gaps"] if gap["cause"] == "us"] == ['a, "b"']
    assert json.loads(arrow(response).schema.metadata[b"stockify.meta"]) == meta
    name = "market_snapshots-NIFTY-20260127-20260124T183000Z-20260125T183000Z.arrow"
    assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
    head = await served.http.head(f"/v1/exports/{path}", headers=headers(served))
    assert (head.status_code, head.content) == (200, b"")
    nothing = arrow(await export(served, f"option_contracts?{RANGE}&expiry=2026-02-03"))
    assert (nothing.num_rows, nothing.schema.names[0]) == (0, "ts_ingest")


async def test_export_of_everything_tells_the_coverage_of_all_chains(served: Gateway) -> None:
    for name in DATASETS:
        response = await export(served, f"{name}?{RANGE}&ts=ns")
        coverage = json.loads(response.headers["x-meta"])["coverage"]
        assert coverage["symbol"] is None
        told = [gap["cause"] for gap in coverage["gaps"]]
        if name == "ticks":  # which nobody counts
            assert (told, coverage["expected"], coverage["complete"]) == (["closed"], None, None)
        else:
            assert (told, coverage["present"]) == (["closed", "us"], SNAPSHOTS)
            assert coverage["complete"] is False
            assert isinstance(coverage["start"], int)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("nothing", 404, "unknown_dataset", id="dataset"),
        pytest.param("gaps?format=xml", 400, "invalid_query", id="format"),
        pytest.param("gaps?fields=iv", 400, "invalid_query", id="field-of-another"),
        pytest.param("gaps?underlying=NOTHING", 404, "unknown_underlying", id="underlying"),
        pytest.param("gaps?start=2026-01-25&end=2026-01-25", 400, "invalid_query", id="range"),
    ],
)
async def test_what_cannot_be_exported_is_told(
    served: Gateway, path: str, status: int, code: str
) -> None:
    response = await served.http.get(f"/v1/exports/{path}", headers=headers(served))
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_export_needs_its_scope(served: Gateway) -> None:
    assert (await served.get("/v1/exports/gaps")).status_code == 403


async def running_copies(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state <> 'idle' AND query LIKE 'COPY (%'"
        )
        return int((await found.fetchone() or (0,))[0])


async def until_free(served: Gateway) -> None:
    """Until one export more may run."""
    async with asyncio.timeout(10):
        path = f"/v1/exports/gaps?{RANGE}"
        while (await served.http.get(path, headers=headers(served))).status_code == 503:
            await asyncio.sleep(0.05)


async def until_no_copy_runs(url: str) -> None:
    async with asyncio.timeout(10):
        while await running_copies(url):
            await asyncio.sleep(0.05)


async def test_client_that_leaves_frees_the_session(served: Gateway, database_url: str) -> None:
    path = f"/v1/exports/option_contracts?{MANY}"
    for _ in range(5):  # more than there are connections
        async with served.http.stream("GET", path, headers=headers(served)) as response:
            assert response.status_code == 200
            await anext(response.aiter_raw())
        await until_no_copy_runs(database_url)
        await until_free(served)


async def test_export_breaks_off_when_its_token_is_revoked(
    served: Gateway, database_url: str
) -> None:
    path = f"/v1/exports/option_contracts?{MANY}"
    asked = {"Authorization": f"Bearer {served.token('export', subject='leaver')}"}
    async with served.http.stream("GET", path, headers=asked) as response:
        assert response.status_code == 200
        pieces = response.aiter_raw()
        await anext(pieces)
        revoked = await served.http.post("/v1/token/revoke", headers=asked)
        assert revoked.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            async for _piece in pieces:
                pass
    await until_no_copy_runs(database_url)
    await until_free(served)


async def test_client_that_does_not_read_holds_the_server_and_no_memory(
    served: Gateway, database_url: str
) -> None:
    path = f"/v1/exports/option_contracts?{MANY}"
    process = psutil.Process()
    idle = process.memory_info().rss
    async with served.http.stream("GET", path, headers=headers(served)) as response:
        await asyncio.sleep(0.5)
        assert await running_copies(database_url) == 1
        most, seen = 0, 0
        async for piece in response.aiter_raw():
            seen += len(piece)
            most = max(most, process.memory_info().rss)
    assert seen > MANY_ROWS * 100  # an export after others were left or broken is whole
    assert most - idle < 100e6
    await until_no_copy_runs(database_url)


async def test_exports_at_once_are_bounded(served: Gateway) -> None:
    path = f"/v1/exports/option_contracts?{MANY}"
    async with (
        served.http.stream("GET", path, headers=headers(served)) as first,
        served.http.stream("GET", path, headers=headers(served)) as second,
    ):
        assert first.status_code == second.status_code == 200
        third = await served.http.get(path, headers=headers(served))
        assert (third.status_code, third.json()["code"]) == (503, "exports_busy")
        assert third.headers["retry-after"]
    await until_free(served)


@pytest.mark.parametrize("kind", ["arrow", "parquet", "csv", "json"])
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_file_that_breaks_off_is_seen_to_be_broken(
    served: Gateway, database_url: str, kind: str, end: str
) -> None:
    path = f"/v1/exports/option_contracts?{MANY}&format={kind}"
    body = await broken_body(served, path, database_url, end)
    if kind == "arrow":
        assert not body.endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00")
    elif kind == "parquet":
        with pytest.raises(pa.ArrowInvalid):
            parquet.read_table(io.BytesIO(body))
    elif kind == "json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
    else:
        assert body.count(b"\n") <= MANY_ROWS  # with its head it would be one more
    await until_free(served)


async def broken_body(served: Gateway, path: str, url: str, end: str) -> bytes:
    """What comes of an export that the server breaks off; that it does is seen by the client."""
    body = bytearray()
    asked = headers(served) | {"Accept-Encoding": "identity"}
    async with served.http.stream("GET", path, headers=asked) as response:
        assert response.status_code == 200
        pieces = response.aiter_raw()
        body += await anext(pieces)
        await stop_copies(url, end)
        try:
            async for piece in pieces:
                body += piece
        except httpx.RemoteProtocolError:
            return bytes(body)
    raise AssertionError("the client takes the export for whole")


async def stop_copies(url: str, end: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            f"SELECT {end}(pid) FROM pg_stat_activity"  # noqa: S608 - one of two functions
            " WHERE datname = current_database() AND query LIKE 'COPY (%' AND state <> 'idle'"
        )
