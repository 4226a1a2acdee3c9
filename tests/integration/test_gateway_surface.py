"""The volatility surface over REST, from chains that were enriched and published as ever."""

import math
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.rest.analytics import MONEYNESS
from pipeline import latest
from pipeline.clock import expiry_ns
from pipeline.models import EnrichedChain, Expiries
from tests.support import chains, gateway, servers
from tests.support.gateway import Gateway

PATH = "/v1/underlyings/NIFTY/surface"
LATER, UNSEEN, PAST = date(2026, 2, 3), date(2026, 2, 10), date(2026, 1, 20)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def chain(expiry: date, **changes: Any) -> EnrichedChain:
    """A chain of that expiry; `changes` are of its smile."""
    made = chains.enriched(41, expiry=expiry)
    if not changes:
        return made
    assert made.header.smile is not None
    smile = msgspec.structs.replace(made.header.smile, **changes)
    return EnrichedChain(msgspec.structs.replace(made.header, smile=smile), made.legs)


def lifted(expiry: date, by: float) -> EnrichedChain:
    """The same with more total variance at every strike."""
    smile = chain(expiry).header.smile
    assert smile is not None
    return chain(expiry, a=smile.a + by)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with two chains to come, one past, and one that is listed but was not received."""
    directory = tmp_path_factory.mktemp("surface")
    listed = Expiries(
        underlying="NIFTY",
        provider="dhan",
        ts_ingest=chains.TS_INGEST,
        expiries=(chains.EXPIRY, LATER, UNSEEN),
    )
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(server.url) as running:
            before = expiry_ns(PAST) - 3_600 * 1_000_000_000
            await running.publish(chains.enriched(expiry=PAST, ts_ingest=before), 1)
            await running.publish(chain(chains.EXPIRY), 2)
            await running.publish(lifted(LATER, 3e-4), 3)
            await latest.write_expiries(running.redis, running.topics, 0, listed)
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def served(valkey: str) -> AsyncIterator[Gateway]:
    """A gateway of the test's own."""
    async with gateway.running(valkey) as running:
        yield running


async def test_every_expiry_to_come_has_its_row(shared: Gateway) -> None:
    body = (await shared.get(PATH)).json()
    rows = body["data"]
    assert [row["expiry"] for row in rows] == ["2026-01-27", "2026-02-03", "2026-02-10"]
    assert body["meta"]["n"] == 3
    assert body["meta"]["moneyness"] == list(MONEYNESS)
    assert body["meta"]["underlying"] == "NIFTY"
    header = chain(chains.EXPIRY).header
    first = rows[0]
    assert first["chain"] == "NIFTY-20260127"
    assert (first["years"], first["forward"], first["spot"]) == (
        header.years,
        header.forward,
        header.spot,
    )
    assert first["atm_iv"] == header.aggregates.atm_iv
    assert first["ts_ingest"] == "2026-01-25T10:00:00.000000Z"
    assert header.smile is not None
    assert first["smile"] == msgspec.structs.asdict(header.smile)


async def test_the_grid_is_what_the_smile_says_at_each_moneyness(shared: Gateway) -> None:
    body = (await shared.get(PATH)).json()
    for row in body["data"][:2]:
        smile = row["smile"]
        for moneyness, iv in zip(body["meta"]["moneyness"], row["iv"], strict=True):
            u = math.log(moneyness) - smile["m"]
            root = math.hypot(u, smile["sigma"])
            w = smile["a"] + smile["b"] * (smile["rho"] * u + root)
            if iv is not None:
                assert iv == pytest.approx(math.sqrt(w / row["years"]), rel=1e-12)
    known = [sum(iv is not None for iv in row["iv"]) for row in body["data"][:2]]
    assert 3 < known[0] < known[1] <= len(MONEYNESS)  # the nearer, the narrower
    assert body["data"][0]["iv"][10] == pytest.approx(0.12, abs=0.005)  # at the forward


async def test_what_was_not_received_is_null(shared: Gateway) -> None:
    row = (await shared.get(PATH)).json()["data"][2]
    assert (row["expiry"], row["chain"]) == ("2026-02-10", "NIFTY-20260210")
    absent = {name: value for name, value in row.items() if name not in ("expiry", "chain")}
    assert absent.pop("flags") == []
    assert set(absent.values()) == {None}


