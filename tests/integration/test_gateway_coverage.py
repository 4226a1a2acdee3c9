"""What histories say they lack, the gaps themselves, candles and ticks: from a real Postgres."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from api.rest.candles import CANDLE_FIELDS
from pipeline.clock import SECOND_NS, to_datetime, to_ns, to_rfc3339
from pipeline.coverage import GAPS_MAXIMUM
from pipeline.queries import statement
from tests.support import chains, gateway, servers
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer, open_database
from tests.support.reports import missing, report, write_polls
from tests.support.storing import write
from tests.support.surface import address, operations

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINUTE_NS = 60 * SECOND_NS
OPENING = to_ns(datetime(2026, 1, 21, 3, 45, tzinfo=UTC))  # a Wednesday, 09:15 IST
CHAIN, OTHER = "NIFTY-20260127", "NIFTY-20260203"
LATER = date(2026, 2, 3)
CALL = f"{CHAIN}-25000-CE"
HISTORY = f"/v1/contracts/{CALL}/history"
TICK_TYPES = ("timestamptz", "timestamptz", "int8", "int4", *["float4"] * 3, *["int4"] * 4, "int2")
STEP_NS = 20 * SECOND_NS  # three polls a minute
# Minutes 0 to 9 of the session: in minute 3 the provider failed twice, in minute 6 we did once.
UPSTREAM = missing(OPENING + 3 * MINUTE_NS + STEP_NS, OPENING + 4 * MINUTE_NS, 2)
OURS = missing(OPENING + 6 * MINUTE_NS, OPENING + 6 * MINUTE_NS + STEP_NS, 1, "us")
INSTANTS = [
    ts
    for ts in range(OPENING, OPENING + 10 * MINUTE_NS, STEP_NS)
    if not any(gap.starts <= ts < gap.ends for gap in (UPSTREAM, OURS))
]


COVERAGE_FIELDS = {
    *("symbol", "start", "end", "expected", "present", "missed_upstream", "missed_us"),
    *("complete", "gaps", "gaps_cut"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway on the day after ten minutes of a session; its database."""
    directory = tmp_path_factory.mktemp("coverage")
    reports = []
    for n in range(10):
        gaps = {3: [UPSTREAM], 6: [OURS]}.get(n, [])
        answered = 3 - sum(gap.missed for gap in gaps)
        reports.append(report(CHAIN, OPENING + n * MINUTE_NS, answered, *gaps))
    with (
        servers.running(servers.valkey_binary(), directory) as server,
        wheel_server.database() as url,
    ):
        async with open_database(url) as database:
            await write(database, *(chains.enriched(3, ts_ingest=ts) for ts in INSTANTS))
            await write_polls(database, *reports)
            whole = OPENING + 5 * MINUTE_NS
            await write_polls(
                database, report(OTHER, OPENING, 0, missing(OPENING, whole, 15, "us"))
            )
        async with gateway.running(server.url, url, clock="2026-01-28T12:00:00+05:30") as running:
            yield running, url


async def body_of(served: tuple[Gateway, str], path: str, **query: Any) -> dict[str, Any]:
    response = await served[0].get(path, params={"ts": "ns", **query})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def coverage_of(served: tuple[Gateway, str], path: str, **query: Any) -> dict[str, Any]:
    coverage: dict[str, Any] = (await body_of(served, path, **query))["meta"]["coverage"]
    return coverage


def minutes(first: int, last: int) -> dict[str, int]:
    return {"start": OPENING + first * MINUTE_NS, "end": OPENING + last * MINUTE_NS}


GAP_UPSTREAM = {
    "start": UPSTREAM.starts,
    "end": UPSTREAM.ends,
    "cause": "upstream",
    "symbol": CHAIN,
    "detail": "test",
    "missed": 2,
}
GAP_OURS = {
    "start": OURS.starts,
    "end": OURS.ends,
    "cause": "us",
    "symbol": CHAIN,
    "detail": "test",
    "missed": 1,
}
GAP_OTHER = {**minutes(0, 5), "cause": "us", "symbol": OTHER, "detail": "test", "missed": 15}


