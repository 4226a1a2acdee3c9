"""Analytics over REST, now and as of instants that are past, over a real Valkey and Postgres."""

import itertools
import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pipeline import dhan_chain, enrich
from pipeline.buckets import DAY_NS
from pipeline.clock import SECOND_NS, expiry_ns, to_ns
from pipeline.models import EnrichedChain
from tests.support import chains, gateway, servers
from tests.support.aggregates import aggregates_of
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAST, LATER = date(2026, 1, 20), date(2026, 2, 3)
NOW = chains.TS_INGEST
BEFORE = NOW - 60 * SECOND_NS
LONG_AGO = expiry_ns(PAST) - 3_600 * SECOND_NS
U = "/v1/underlyings/NIFTY"


def chain(expiry: date, *, ts_ingest: int = NOW, variance: float = 0.0) -> EnrichedChain:
    """A chain with a smile, which has so much more total variance at every strike."""
    made = chains.enriched(21, expiry=expiry, ts_ingest=ts_ingest)
    assert made.header.smile is not None
    smile = msgspec.structs.replace(made.header.smile, a=made.header.smile.a + variance)
    return chains.with_smile(made, smile)


def with_iv(made: EnrichedChain, iv: float | None) -> EnrichedChain:
    """The chain with another volatility at the money."""
    aggregates = msgspec.structs.replace(made.header.aggregates, atm_iv=iv)
    return EnrichedChain(msgspec.structs.replace(made.header, aggregates=aggregates), made.legs)


def uneven(underlying: str = "FINNIFTY") -> EnrichedChain:
    """A chain that is dearer below the money, held unevenly, with legs that say nothing."""
    body = chains.body(21)
    for number, (text, sides) in enumerate(body["data"]["oc"].items()):
        strike = float(text)
        iv = 0.12 + 1.1 * max(0.0, math.log(chains.FORWARD / strike)) + 0.002 * (number % 3)
        for side, is_call in (("ce", True), ("pe", False)):
            price = chains.black(strike, is_call=is_call, iv=iv)
            lots = (7 * number + 3) % 19 + (0 if is_call else 2 * number)
            changed = chains.leg(price, oi=65 * lots, volume=65 * ((5 * number) % 13 + 2))
            sides[side] = changed
    sides["ce"] |= {"oi": 0, "volume": 0, "last_price": 0.0, "top_bid_price": 0.0}
    context = chains.request_context(underlying=underlying)
    snapshot = dhan_chain.map_chain(chains.encoded(body), context, NOW)
    return enrich.enrich(snapshot, rate=0.065)


UNEVEN = uneven()
NEAR, FAR = chain(chains.EXPIRY), chain(LATER, variance=3e-4)
EARLIER = EnrichedChain(
    msgspec.structs.replace(NEAR.header, ts_ingest=BEFORE, spot=24_990.0), NEAR.legs
)
EXPIRED = chain(PAST, ts_ingest=LONG_AGO)
# BANKNIFTY: a close a day; the chain within a week of its expiry swings, and is not to be ranked.
MONTHLY, WEEKLY = date(2026, 2, 24), date(2026, 1, 27)
FIRST_DAY = to_ns(datetime(2025, 12, 28, 9, 59, tzinfo=UTC))
CLOSES = [0.10 + 0.01 * ((7 * n) % 20) for n in range(28)]
DAILY = [
    with_iv(
        chains.enriched(
            3, underlying="BANKNIFTY", expiry=MONTHLY, ts_ingest=FIRST_DAY + n * DAY_NS
        ),
        iv,
    )
    for n, iv in enumerate(CLOSES)
]
SWINGING = [
    with_iv(
        chains.enriched(
            3, underlying="BANKNIFTY", expiry=WEEKLY, ts_ingest=FIRST_DAY + n * DAY_NS + SECOND_NS
        ),
        0.9,
    )
    for n in (24, 26, 27)
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Gateway]:
    """A gateway over what is stored and, of it, what is newest."""
    directory = tmp_path_factory.mktemp("analytics")
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, EXPIRED, EARLIER, NEAR, FAR, UNEVEN, *DAILY, *SWINGING)
        async with gateway.running(server.url, url) as running:
            for seq, each in enumerate([NEAR, FAR, DAILY[-1], SWINGING[-1], UNEVEN], 1):
                await running.publish(each, seq)
            yield running


