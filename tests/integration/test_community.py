"""TimescaleDB's Community edition, in WebAssembly: migrations, policies, columns, named queries."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pipeline import migrations
from pipeline.queries import queries
from tests.support.community import Community, StatementError, running_community

DAY = datetime(2026, 1, 20, tzinfo=UTC)
OPEN = DAY + timedelta(hours=3, minutes=45)
CONTRACTS = 3
SNAPSHOTS = 41
EVERY_S = 15
SIZE = CONTRACTS * SNAPSHOTS
COMPRESSED_PERCENT = 60

MORNING = f"""
INSERT INTO instruments (
    symbol, underlying, expiry, strike, kind, provider, valid_from, valid_to
)
SELECT 'NIFTY-20260127-' || (25000 + 50 * n) || '-CE', 'NIFTY', '2026-01-27',
    25000 + 50 * n, 'call', 'dhan', '{DAY:%Y-%m-%d}Z', 'infinity'
FROM generate_series(1, {CONTRACTS}) AS n;
INSERT INTO coverage (minute, symbol, provider, expected, present, missed_upstream)
SELECT date_trunc('minute', '{OPEN.isoformat()}'::timestamptz) + n * INTERVAL '1 minute',
    'NIFTY-20260127', 'dhan', 4, 4 - n % 2, n % 2
FROM generate_series(0, 9) AS n;
INSERT INTO market_snapshots (
    ts, seq, spot, forward, years, rate, expiry, forward_pairs, n, rev, underlying,
    provider, epoch, model, forward_source
)
SELECT '{OPEN.isoformat()}'::timestamptz + n * INTERVAL '{EVERY_S} s', n, 25000 + n, 25010,
    0.02, 0.065, '2026-01-27', 1, {CONTRACTS}, 1, 'NIFTY', 'dhan', 'e1', 'black76', 'pairs'