@pytest.mark.parametrize(
    "path", [HISTORY, f"/v1/candles/{CALL}", f"/v1/candles/{CHAIN}"], ids=["rows", "leg", "chain"]
)
async def test_history_tells_what_it_lacks_and_why(served: tuple[Gateway, str], path: str) -> None:
    assert await coverage_of(served, path, **minutes(0, 10)) == {
        "symbol": CHAIN,
        **minutes(0, 10),
        "expected": 30,
        "present": 27,
        "missed_upstream": 2,
        "missed_us": 1,
        "complete": False,
        "gaps": [GAP_UPSTREAM, GAP_OURS],
        "gaps_cut": False,
    }


async def test_whatever_tells_of_the_past_has_its_coverage(served: tuple[Gateway, str]) -> None:
    document = (await served[0].http.get("/openapi.json")).json()
    headers = {"Authorization": f"Bearer {served[0].token('live', 'history', 'export')}"}
    asked = set()
    for path, method, operation in operations(document):
        scopes = {scope for each in operation["security"] for scope in each.get("bearer", ())}
        names = {each["name"] for each in operation["parameters"]}
        if not scopes & {"history", "export"} or "past" in names:
            continue
        past = "?start=2026-01-21&end=2026-01-22"
        target = address(path, operation) + ("?as_of=2026-01-22" if "as_of" in names else past)
        response = await served[0].http.request(method, target, headers=headers)
        assert response.status_code == 200, (target, response.text)
        said = response.headers.get("x-meta")
        meta = json.loads(said) if said else response.json()["meta"]
        assert set(meta["coverage"]) == COVERAGE_FIELDS, target
        asked.add(operation["operationId"])
    assert asked >= {
        *("contract_history", "underlying_history", "analytics_history", "candles", "ticks"),
        *("gaps", "chain", "smile", "open_interest", "volatility_surface", "term_structure"),
        *("analytics", "export"),
    }


async def test_coverage_is_of_the_range_whatever_the_page(served: tuple[Gateway, str]) -> None:
    first = await body_of(served, HISTORY, limit=4, **minutes(0, 10))
    second = await body_of(served, HISTORY, limit=4, cursor=first["next"], **minutes(0, 10))
    assert first["meta"]["coverage"] == second["meta"]["coverage"]
    assert first["meta"]["coverage"]["expected"] == 30


@pytest.mark.parametrize(
    ("asked", "complete"),
    [(minutes(0, 3), True), (minutes(3, 4), False), (minutes(4, 6), True), (minutes(5, 40), False)],
    ids=["all there", "a gap", "all there between gaps", "gap and more"],
)
async def test_range_is_complete_where_nothing_was_missed(
    served: tuple[Gateway, str], asked: dict[str, int], complete: bool
) -> None:
    assert (await coverage_of(served, HISTORY, **asked))["complete"] is complete


async def test_nobody_knows_of_minutes_without_a_report(served: tuple[Gateway, str]) -> None:
    for asked in (minutes(7, 40), minutes(20, 40)):
        assert (await coverage_of(served, HISTORY, **asked))["complete"] is None
    before_the_bell = minutes(-30, 2)
    assert (await coverage_of(served, HISTORY, **before_the_bell))["complete"] is True


async def test_gap_is_cut_to_the_range_with_its_share_of_polls(served: tuple[Gateway, str]) -> None:
    asked = {"start": UPSTREAM.starts, "end": UPSTREAM.starts + STEP_NS}
    (gap,) = (await coverage_of(served, HISTORY, **asked))["gaps"]
    assert gap == GAP_UPSTREAM | asked | {"missed": 1}