async def test_the_points_of_the_grid_may_be_chosen(shared: Gateway) -> None:
    body = (await shared.get(f"{PATH}?moneyness=1,0.99,1.5&ts=ns")).json()
    assert body["meta"]["moneyness"] == [1.0, 0.99, 1.5]
    first = body["data"][0]
    assert len(first["iv"]) == 3
    assert first["iv"][2] is None
    assert first["ts_ingest"] == chains.TS_INGEST


async def test_calendar_arbitrage_is_flagged_on_the_later_expiry(served: Gateway) -> None:
    await served.publish(lifted(chains.EXPIRY, 0.01), 1)
    await served.publish(chain(LATER), 2)
    body = (await served.get(PATH)).json()
    assert [row["flags"] for row in body["data"]] == [[], ["calendar"]]
    (gap,) = body["meta"]["gaps"]
    assert (gap["earlier"], gap["later"]) == ("2026-01-27", "2026-02-03")
    assert gap["shortfall"] > 0
    assert 0.5 < gap["moneyness"] < 2


async def test_flags_are_empty_without_arbitrage(shared: Gateway) -> None:
    body = (await shared.get(PATH)).json()
    assert body["meta"]["gaps"] == []
    assert [row["flags"] for row in body["data"]] == [[], [], []]


@pytest.mark.parametrize("status", ["poor", "arbitrage"])
async def test_a_smile_that_fits_badly_is_flagged(served: Gateway, status: str) -> None:
    await served.publish(chain(chains.EXPIRY, status=status), 1)
    (row,) = (await served.get(PATH)).json()["data"]
    assert row["flags"] == [status]
    assert row["smile"]["status"] == status


async def test_a_chain_without_a_smile_has_no_grid(served: Gateway) -> None:
    await served.publish(chains.enriched(3), 1)
    (row,) = (await served.get(PATH)).json()["data"]
    assert (row["smile"], row["iv"], row["flags"]) == (None, None, [])
    assert row["forward"] is not None


async def test_unchanged_surface_is_304_until_a_chain_changes(served: Gateway) -> None:
    made = chain(chains.EXPIRY)
    await served.publish(made, 1)
    tag = (await served.get(PATH)).headers["etag"]
    assert (await served.get(PATH, headers={"If-None-Match": tag})).status_code == 304
    other = await served.get(f"{PATH}?moneyness=1", headers={"If-None-Match": tag})
    assert other.status_code == 200
    await served.publish(gateway.moved(made, seconds=3), 2)
    changed = await served.get(PATH, headers={"If-None-Match": tag})
    assert changed.status_code == 200


async def test_an_underlying_that_has_expired_altogether_has_no_rows(valkey: str) -> None:
    day_after = chains.EXPIRY + timedelta(days=1)
    async with gateway.running(valkey, clock=f"{day_after}T10:00:00+05:30") as served:
        await served.publish(chain(chains.EXPIRY), 1)
        assert (await served.get(PATH)).json()["data"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/underlyings/SENSEX/surface", 404, "unknown_underlying"),
        (f"{PATH}?moneyness=", 400, "invalid_query"),
        (f"{PATH}?moneyness=1,x", 400, "invalid_query"),
        (f"{PATH}?moneyness=0.1", 400, "invalid_query"),
        (f"{PATH}?moneyness=nan", 400, "invalid_query"),
        (f"{PATH}?moneyness={','.join(['1'] * 102)}", 400, "invalid_query"),
        (f"{PATH}?strike=1", 400, "invalid_query"),
    ],
    ids=["unknown", "empty", "word", "too small", "nan", "too many", "foreign"],
)
async def test_bad_request_gets_a_problem(
    shared: Gateway, path: str, status: int, code: str
) -> None:
    response = await shared.get(path)
    assert (response.status_code, response.json()["code"]) == (status, code)


async def test_the_surface_needs_the_scope_live(shared: Gateway) -> None:
    assert (await shared.http.get(PATH)).status_code == 401
    token = {"Authorization": f"Bearer {shared.token('history')}"}
    assert (await shared.http.get(PATH, headers=token)).status_code == 403