async def told(served: Gateway, path: str, **query: Any) -> dict[str, Any]:
    response = await served.get(path, params={"ts": "ns", **query})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.parametrize("path", ["surface", "term-structure", "analytics", "oi"])
async def test_past_is_told_as_the_present_was(served: Gateway, path: str) -> None:
    now = await told(served, f"{U}/{path}")
    then = await told(served, f"{U}/{path}", as_of=NOW)
    assert len(then["data"]) == len(now["data"]) > 1
    for stored, newest in zip(then["data"], now["data"], strict=True):
        if path == "oi":  # Greeks are stored in four bytes
            exposure = stored.pop("gamma_exposure")
            assert exposure == pytest.approx(newest.pop("gamma_exposure"), rel=1e-6)
        assert stored == newest
    assert then["meta"]["as_of"] == NOW
    assert then["meta"]["coverage"]["end"] >= NOW


async def test_as_of_takes_the_last_snapshot_before(served: Gateway) -> None:
    at = await told(served, f"{U}/analytics", as_of=NOW - 1_000)
    assert [(row["expiry"], row["spot"]) for row in at["data"]] == [("2026-01-27", 24_990.0)]
    smile = await told(served, f"{U}/smile", as_of=NOW - 1_000)
    assert (smile["meta"]["ts_ingest"], smile["meta"]["spot"]) == (BEFORE, 24_990.0)
    assert smile["meta"]["coverage"]["start"] == BEFORE


async def test_expired_chain_is_there_as_of_its_time(served: Gateway) -> None:
    at = LONG_AGO + 60 * SECOND_NS
    for query in ({"expiry": "nearest"}, {"expiry": "2026-01-20"}):
        smile = await told(served, f"{U}/smile", as_of=at, **query)
        assert (smile["meta"]["chain"], len(smile["data"])) == ("NIFTY-20260120", 21)
    whole = await told(served, "/v1/chains/NIFTY/nearest", as_of=at)
    assert (whole["meta"]["chain"], len(whole["data"])) == ("NIFTY-20260120", 42)
    later = await told(served, "/v1/chains/NIFTY/20260120", as_of=NOW)
    assert later["meta"]["ts_ingest"] == LONG_AGO
    narrow = {"strike.gte": 24_950, "strike.lte": 25_000, "fields": "strike,iv", "layout": "pairs"}
    pairs = (await told(served, "/v1/chains/NIFTY/20260120", as_of=NOW, **narrow))["data"]
    assert [pair["strike"] for pair in pairs] == [24_950.0, 25_000.0]
    gone = await served.get(f"{U}/smile?expiry=2026-01-20")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_chain")
    rows = (await told(served, f"{U}/history", expiry="2026-01-20", start=0))["data"]
    assert [row["ts_ingest"] for row in rows] == [LONG_AGO]


async def test_smile_has_the_side_out_of_the_money_and_the_curve(served: Gateway) -> None:
    body = await told(served, f"{U}/smile", expiry="2026-01-27")
    forward, legs = NEAR.header.forward, NEAR.legs
    assert forward is not None
    assert body["meta"]["smile"] == msgspec.structs.asdict(NEAR.header.smile)
    assert [row["strike"] for row in body["data"]] == legs["strike"][::2].tolist()
    for place, row in enumerate(body["data"]):
        call, put = legs["iv"][2 * place], legs["iv"][2 * place + 1]
        nearer = call if row["strike"] >= forward else put
        for name, value in (("call_iv", call), ("put_iv", put), ("iv", nearer)):
            assert row[name] == (None if math.isnan(value) else pytest.approx(value))
        assert row["moneyness"] == pytest.approx(row["strike"] / forward)
    part = await told(served, f"{U}/smile", **{"strike.gte": 25_000, "strike.lte": 25_100})
    assert [row["strike"] for row in part["data"]] == [25_000, 25_050, 25_100]