async def test_underlying_has_the_gaps_of_all_its_chains(served: tuple[Gateway, str]) -> None:
    path = "/v1/underlyings/NIFTY/history"
    found = await coverage_of(served, path, **minutes(0, 10))
    assert found["symbol"] == "NIFTY"
    assert found["gaps"] == [GAP_OTHER, GAP_UPSTREAM, GAP_OURS]
    counts = ("expected", "present", "missed_upstream", "missed_us")
    assert [found[name] for name in counts] == [45, 27, 2, 16]
    one = await coverage_of(served, path, expiry=chains.EXPIRY.isoformat(), **minutes(0, 10))
    assert one["gaps"] == [GAP_UPSTREAM, GAP_OURS]


async def test_gaps_of_all_symbols_have_the_coverage_of_all_chains(
    served: tuple[Gateway, str],
) -> None:
    all_of_them = await coverage_of(served, "/v1/gaps", **minutes(0, 10))
    nifty = await coverage_of(served, "/v1/gaps", symbol="NIFTY", **minutes(0, 10))
    assert all_of_them == nifty | {"symbol": None}
    assert (nifty["expected"], len(nifty["gaps"])) == (45, 3)


async def test_closed_hours_are_gaps_of_that_cause(served: tuple[Gateway, str]) -> None:
    closing = OPENING + 375 * MINUTE_NS
    next_opening = OPENING + 1_440 * MINUTE_NS
    asked = {"start": OPENING + 370 * MINUTE_NS, "end": next_opening + MINUTE_NS}
    found = await coverage_of(served, HISTORY, **asked)
    assert [(gap["start"], gap["end"], gap["cause"]) for gap in found["gaps"]] == [
        (closing, next_opening, "closed")
    ]
    night = {"start": closing, "end": next_opening}
    closed = await coverage_of(served, HISTORY, **night)
    assert (closed["complete"], closed["expected"], len(closed["gaps"])) == (True, 0, 1)


async def test_chain_is_told_of_until_it_settled(served: tuple[Gateway, str]) -> None:
    settled = to_ns(datetime(2026, 1, 27, 10, 0, tzinfo=UTC))
    found = await coverage_of(served, HISTORY, start="2026-01-27", end="2026-02-01")
    assert found["end"] == settled
    after = await coverage_of(served, HISTORY, start="2026-01-28", end="2026-02-01")
    assert (after["start"], after["complete"], after["gaps"]) == (after["end"], True, [])


async def test_gaps_of_an_answer_are_bounded(served: tuple[Gateway, str]) -> None:
    chain = "BANKNIFTY-20260127"
    async with open_database(served[1]) as database:
        holes = [
            report(chain, at, 1, missing(at, at + SECOND_NS, 1))
            for at in range(OPENING, OPENING + 120 * MINUTE_NS, MINUTE_NS)
        ]
        await write_polls(database, *holes)
    asked = {"symbol": chain, **minutes(0, 130)}
    found = await coverage_of(served, "/v1/gaps", **asked)
    assert (found["gaps_cut"], found["expected"]) == (True, 240)
    newest = [OPENING + n * MINUTE_NS for n in range(20, 120)]
    assert [gap["start"] for gap in found["gaps"]] == newest
    assert len(newest) == GAPS_MAXIMUM
    listed = await body_of(served, "/v1/gaps", **asked)
    assert len(listed["data"]) == 120
    year = await coverage_of(served, HISTORY, start="2025-01-20", end="2026-01-21")
    assert year["gaps_cut"]
    assert len(year["gaps"]) <= 2 * GAPS_MAXIMUM


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, [GAP_OTHER, GAP_UPSTREAM, GAP_OURS]),
        ({"order": "desc"}, [GAP_OURS, GAP_UPSTREAM, GAP_OTHER]),
        ({"cause": "us"}, [GAP_OTHER, GAP_OURS]),
        ({"symbol": OTHER}, [GAP_OTHER]),
        ({"symbol": f"{CHAIN}-25000-PE", "cause": "upstream"}, [GAP_UPSTREAM]),
        ({"symbol": "SENSEX"}, []),
    ],
    ids=["all", "newest first", "ours", "a chain", "a contract", "nothing known"],
)
async def test_gaps_are_listed_by_symbol_and_cause(
    served: tuple[Gateway, str], query: dict[str, str], wanted: list[dict[str, Any]]
) -> None:
    asked = {"symbol": "NIFTY", **minutes(0, 10), **query}
    rows = (await body_of(served, "/v1/gaps", **asked))["data"]
    assert rows == [gap | {"provider": "dhan"} for gap in wanted]
    cut = (await body_of(served, "/v1/gaps", **asked, fields="missed,start"))["data"]
    assert cut == [{name: gap[name] for name in ("missed", "start")} for gap in wanted]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_gaps_meet_closed_hours_among_them(
    served: tuple[Gateway, str], order: str
) -> None:
    asked = {
        "symbol": "NIFTY",
        "cause": "upstream,us,closed",
        "order": order,
        "start": OPENING - 1_440 * MINUTE_NS,
        "end": OPENING + 2_000 * MINUTE_NS,
    }
    whole = (await body_of(served, "/v1/gaps", **asked))["data"]
    causes = [gap["cause"] for gap in whole]
    assert sorted(causes) == ["closed", "closed", "closed", "upstream", "us", "us"]
    pages: list[dict[str, Any]] = []
    cursor = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        body = await body_of(served, "/v1/gaps", limit=1, **asked, **more)
        pages += body["data"]
        cursor = body["next"]
        if cursor is None:
            break
    assert pages == whole


