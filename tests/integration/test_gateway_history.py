"""History over REST: what the storage worker wrote, page by page, from a real Postgres."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from api.rest.answers import decode_cursor, encode_cursor
from api.rest.history import CONTRACT_FIELDS, SNAPSHOT_FIELDS
from pipeline.clock import SECOND_NS
from tests.support import chains, gateway, servers
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATM = "NIFTY-20260127-25000-CE"
CONTRACT = f"/v1/contracts/{ATM}/history"
UNDERLYING = "/v1/underlyings/NIFTY/history"
SERIES = [
    chains.with_smile(moved(CHAIN, seconds=n, last={20: 90.0 + n, 21: 80.0 + n}), smile)
    for n, smile in enumerate([None, *[chains.SMILE] * 9])
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Gateway]:
    """A gateway over ten snapshots, one second apart."""
    directory = tmp_path_factory.mktemp("history")
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, *SERIES)
        async with gateway.running(server.url, url) as running:
            yield running


async def rows_of(served: Gateway, path: str) -> list[dict[str, Any]]:
    response = await served.get(path)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()["data"]
    return rows


async def test_contract_history_is_complete_and_in_order(served: Gateway) -> None:
    body = (await served.get(CONTRACT)).json()
    assert [row["last"] for row in body["data"]] == [90.0 + n for n in range(10)]
    assert tuple(sorted(body["data"][0])) == tuple(sorted(CONTRACT_FIELDS))
    assert body["data"][0]["ts_ingest"] == "2026-01-25T10:00:00.000000Z"
    assert (body["meta"]["symbol"], body["meta"]["rows"]) == (ATM, 10)
    assert body["next"] is None


async def test_underlying_history_is_complete_and_in_order(served: Gateway) -> None:
    rows = await rows_of(served, f"{UNDERLYING}?ts=ns")
    assert [row["ts_ingest"] for row in rows] == [
        chains.TS_INGEST + n * SECOND_NS for n in range(10)
    ]
    assert tuple(sorted(rows[0])) == tuple(sorted(SNAPSHOT_FIELDS))
    assert rows == await rows_of(served, f"{UNDERLYING}?ts=ns&expiry=2026-01-27")
    assert await rows_of(served, f"{UNDERLYING}?expiry=2026-02-03&start=2020-01-01") == []


async def test_snapshots_have_their_aggregates_and_the_smile_of_the_latest_header(
    served: Gateway,
) -> None:
    rows = await rows_of(served, UNDERLYING)
    for name, value in msgspec.structs.asdict(CHAIN.header.aggregates).items():
        assert {row[name] for row in rows} == {value}
    smile = msgspec.structs.asdict(chains.SMILE)
    assert [row["smile"] for row in rows] == [None, *[smile] * 9]
    assert await rows_of(served, f"{UNDERLYING}?fields=smile&order=desc&limit=1") == [
        {"smile": smile}
    ]
    path = "/v1/chains/NIFTY/2026-01-27?as_of=2026-01-25T10:00:0{}Z"
    metas = [(await served.get(path.format(second))).json()["meta"] for second in (0, 1)]
    assert [meta["smile"] for meta in metas] == [None, smile]
    assert metas[1]["aggregates"] == msgspec.structs.asdict(CHAIN.header.aggregates)


async def test_range_is_half_open(served: Gateway) -> None:
    query = "start=2026-01-25T15:30:02%2B05:30&end=2026-01-25T10:00:05Z&fields=last"
    assert await rows_of(served, f"{CONTRACT}?{query}") == [{"last": 92.0 + n} for n in range(3)]
    first = chains.TS_INGEST
    exact = f"start={first}&end={first + 1_000}&fields=ts_ingest&ts=ns"
    assert await rows_of(served, f"{CONTRACT}?{exact}") == [{"ts_ingest": first}]


async def test_date_is_a_day_of_the_exchange(served: Gateway) -> None:
    assert len(await rows_of(served, f"{CONTRACT}?start=2026-01-25&end=2026-01-26")) == 10
    assert await rows_of(served, f"{CONTRACT}?start=2026-01-24&end=2026-01-25") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("path", [CONTRACT, UNDERLYING])
@pytest.mark.parametrize("limit", [1, 3, 5, 10])
async def test_pages_are_the_whole_without_gap_or_repeat(
    served: Gateway, path: str, order: str, limit: int
) -> None:
    whole = await rows_of(served, f"{path}?order={order}")
    assert [row["ts_ingest"] for row in whole] == sorted(
        (row["ts_ingest"] for row in whole), reverse=order == "desc"
    )
    following: str | None = f"{path}?order={order}&limit={limit}"
    pages: list[dict[str, Any]] = []
    while following is not None:
        response = await served.get(following)
        pages += response.json()["data"]
        following = _linked(response)
    assert pages == whole


def _linked(response: httpx.Response) -> str | None:
    """The address of the next page, which the body and the header agree on."""
    cursor = response.json()["next"]
    assert (cursor is None) == ("next" not in response.links)
    if cursor is None:
        return None
    address = response.links["next"]["url"]
    assert f"cursor={cursor}" in address
    return address


_FORGED: list[tuple[Any, ...]] = [
    (),
    ("x",),
    (1, 2),
    (-1, 2, 3, "NIFTY-20260127"),
    (1, 2**63, 3, "NIFTY-20260127"),
    (1.5, 2, 3, "NIFTY-20260127"),
    (1, 2, 3, "NIFTY-20260127", 5),
    (1, 2, "3", "NIFTY-20260127"),
    (1, 2, 3, "NIFTY"),
    (1, 2, 3, "'; DROP TABLE ledger; --"),
    (1, 2, 3, "NIFTY-20260127\0"),
    (1, 2, 3, "é" * 65),
    (None, None, None, None),
]


@pytest.mark.parametrize("parts", _FORGED, ids=repr)
async def test_forged_cursor_is_refused(served: Gateway, parts: tuple[Any, ...]) -> None:
    real = (await served.get(f"{UNDERLYING}?limit=1")).json()["next"]
    digest = decode_cursor(real, tuple[str, int, int, int, str])[0]
    response = await served.get(UNDERLYING, params={"cursor": encode_cursor(digest, *parts)})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_query")
    assert response.json()["errors"][0]["parameter"] == "cursor"


@pytest.mark.parametrize(
    "parts",
    [
        (0, 2**63 - 1, 0, "NIFTY-20260127"),
        (0, 2**63 - 1, 2**63 - 1, "NIFTY-99991231"),
        (2**63 - 1, 0, 0, "NIFTY-00010101"),
    ],
    ids=["all there is", "behind the end", "turned round"],
)
async def test_cursor_of_any_range_is_a_page_of_it(served: Gateway, parts: tuple[Any, ...]) -> None:
    real = (await served.get(f"{UNDERLYING}?limit=1")).json()["next"]
    digest = decode_cursor(real, tuple[str, int, int, int, str])[0]
    response = await served.get(UNDERLYING, params={"cursor": encode_cursor(digest, *parts)})
    assert response.status_code == 200, response.text
    rows = response.json()["data"]
    assert len(rows) == (10 if parts[:3] == (0, 2**63 - 1, 0) else 0)


@pytest.mark.parametrize("place", [0, 5, -2], ids=["digest", "shape", "position"])
async def test_cursor_with_a_changed_character_is_refused_or_a_page(
    served: Gateway, place: int
) -> None:
    real = (await served.get(f"{UNDERLYING}?limit=1")).json()["next"]
    for letter in "Az0-_=é%":
        changed = real[:place] + letter + real[place:][1:]
        response = await served.get(UNDERLYING, params={"cursor": changed})
        assert response.status_code in (200, 400)
        if response.status_code == 400:
            assert response.json()["errors"][0]["parameter"] == "cursor"


@pytest.mark.parametrize(
    "query",
    [
        "start=0&end=2262-04-11",
        "start=0&end=9223372036854775807&order=desc",
        "start=1970-01-02&limit=10000",
    ],
)
@pytest.mark.parametrize("path", [CONTRACT, UNDERLYING, f"/v1/candles/{ATM}", "/v1/gaps"])
async def test_range_of_all_time_is_answered(served: Gateway, path: str, query: str) -> None:
    response = await served.get(f"{path}?{query}")
    assert response.status_code == 200, response.text
    coverage = response.json()["meta"]["coverage"]
    assert coverage["gaps_cut"]
    assert len(coverage["gaps"]) < 200
    assert coverage["end"] < "2026-01-26"  # now, and not the end that was asked for


async def test_chain_as_of_is_the_last_one_before(served: Gateway) -> None:
    path = "/v1/chains/NIFTY/2026-01-27?as_of=2026-01-25T10:00:04.5Z"
    body = (await served.get(path)).json()
    assert len(body["data"]) == 42
    assert body["data"][20]["symbol"] == ATM
    assert body["data"][20]["last"] == 94.0
    assert body["meta"]["ts_ingest"] == "2026-01-25T10:00:04.000000Z"
    assert body["meta"]["aggregates"]["atm_strike"] == 25_000
    around = (await served.get(path + "&around=0&fields=strike,kind&layout=rows")).json()["data"]
    assert around == [{"strike": 25_000.0, "kind": "call"}, {"strike": 25_000.0, "kind": "put"}]
    early = await served.get("/v1/chains/NIFTY/2026-01-27?as_of=2026-01-25")
    assert (early.status_code, early.json()["code"]) == (404, "unknown_snapshot")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{CONTRACT}?limit=0", 400, "invalid_query"),
        (f"{CONTRACT}?limit=10001", 400, "invalid_query"),
        (f"{CONTRACT}?start=2026-01-26&end=2026-01-25", 400, "invalid_query"),
        (f"{CONTRACT}?cursor=garbage", 400, "invalid_query"),
        (f"{CONTRACT}?cursor=é", 400, "invalid_query"),
        (f"{CONTRACT}?fields=colour", 400, "invalid_query"),
        (f"{CONTRACT}?expiry=2026-01-27", 400, "invalid_query"),
        (f"{CONTRACT}?interval=1m", 400, "invalid_query"),
        (f"{UNDERLYING}?expiry=never", 400, "invalid_query"),
        (f"{UNDERLYING}?cursor=kgGjYWJj", 400, "invalid_query"),
        ("/v1/contracts/NIFTY-20260127-1-CE/history", 404, "unknown_contract"),
        ("/v1/contracts/NIFTY/history", 404, "unknown_contract"),
        ("/v1/underlyings/GOLD/history", 404, "unknown_underlying"),
        ("/v1/underlyings/NIFTY-20260127/history", 404, "unknown_underlying"),
    ],
)
async def test_bad_request_gets_a_problem(
    served: Gateway, path: str, status: int, code: str
) -> None:
    response = await served.get(path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def test_gateway_with_all_its_parts_is_ready(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    ready = await served.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready"), ready.text
    assert ready.json()["reasons"] == []