async def test_strikes_add_up_to_the_chain(served: Gateway) -> None:
    body = await told(served, f"{U}/oi")
    aggregates = body["meta"]["aggregates"]
    assert aggregates == msgspec.structs.asdict(NEAR.header.aggregates)
    for name in ("call_open_interest", "put_open_interest", "gamma_exposure"):
        assert sum(row[name] for row in body["data"]) == pytest.approx(aggregates[name])
    legs = NEAR.legs
    change = legs["open_interest"] - legs["previous_open_interest"]
    assert [row["call_change"] for row in body["data"]] == change[::2].tolist()
    assert [row["put_volume"] for row in body["data"]] == legs["volume"][1::2].tolist()


@pytest.mark.parametrize("asked", [{}, {"as_of": NOW}], ids=["now", "past"])
@pytest.mark.parametrize("underlying", ["NIFTY", "FINNIFTY"])
async def test_aggregates_are_what_the_rows_say(
    served: Gateway, underlying: str, asked: dict[str, Any]
) -> None:
    body = await told(served, f"/v1/chains/{underlying}/2026-01-27", **asked)
    wanted = aggregates_of(body["data"], body["meta"])
    near = 1e-9 if not asked else 1e-5  # the legs are stored in four bytes
    assert body["meta"]["aggregates"] == pytest.approx(wanted, rel=near, abs=near)
    rows = (await told(served, f"/v1/underlyings/{underlying}/analytics", **asked))["data"]
    assert {name: rows[0][name] for name in wanted} == body["meta"]["aggregates"]
    strikes = (await told(served, f"/v1/underlyings/{underlying}/oi", **asked))["data"]
    assert sum(row["gamma_exposure"] or 0 for row in strikes) == pytest.approx(
        wanted["gamma_exposure"], rel=near
    )


async def test_uneven_chain_has_a_skew_and_pain_of_its_own(served: Gateway) -> None:
    told_of = UNEVEN.header.aggregates
    assert told_of.skew_25_delta is not None
    assert told_of.skew_25_delta > 0.005
    assert told_of.max_pain not in (None, told_of.atm_strike)


async def test_variance_adds_up_along_the_term_structure(served: Gateway) -> None:
    near, far = (await told(served, f"{U}/term-structure"))["data"]
    assert (near["expiry"], near["forward_iv"]) == ("2026-01-27", near["atm_iv"])
    assert near["basis"] == pytest.approx(near["forward"] - near["spot"])
    assert near["spot"] * math.exp(near["carry"] * near["years"]) == pytest.approx(near["forward"])
    between = far["forward_iv"] ** 2 * (far["years"] - near["years"])
    whole = near["atm_iv"] ** 2 * near["years"] + between
    assert far["atm_iv"] ** 2 * far["years"] == pytest.approx(whole)
    assert near["atm_iv"] != far["atm_iv"] != far["forward_iv"]


async def test_no_volatility_lies_between_expiries_where_variance_falls(served: Gateway) -> None:
    weekly, monthly = (await told(served, "/v1/underlyings/BANKNIFTY/term-structure"))["data"]
    variances = [row["atm_iv"] ** 2 * row["years"] for row in (weekly, monthly)]
    assert variances[1] < variances[0]
    assert (weekly["forward_iv"], monthly["forward_iv"]) == (0.9, None)
    later = await told(
        served, "/v1/underlyings/BANKNIFTY/term-structure", **{"expiry.gte": "2026-02-01"}
    )
    assert later["data"] == [monthly]