async def test_candles_have_their_values_and_go_on(served: tuple[Gateway, str]) -> None:
    path = f"/v1/candles/{CALL}"
    whole = (await body_of(served, path, interval="2m", **minutes(0, 10)))["data"]
    assert [row["starts"] for row in whole] == [OPENING + n * 2 * MINUTE_NS for n in range(5)]
    assert [row["n"] for row in whole] == [6, 4, 6, 5, 6]
    assert whole[1]["closed_at"] == UPSTREAM.starts - STEP_NS
    first = await body_of(served, path, interval="2m", limit=3, **minutes(0, 10))
    rest = await body_of(
        served, path, interval="2m", limit=3, cursor=first["next"], **minutes(0, 10)
    )
    assert first["data"] + rest["data"] == whole
    assert rest["next"] is None
    (day,) = (await body_of(served, path, interval="1d", start="2026-01-21"))["data"]
    assert day["n"] == 27
    (close,) = (
        await body_of(
            served, "/v1/candles/NIFTY", interval="1w", start="2026-01-19", fields="close"
        )
    )["data"]
    assert close == {"close": chains.SPOT}
    (told,) = (await body_of(served, path, interval="10m", ts="rfc3339", **minutes(0, 10)))["data"]
    assert told["starts"] == to_rfc3339(OPENING)


async def test_every_field_of_candles_can_be_asked_for(served: tuple[Gateway, str]) -> None:
    seen: set[str] = set()
    for symbol in (CALL, CHAIN, "NIFTY"):
        path = f"/v1/candles/{symbol}"
        (whole,) = (await body_of(served, path, interval="1d", start="2026-01-21"))["data"]
        seen |= set(whole)
        some = {"interval": "1d", "start": "2026-01-21", "fields": ",".join(whole)}
        assert (await body_of(served, path, **some))["data"] == [whole]
    assert seen == set(CANDLE_FIELDS)


