"""Symbols, expiries and snapshots over REST: what there is, and what has changed."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
import pytest_asyncio

from pipeline.clock import SECOND_NS, expiry_ns
from tests.support import chains, gateway, servers
from tests.support.gateway import Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAST, LATER = date(2026, 1, 13), date(2026, 2, 3)
CALL = "NIFTY-20260127-25000-CE"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Gateway]:
    """A gateway over three chains of NIFTY, one long expired, and one of BANKNIFTY."""
    directory = tmp_path_factory.mktemp("symbols")
    stored = [
        chains.enriched(3, expiry=PAST, ts_ingest=expiry_ns(PAST) - 3_600 * SECOND_NS),
        chains.enriched(3, lot=chains.LOT),
        chains.enriched(3, expiry=LATER),
        chains.enriched(3, underlying="BANKNIFTY"),
    ]
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, *stored)
        async with gateway.running(server.url, url) as running:
            for seq, chain in enumerate(stored[1:], 1):
                await running.publish(chain, seq)
            yield running


async def found(served: Gateway, query: str) -> list[str]:
    response = await served.get(f"/v1/symbols?{query}")
    assert response.status_code == 200, response.text
    return [row["symbol"] for row in response.json()["data"]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("type=underlying", ["BANKNIFTY", "NIFTY"]),
        ("q=nif&type=underlying,chain", ["NIFTY", "NIFTY-20260127", "NIFTY-20260203"]),
        ("q=bank+25000", ["BANKNIFTY-20260127-25000-CE", "BANKNIFTY-20260127-25000-PE"]),
        ("q=nifty+25000+ce", [CALL, "NIFTY-20260203-25000-CE"]),
        ("q=nifty+27+jan+25000+call", [CALL]),
        (f"q={CALL}", [CALL]),
        ("q=gold", []),
        ("q=%25", []),
        (
            "underlying=NIFTY&expiry=2026-01-13&strike.gte=25050&kind=put",
            ["NIFTY-20260113-25050-PE"],
        ),
        (
            "type=chain&underlying=NIFTY&expired=true",
            ["NIFTY-20260113", "NIFTY-20260127", "NIFTY-20260203"],
        ),
        ("type=chain&expiry.gte=2026-02-01&expiry.lte=2026-03-01", ["NIFTY-20260203"]),
        ("type=chain&expiry.gte=2026-02-01&expiry=2026-01-27", []),
        ("type=chain&expiry=2026-02-03&expiry.lte=2026-02-02", []),
        ("q=%27%3B%20DROP%20TABLE%20instruments%3B--", []),
        ("q=NIFTY_", []),
        ("q=%5C%25", []),
    ],
)
async def test_symbols_are_found_by_what_is_typed_and_by_their_terms(
    served: Gateway, query: str, wanted: list[str]
) -> None:
    assert await found(served, query) == wanted


async def test_pages_of_symbols_are_the_whole_in_order(served: Gateway) -> None:
    whole = await found(served, "expired=true")
    assert len(whole) == 2 + 4 + 4 * 6
    assert whole[:3] == ["BANKNIFTY", "BANKNIFTY-20260127", "BANKNIFTY-20260127-24950-CE"]
    assert whole[3:5] == ["BANKNIFTY-20260127-24950-PE", "BANKNIFTY-20260127-25000-CE"]
    for order, wanted in (("asc", whole), ("desc", whole[::-1])):
        pages: list[str] = []
        address: str | None = f"/v1/symbols?expired=true&limit=7&order={order}"
        while address is not None:
            response = await served.get(address)
            pages += [row["symbol"] for row in response.json()["data"]]
            address = response.links["next"]["url"] if "next" in response.links else None
        assert pages == wanted


async def test_symbol_has_its_terms_and_when_they_held(served: Gateway) -> None:
    told = (await served.get(f"/v1/symbols/{CALL}")).json()["data"]
    (definition,) = told.pop("definitions")
    assert told == {
        "type": "contract",
        "symbol": CALL,
        "underlying": "NIFTY",
        "exchange": "NSE",
        "expiry": "2026-01-27",
        "strike": 25_000.0,
        "kind": "call",
        "lot": chains.LOT,
        "tick": 0.05,
        "contracts": 1,
        "valid_from": "2026-01-25T10:00:00.000000Z",
        "valid_to": None,
        "is_expired": False,
    }
    assert (definition["provider"], definition["lot"]) == ("dhan", chains.LOT)
    chain = (await served.get("/v1/symbols/NIFTY-20260113")).json()["data"]
    assert (chain["type"], chain["contracts"], chain["is_expired"]) == ("chain", 6, True)
    whole = (await served.get("/v1/symbols/NIFTY")).json()["data"]
    assert (whole["contracts"], whole["is_expired"], whole["tick"]) == (18, None, None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/symbols/NIFTY-20260127-1-CE", 404),
        ("/v1/symbols/GOLD", 404),
        ("/v1/symbols?type=share", 400),
        ("/v1/symbols?q=a%00b", 400),
        ("/v1/symbols?underlying=%00", 400),
        ("/v1/symbols?order=up", 400),
        ("/v1/symbols?cursor=lahhYWE", 400),
        ("/v1/snapshots?updated_since=2026-01-25", 400),
    ],
)
async def test_bad_request_is_refused(served: Gateway, path: str, status: int) -> None:
    assert (await served.get(path)).status_code == status


async def test_past_expiries_are_those_that_are_stored(served: Gateway) -> None:
    async def days(query: str) -> list[str]:
        response = await served.get(f"/v1/underlyings/NIFTY/expiries{query}")
        return [row["expiry"] for row in response.json()["data"]]

    assert await days("") == ["2026-01-27", "2026-02-03"]
    assert await days("?past=true") == ["2026-01-27", "2026-02-03", "2026-01-13"]
    alone = {"Authorization": f"Bearer {served.token('live')}"}
    refused = await served.http.get("/v1/underlyings/NIFTY/expiries?past=true", headers=alone)
    assert refused.status_code == 403


async def test_snapshots_updated_since_are_those_that_changed(served: Gateway) -> None:
    async def told(**query: Any) -> dict[str, Any]:
        asked = {"ids": f"NIFTY-20260203,{CALL},NIFTY-20260113", "ts": "ns", **query}
        body: dict[str, Any] = (await served.get("/v1/snapshots", params=asked)).json()
        return body

    first = await told()
    assert [row["symbol"] for row in first["data"]] == ["NIFTY-20260203", CALL]
    since = first["meta"]["ts_updated"]
    again = await told(updated_since=since)
    assert again["data"] == []
    assert again["meta"]["unchanged"] == ["NIFTY-20260203", CALL]
    await served.publish(moved(chains.enriched(3), seconds=3), 9)
    changed = await told(updated_since=since)
    assert [row["symbol"] for row in changed["data"]] == [CALL]
    assert changed["meta"]["unchanged"] == ["NIFTY-20260203"]
    assert changed["meta"]["missing"] == ["NIFTY-20260113"]
    assert changed["meta"]["ts_updated"] == since + 3 * SECOND_NS