async def test_metrics_over_time_are_those_of_the_last_snapshot(served: Gateway) -> None:
    path = f"{U}/analytics/history"
    asked = {"interval": "1m", "expiry": "2026-01-27", "start": BEFORE - 60 * SECOND_NS}
    rows = (await told(served, path, **asked))["data"]
    assert [row["closed_at"] for row in rows] == [BEFORE, NOW]
    header = NEAR.header
    wanted = msgspec.structs.asdict(header.aggregates) | {"forward": header.forward}
    del wanted["atm_strike"]
    assert rows[1] == wanted | {
        "spot": header.spot,
        "starts": NOW,
        "closed_at": NOW,
        "expiry": "2026-01-27",
        "n": 1,
    }
    one = await told(served, path, **asked, metric="max_pain,spot", limit=1, order="desc")
    assert one["data"][0].keys() == {"starts", "closed_at", "expiry", "n", "max_pain", "spot"}
    rest = await told(
        *(served, path),
        **asked,
        **{"metric": "max_pain,spot", "order": "desc", "cursor": one["next"]},
    )
    assert [row["spot"] for row in one["data"] + rest["data"]] == [header.spot, 24_990.0]


async def test_volatility_is_ranked_among_the_closes_before(served: Gateway) -> None:
    path = "/v1/underlyings/BANKNIFTY/analytics/history"
    asked = {"metric": "iv_rank,iv_percentile,atm_iv", "interval": "1d", "days": 10}
    rows = (await told(served, path, start="2025-12-01", **asked))["data"]
    assert [row["iv_ranked"] for row in rows] == pytest.approx(CLOSES)
    assert rows[-1]["atm_iv"] == 0.9  # of the chain that expires next
    for n, row in enumerate(rows):
        window = CLOSES[max(0, n - 10) : n]
        if len(window) < 2:
            assert (row["iv_rank"], row["iv_percentile"]) == (None, None)
            continue
        low, high = min(*window, CLOSES[n]), max(*window, CLOSES[n])
        assert row["iv_rank"] == pytest.approx((CLOSES[n] - low) / (high - low))
        below = sum(iv < CLOSES[n] - 1e-9 for iv in window)
        assert row["iv_percentile"] == pytest.approx(below / len(window))
    tail = await told(served, path, start="2026-01-20", order="desc", limit=3, **asked)
    assert tail["data"] == rows[:-4:-1]


async def test_analytics_of_now_tell_the_rank_where_days_are_asked_for(served: Gateway) -> None:
    path = "/v1/underlyings/BANKNIFTY/analytics"
    assert "iv" not in (await told(served, path))["meta"]
    iv = (await told(served, path, days=20))["meta"]["iv"]
    window = CLOSES[-21:-1]
    low, high = min(window), max(window)
    assert (iv["iv"], iv["days"]) == (pytest.approx(CLOSES[-1]), 20)
    assert (iv["low"], iv["high"]) == (pytest.approx(low), pytest.approx(high))
    assert iv["rank"] == pytest.approx((CLOSES[-1] - low) / (high - low))


@pytest.mark.parametrize("path", ["surface", "term-structure", "analytics"])
async def test_expiries_are_kept_by_their_bounds(served: Gateway, path: str) -> None:
    whole = await told(served, f"{U}/{path}")
    for bounds, wanted in (
        ({"expiry.gte": "2026-01-28"}, whole["data"][1:]),
        ({"expiry.lte": "2026-01-28"}, whole["data"][:1]),
        ({"expiry.gte": "2026-03-01"}, []),
    ):
        part = await told(served, f"{U}/{path}", **bounds)
        assert (part["data"], part["meta"]["n"]) == (wanted, len(wanted))


@pytest.mark.parametrize("path", ["smile", "oi", "term-structure", "analytics"])
async def test_fields_cut_the_rows(served: Gateway, path: str) -> None:
    whole = await told(served, f"{U}/{path}")
    names = list(whole["data"][0])
    listed = (await served.get(f"{U}/{path}?fields=colour")).json()["errors"][0]
    assert listed["parameter"] == "fields"
    for some in (names, names[:1], names[1:3][::-1]):
        part = await told(served, f"{U}/{path}", fields=",".join(some))
        assert [list(row) for row in part["data"]] == [some] * len(whole["data"])
        assert part["data"] == [{name: row[name] for name in some} for row in whole["data"]]
    held = (await served.get(f"{U}/{path}")).headers["etag"]
    cut = await served.get(f"{U}/{path}?fields={names[0]}", headers={"If-None-Match": held})
    assert cut.status_code == 200
    nothing = await served.get(f"{U}/{path}?format=csv&strike.gte=1e6&fields={names[0]}")
    assert nothing.status_code == (200 if path in ("smile", "oi") else 400)
    assert path not in ("smile", "oi") or nothing.text == f"{names[0]}\n"