async def test_ticks_are_those_of_the_table_page_by_page(served: tuple[Gateway, str]) -> None:
    path = f"/v1/contracts/{CALL}/ticks"
    assert (await body_of(served, path, **minutes(0, 10)))["data"] == []
    at = [to_datetime(OPENING + n * SECOND_NS) for n in (0, 0, 1, 2)]
    with psycopg.connect(served[1]) as connection:
        (number,) = connection.execute(
            "SELECT instrument_id FROM instruments WHERE symbol = %s", [CALL]
        ).fetchone() or (0,)
        with connection.cursor().copy(statement("copy_ticks")) as copy:
            copy.set_types(TICK_TYPES)
            for place, ts in enumerate(at):
                row = (ts, None, 750, number, 10 + place, None, None, 75, None, None, 900, place)
                copy.write_row(row)
    for order in ("asc", "desc"):
        whole = await body_of(served, path, order=order, **minutes(0, 10))
        assert [row["last"] for row in whole["data"]] == sorted(
            [10, 11, 12, 13], reverse=order == "desc"
        )
        first = await body_of(served, path, order=order, limit=1, **minutes(0, 10))
        more = {"cursor": first["next"], "order": order, "limit": 3}
        rest = await body_of(served, path, **more, **minutes(0, 10))
        assert first["data"] + rest["data"] == whole["data"]
    assert "instrument_id" not in whole["data"][0]
    assert (whole["meta"]["coverage"]["expected"], whole["data"][0]["bid"]) == (None, None)


async def test_page_after_an_insert_goes_on_where_the_last_one_ended(
    served: tuple[Gateway, str],
) -> None:
    asked = {"limit": 10, "fields": "ts_ingest", **minutes(0, 10)}
    whole = list(INSTANTS)
    first = await body_of(served, HISTORY, **asked)
    between = OPENING + 5 * SECOND_NS, OPENING + 9 * MINUTE_NS + SECOND_NS
    async with open_database(served[1]) as database:
        await write(database, *(chains.enriched(3, ts_ingest=ts) for ts in between))
    rows = first["data"]
    cursor = first["next"]
    while cursor is not None:
        page = await body_of(served, HISTORY, cursor=cursor, **asked)
        rows += page["data"]
        cursor = page["next"]
    assert [row["ts_ingest"] for row in rows] == sorted([*whole, between[1]])


@pytest.mark.parametrize(
    "changed",
    [{"order": "desc"}, {"end": OPENING + 9 * MINUTE_NS}, {"interval": "5m"}, {"fill": "previous"}],
    ids=["order", "range", "interval", "fill"],
)
async def test_cursor_with_other_parameters_is_refused(
    served: tuple[Gateway, str], changed: dict[str, Any]
) -> None:
    asked = {"limit": 2, **minutes(0, 10)}
    cursor = (await body_of(served, f"/v1/candles/{CALL}", **asked))["next"]
    query = asked | changed | {"cursor": cursor}
    response = await served[0].get(f"/v1/candles/{CALL}", params=query)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_query")
    elsewhere = await served[0].get(f"/v1/candles/{CHAIN}", params=asked | {"cursor": cursor})
    assert elsewhere.status_code == 400
    shaped = asked | {"limit": 5, "ts": "ms", "cursor": cursor}
    assert (await served[0].get(f"/v1/candles/{CALL}", params=shaped)).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/candles/{CALL}?interval=0m", 400),
        (f"/v1/candles/{CALL}?interval=25h", 400),
        (f"/v1/candles/{CALL}?interval=9999w", 400),
        (f"/v1/candles/{CALL}?interval=1M", 400),
        (f"/v1/candles/{CALL}?fields=max_pain&start=2026-01-21", 400),
        (f"/v1/candles/{CALL}?fields=max_pain&start=2020-01-01&end=2020-01-02", 400),
        (f"/v1/candles/{CHAIN}?fields=volume&start=2026-01-21", 400),
        (f"/v1/candles/{CHAIN}-1-CE", 404),
        ("/v1/candles/GOLD", 404),
        (f"/v1/contracts/{CHAIN}/ticks", 404),
        (f"/v1/contracts/{CHAIN}-1-CE/ticks", 404),
        ("/v1/gaps?cause=weather", 400),
        ("/v1/gaps?start=1769485500", 400),
        ("/v1/gaps?symbol=no%20symbol", 400),
    ],
)
async def test_bad_request_is_refused(served: tuple[Gateway, str], path: str, status: int) -> None:
    response = await served[0].get(path)
    assert response.status_code == status, response.text