FROM generate_series(0, {SNAPSHOTS - 1}) AS n;
INSERT INTO option_contracts (
    ts, instrument_id, last, iv, volume, open_interest, rev, iv_status, price_source,
    greeks_source
)
SELECT snap.ts, instrument_id, 100 + snap.seq, 0.125, snap.seq * 10, 75, 1, 0, 1, 1
FROM market_snapshots AS snap CROSS JOIN instruments;
"""  # noqa: S608 - numbers and instants of ours

_PLACE = re.compile(r"%\((\w+)\)s")
_PLANNED = re.compile(r"(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
# They name tables that only a bench or the first migration makes, and one is half of a text.
_ELSEWHERE = {
    "applied_migrations",
    "record_migration",
    "bench_fill_heap_of_candles",
    "bench_insert",
}


@pytest.fixture(scope="module")
def empty() -> Iterator[Community]:
    with running_community() as community:
        yield community


@pytest.fixture(scope="module")
def community(empty: Community) -> Community:
    """The database with snapshots of one morning."""
    empty.run(MORNING)
    return empty


def one(found: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = found
    return row


def jobs(community: Community, name: str) -> dict[str, dict[str, Any]]:
    found = community.rows(
        "SELECT hypertable_name, config FROM timescaledb_information.jobs "  # noqa: S608 - ours
        f"WHERE proc_name = '{name}'"
    )
    return {row["hypertable_name"]: row["config"] for row in found}


def test_every_migration_of_the_edition_applies(empty: Community) -> None:
    suited = [each for each in migrations.load() if each.suits("community")]
    assert empty.migrated == [each.number for each in suited] != []
    server = one(empty.fetch("server_edition"))
    assert (server["is_partitioned"], server["license"]) == (False, "timescale")


def test_columns_and_candles_have_their_policies(empty: Community) -> None:
    big = {"market_snapshots", "option_contracts", "ticks"}
    levels = {
        f"{kind}_candles_{level}"
        for kind in ("contract", "underlying")
        for level in ("1m", "5m", "1h", "1d")
    }
    columns = jobs(empty, "policy_compression")
    assert big <= set(columns)
    assert {columns[name]["compress_after"] for name in big} == {"2 days"}
    assert set(jobs(empty, "policy_refresh_continuous_aggregate")) == levels


@pytest.mark.parametrize("days", [30, 7, 0], ids=["set", "changed", "taken back"])
def test_retention_is_a_policy_that_follows_the_setting(empty: Community, days: int) -> None:
    empty.fetch("set_retention", days=days)
    kept = {name: config["drop_after"] for name, config in jobs(empty, "policy_retention").items()}
    names = ("market_snapshots", "option_contracts", "ticks") if days else ()
    assert kept == dict.fromkeys(names, f"{days} days")


def test_named_queries_are_planned(empty: Community) -> None:
    refused: dict[str, str] = {}
    for name, query in queries().items():
        if name in _ELSEWHERE or not _PLANNED.match(query.text):
            continue
        names = dict.fromkeys(_PLACE.findall(query.text))
        text = query.text % {each: f"${n}" for n, each in enumerate(names, 1)}
        try:
            empty.run(f"PREPARE asked AS {text}; DEALLOCATE asked")
        except StatementError as error:
            refused[name] = str(error)
    assert refused == {}


_RANGE: dict[str, Any] = {"start": DAY, "end": DAY + timedelta(days=1)}
_CHAIN: dict[str, Any] = {"underlying": "NIFTY", "expiry": date(2026, 1, 27)}
_AT = OPEN + timedelta(seconds=10 * EVERY_S)
_LEGS: dict[str, Any] = {
    "instants": [OPEN, _AT],
    "first": OPEN,
    "last": _AT,
    "instrument_ids": [1, 2],
}
READS: list[tuple[str, dict[str, Any]]] = [
    ("underlyings", {}),
    ("instruments_of_chain", _CHAIN),
    ("chain_instants", {**_CHAIN, **_RANGE, "providers": ["dhan"], "rev": None, "limit": 7}),
    (
        "chain_instants_newest_first",
        {**_CHAIN, **_RANGE, "providers": ["dhan"], "rev": None, "limit": 7},
    ),
    (
        "underlying_history",
        {
            **{"underlying": "NIFTY", **_RANGE, "rev": None, "limit": 5},
            **{"after_ts": OPEN, "after_expiry": _CHAIN["expiry"]},
        },
    ),
    ("chain_history_newest_first", {**_CHAIN, **_RANGE, "rev": 1, "limit": 5}),
    ("chain_snapshot_as_of", {**_CHAIN, "since": DAY, "at": _AT, "rev": None}),
    ("chain_legs", {**_CHAIN, "ts": _AT, "rev": 1, "provider": "dhan"}),
    ("legs_at", _LEGS),
    ("newest_legs_at", {**_LEGS, "rev": None}),
    ("chain_series", {**_CHAIN, **_RANGE, "seconds": 60, "rev": None}),
    ("chain_points", {**_CHAIN, **_RANGE, "seconds": 60, "rev": None}),
    ("legs_between", {**_CHAIN, "start": OPEN, "end": _AT, "rev": None}),
    ("coverage_minutes", {"symbol": "NIFTY-20260127", **_RANGE}),
    (
        "contract_candles_live",
        {**_CHAIN, **_RANGE, "seconds": 60, "instrument_ids": [1]},
    ),
    ("underlying_candles_live", {**_CHAIN, **_RANGE, "seconds": 300, "least_days": None}),
]


_WITHOUT_ORDER = {"legs_at"}  # its reader finds them by their key


def answered(rows: list[dict[str, Any]], name: str) -> list[str]:
    texts = [row["row"] for row in rows]
    return sorted(texts) if name in _WITHOUT_ORDER else texts


def turn(community: Community, call: str) -> None:
    """Turn the chunks of what is stored into columns, or back."""
    for big in ("option_contracts", "market_snapshots"):
        community.run(f"SELECT {call}(c) FROM show_chunks('{big}') AS c")  # noqa: S608 - ours


@pytest.mark.parametrize("are_columns", [False, True], ids=["rows", "columns"])
def test_reads_answer_as_on_plain_postgresql(
    community: Community, plain_database_url: str, are_columns: bool
) -> None:
    if are_columns:
        turn(community, "compress_chunk")
    with psycopg.connect(plain_database_url, row_factory=dict_row) as plain:
        plain.execute("SET TIME ZONE 'UTC'")
        plain.execute("SELECT make_day('2026-01-20')")
        plain.execute(MORNING.encode())
        for name, parameters in READS:
            query = community.rendered(name, **parameters)
            asked = f"SELECT row_to_json(found)::text AS row FROM ({query}) AS found"  # noqa: S608
            truth = answered(plain.execute(asked.encode()).fetchall(), name)
            assert truth, name
            assert answered(community.rows(asked), name) == truth, name
    if are_columns:
        turn(community, "decompress_chunk")


def test_minutes_are_refreshed_and_read_by_the_same_names(community: Community) -> None:
    end = DAY + timedelta(days=1)
    community.run(community.rendered("refresh_candles", start=DAY, end=end))
    (first, *_rest) = community.rows(
        "SELECT open, high, low, close, n, volume_total FROM contract_candles_1m "
        "WHERE instrument_id = (SELECT min(instrument_id) FROM instruments) ORDER BY starts"
    )
    a_minute = 60 // EVERY_S
    assert first == {
        **{"open": 100, "high": 99 + a_minute, "low": 100, "close": 99 + a_minute},
        **{"n": a_minute, "volume_total": (a_minute - 1) * 10},
    }
    for level in ("1m", "5m", "1h", "1d"):
        for kind, each in (("contract", CONTRACTS), ("underlying", 1)):
            total = one(community.rows(f"SELECT sum(n)::int AS n FROM {kind}_candles_{level}"))  # noqa: S608
            assert total["n"] == SNAPSHOTS * each, (kind, level)


def test_day_as_columns_answers_as_before_and_refuses_doubles(community: Community) -> None:
    asked = "SELECT * FROM option_contracts ORDER BY ts, instrument_id"
    before = community.rows(asked)
    sizes = "SELECT pg_total_relation_size(c)::int AS bytes FROM show_chunks('option_contracts') c"
    (heap,) = community.rows(sizes)
    community.run("SELECT compress_chunk(c) FROM show_chunks('option_contracts') c")
    state = one(
        community.rows(
            "SELECT is_compressed FROM timescaledb_information.chunks "
            "WHERE hypertable_name = 'option_contracts'"
        )
    )
    assert state == {"is_compressed": True}
    assert community.rows(asked) == before
    assert len(before) == SIZE
    assert one(community.rows(sizes))["bytes"] < heap["bytes"] * COMPRESSED_PERCENT / 100
    with pytest.raises(StatementError, match="23505"):
        community.run("INSERT INTO option_contracts SELECT * FROM option_contracts LIMIT 1")


def test_ticks_are_read_in_order_and_page_by_page(community: Community) -> None:
    community.run(
        "INSERT INTO ticks (ts, instrument_id, last, last_size, place) VALUES "
        "('2026-01-20 04:00Z', 1, 10, 75, 1), ('2026-01-20 04:00Z', 1, 11, 75, 0), "
        "('2026-01-20 04:01Z', 1, 12, 150, 0), ('2026-01-20 04:01Z', 2, 13, 75, 0)"
    )
    asked: dict[str, Any] = {
        **{"instrument_ids": [1], "start": DAY, "end": DAY + timedelta(days=1), "limit": 2},
        **{"after": None, "after_place": None, "after_instrument": None},
    }
    page = community.fetch("contract_ticks", **asked)
    assert [row["last"] for row in page] == [11, 10]
    after = datetime.fromtimestamp(page[-1]["ts_ingest"] / 1e9, UTC)
    asked.update(after=after, after_place=page[-1]["place"], after_instrument=1)
    assert [row["last"] for row in community.fetch("contract_ticks", **asked)] == [12]


def test_days_before_another_are_dropped(community: Community) -> None:
    day = date(2026, 1, 20)
    assert one(community.fetch("drop_days", before=day)) == {"dropped": 0}
    assert one(community.fetch("drop_days", before=day + timedelta(days=1)))["dropped"] > 0
    assert community.rows("SELECT * FROM option_contracts") == []
    kept = one(community.rows("SELECT count(*)::int AS n FROM contract_candles_1d"))
    assert kept == {"n": CONTRACTS}