async def test_present_needs_live_alone_and_the_past_history(served: Gateway) -> None:
    alone = {"Authorization": f"Bearer {served.token('live')}"}
    for path in ("surface", "term-structure", "analytics", "smile", "oi"):
        now = await served.http.get(f"{U}/{path}", headers=alone)
        then = await served.http.get(f"{U}/{path}?as_of={NOW}", headers=alone)
        assert (now.status_code, then.status_code) == (200, 403)
        same = await served.get(f"{U}/{path}", headers={"If-None-Match": now.headers["etag"]})
        assert same.status_code == 304
    tags = [(await served.get(f"{U}/{path}")).headers["etag"] for path in ("smile", "oi")]
    assert len(set(tags)) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{U}/smile?expiry=soon", 400),
        (f"{U}/oi?expiry=2026-03-31", 404),
        (f"{U}/analytics?days=1", 400),
        (f"{U}/analytics?days=505", 400),
        (f"{U}/analytics/history?metric=mood", 400),
        (f"{U}/analytics/history?metric=iv_rank&expiry=2026-01-27", 400),
        (f"{U}/analytics?as_of=2025-01-01", 404),
        ("/v1/underlyings/GOLD/term-structure", 404),
        ("/v1/underlyings/GOLD/analytics/history", 404),
        ("/v1/underlyings/NIFTY-20260127/oi", 404),
        ("/v1/chains/GOLD/nearest?as_of=2026-01-25", 404),
    ],
)
async def test_bad_request_is_refused(served: Gateway, path: str, status: int) -> None:
    response = await served.get(path)
    assert response.status_code == status, response.text


async def test_filled_candles_are_the_same_on_both_servers(
    tmp_path_factory: pytest.TempPathFactory,
    wheel_server: PostgresServer,
    timescale_server: PostgresServer,
) -> None:
    opening = to_ns(datetime(2026, 1, 21, 3, 45, tzinfo=UTC))
    at = [opening + n * SECOND_NS for n in (0, 20, 70, 400, 420, 900, 1_500, 22_000, 90_000)]
    stored = [
        moved(CHAIN, seconds=(ts - NOW) // SECOND_NS, last={20: 90.0 + n})
        for n, ts in enumerate(at)
    ]
    asked = {"start": "2026-01-19", "end": "2026-01-25", "fill": "previous"}
    paths = [
        (f"/v1/candles/{symbol}", interval)
        for symbol in ("NIFTY", "NIFTY-20260127", "NIFTY-20260127-25000-CE")
        for interval in ("90s", "5m", "75m", "1d", "1w")
    ]
    found = []
    with servers.running(servers.valkey_binary(), tmp_path_factory.mktemp("candles")) as server:
        for store in (wheel_server, timescale_server):
            with store.database() as url:
                async with open_database(url) as database:
                    await write(database, *stored)
                async with gateway.running(server.url, url) as running:
                    found.append(
                        [await told(running, path, interval=i, **asked) for path, i in paths]
                    )
    for plain, timescale in zip(*found, strict=True):
        assert plain["data"] == timescale["data"] != []
        assert plain["meta"]["coverage"] == timescale["meta"]["coverage"]
    quarters = found[0][paths.index(("/v1/candles/NIFTY-20260127-25000-CE", "5m"))]
    counts = [row["n"] for row in quarters["data"]]
    assert counts[:6] == [3, 2, 0, 1, 0, 1]
    for before, row in itertools.pairwise(quarters["data"]):
        if row["n"] == 0:
            assert (row["open"], row["volume"]) == (before["close"], 0)
