"""Channels that are more than one latest value: bands, aggregates, candles, health, deltas."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from api.live import sources as live_sources
from api.live.backlog import Backlog
from api.live.channels import Channel, Form
from api.live.hub import Hub
from api.live.sources import Sources
from pipeline.clock import SECOND_NS
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.models import EnrichedChain
from pipeline.replay import Replay
from pipeline.runtime import cancel
from pipeline.watch import Watch
from tests.support import bus, gateway
from tests.support.feed import CHANNEL, CONTRACT
from tests.support.gateway import CHAIN, EPOCH, Gateway, moved
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

BAND = "band:NIFTY-20260127:atm±2"


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey) as running:
        yield running


def at_spot(spot: float, seconds: int) -> EnrichedChain:
    later = moved(CHAIN, seconds=seconds)
    return EnrichedChain(msgspec.structs.replace(later.header, spot=spot), later.legs)


async def test_band_follows_spot_and_says_what_entered_and_left(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client, served.client(msgpack=True) as other:
        ack = await client.ask(
            "subscribe",
            channels=["band:NIFTY-nearest:atm+-2"],
            interval_ms=0,
            since={BAND: {"epoch": "e1", "seq": 1}},
        )
        assert (ack["channels"], ack["refused"]) == ([BAND], [])
        assert ack["recovered"] == {BAND: False}
        await other.ask("subscribe", channels=[BAND], interval_ms=0)
        first = await client.of("snapshot", BAND)
        await other.of("snapshot", BAND)
        assert len(first["rows"]) == 10
        assert first["header"]["centre"] == 25_000.0
        await served.publish(at_spot(25_029.0, 1), 2)  # within the margin
        assert "entered" not in await client.of("update", BAND)
        await served.publish(at_spot(25_041.0, 2), 3)
        moved_on = await client.of("update", BAND)
        assert (moved_on["entered"], moved_on["left"]) == ([25_150.0], [24_900.0])
        assert {row["strike"] for row in moved_on["rows"]} == {25_150.0}
        assert moved_on["removed"] == ["NIFTY-20260127-24900-CE", "NIFTY-20260127-24900-PE"]
        await other.of("update", BAND)
        assert await other.of("update", BAND) == moved_on


async def test_aggregates_are_a_channel_of_one_row(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client:
        ack = await client.ask("subscribe", channels=["analytics:NIFTY"], interval_ms=0)
        name = "analytics:NIFTY-20260127"
        assert ack["resolved"] == {"analytics:NIFTY": name}
        (row,) = (await client.of("snapshot", name))["rows"]
        aggregates = msgspec.structs.asdict(CHAIN.header.aggregates)
        assert aggregates == {field: row[field] for field in aggregates}
        await served.publish(at_spot(25_041.0, 1), 2)
        (row,) = (await client.of("update", name))["rows"]
        assert row["spot"] == 25_041.0


async def test_deltas_rebuild_the_rows(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client, served.client() as whole:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, delta=True)
        await whole.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        held = _by_symbol(await client.of("snapshot", CHANNEL))
        known = _by_symbol(await whole.of("snapshot", CHANNEL))
        for number in range(1, 6):
            await served.publish(
                moved(CHAIN, seconds=number, last={number: 1.5 * number}), number + 1
            )
            delta = await client.of("update", CHANNEL)
            assert delta["delta"] is True
            assert all(set(row) == {"symbol", "last"} for row in delta["rows"])
            for row in delta["rows"]:
                held[row["symbol"]] |= row
            known |= _by_symbol(await whole.of("update", CHANNEL))
            assert held == known


async def test_candles_form_and_close(served: Gateway) -> None:
    await served.publish(at_spot(25_000.0, 0), 1)
    underlying, contract = "candle:NIFTY:1m", f"candle:{CONTRACT.partition(':')[2]}:30s"
    async with served.client() as client:
        ack = await client.ask(
            "subscribe", channels=[underlying, contract, "candle:NO:1m"], interval_ms=0
        )
        assert ack["channels"] == [contract, underlying]
        assert [one["channel"] for one in ack["refused"]] == ["candle:NO:1m"]
        rows = _candles(await client.of("snapshot", underlying))
        assert len(rows) == 1
        await served.publish(at_spot(25_010.0, 1), 2)
        rows |= _candles(await client.of("update", underlying))
        await served.publish(at_spot(24_990.0, 70), 3)
        while len(rows) < 2:
            rows |= _candles(await client.of("update", underlying))
        first, second = (rows[starts] for starts in sorted(rows))
        assert (first["open"], first["high"], first["close"]) == (25_000.0, 25_010.0, 25_010.0)
        assert (first["closed"], second["open"]) == (True, 24_990.0)
        assert second["starts"] - first["starts"] == 60 * SECOND_NS
    async with served.client() as client:
        await client.ask("subscribe", channels=[underlying], interval_ms=250)
        again = _candles(await client.of("snapshot", underlying))
        assert again[first["starts"]] == first


async def test_candles_that_form_are_those_that_are_stored(
    valkey: str, wheel_server: PostgresServer
) -> None:
    """Some values are stored when the series begins, the others come live; then all are stored."""
    values = [
        (seconds, {20: 90.0 + seconds % 17 - seconds / 50})
        for seconds in (0, 7, 20, 31, 59, 60, 61, 119, 130, 179, 180, 200)
    ]
    series = [
        moved(CHAIN, seconds=seconds, last=last, volume={20: 1_000 + 3 * seconds})
        for seconds, last in values
    ]
    symbol = CONTRACT.partition(":")[2]
    channel = f"candle:{symbol}:1m"
    with wheel_server.database() as url:
        async with open_database(url) as database:
            await write(database, *series[:7])
            async with gateway.running(valkey, url) as served, served.client() as client:
                await served.publish(series[5], 6)  # the newest value is behind what is stored
                await client.ask("subscribe", channels=[channel], interval_ms=0)
                rows = _candles(await client.of("snapshot", channel))
                for seq, chain in enumerate(series[7:], 8):
                    await served.publish(chain, seq)
                    rows |= _candles(await client.of("update", channel))
                await write(database, *series[7:])
                end_ns = series[-1].header.ts_ingest + 60 * SECOND_NS
                query = {"interval": "1m", "ts": "ns", "end": str(end_ns)}
                answer = await served.get(f"/v1/candles/{symbol}", params=query)
    stored = answer.json()["data"]
    names = ("starts", "open", "high", "low", "close", "volume")
    assert [[row[name] for name in names] for _, row in sorted(rows.items())] == [
        [row[name] for name in names] for row in stored
    ]
    assert len(stored) == 4
    assert [row["closed"] for _, row in sorted(rows.items())] == [True, True, True, False]


async def test_candles_that_nobody_could_begin_are_begun_by_the_next(valkey: str) -> None:
    async with _sources(valkey) as (hub, sources):
        with sources.entering() as begin:
            first, second = (asyncio.create_task(_call(begin, "NIFTY:1m")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()  # the client left
            assert await second
            assert await _candles_in(hub, sources, "candle:NIFTY:1m") == 1


async def test_candles_are_kept_while_a_client_enters_many_and_dropped_when_it_left(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sources, "UNUSED_S", 0.0)
    monkeypatch.setattr(live_sources, "TICK_S", 0.001)
    async with _sources(valkey) as (hub, sources):
        running = asyncio.create_task(sources.run(_no_report))
        try:
            with sources.entering() as begin:
                assert await begin("NIFTY:1m")
                for number in range(2, 40):  # each of them takes a while
                    assert await begin(f"NIFTY:{number}m")
                    await asyncio.sleep(0.002)
                assert await _candles_in(hub, sources, "candle:NIFTY:1m") == 1
            async with asyncio.timeout(gateway.WAIT_S):
                while await _candles_in(hub, sources, "candle:NIFTY:39m"):
                    await asyncio.sleep(0.01)
        finally:
            await cancel(running)


@contextlib.asynccontextmanager
async def _sources(redis_url: str) -> AsyncIterator[tuple[Hub, Sources]]:
    """Sources that no gateway runs, and the hub that they feed; there is one value of NIFTY."""
    async with bus.context(redis_url, "gateway") as context:
        parts, log = (context.redis, context.topics), context.telemetry.log
        latest, live = Latest(*parts), Live(*parts)
        hub = Hub(latest, Watch(*parts), live, Replay(*parts), log)
        await gateway.publish(*parts, CHAIN, 1)
        yield hub, Sources(hub, latest, live, None, context.clock, log)


async def _candles_in(hub: Hub, sources: Sources, name: str) -> int:
    """How many candles a client finds who enters a channel, which it then leaves."""
    member = Backlog(is_msgpack=False)
    kind, _, rest = name.partition(":")
    (group,), _ = await hub.join(member, [Channel(kind, rest)], Form(0))
    sources.show(name)
    count = 0 if group.state is None else len(group.state.rows)
    await hub.leave(member, [group])
    return count


async def _no_report() -> dict[str, Any]:
    return {"data": {}}


async def _call(begin: Callable[[str], Awaitable[bool]], rest: str) -> bool:
    return await begin(rest)


async def test_health_is_what_readiness_says(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client:
        await client.ask("subscribe", channels=["health"], interval_ms=100)
        told = await client.of("snapshot", "health")
        ready = (await served.http.get("/readyz")).json()
        assert told["header"]["status"] == ready["status"]
        assert told["header"]["reasons"] == ready["reasons"]
        (row,) = told["rows"]
        assert row["symbol"] == "NIFTY"
        assert row["ts_ingest"] == ready["data"]["NIFTY"]["ts_ingest"]


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize("interval_ms", [0, 100])
async def test_every_kind_of_channel_comes_in_every_form(
    served: Gateway, interval_ms: int, msgpack: bool
) -> None:
    await served.publish(CHAIN, 1)
    analytics, candle = "analytics:NIFTY-20260127", f"candle:{CONTRACT.partition(':')[2]}:5m"
    names = [analytics, BAND, candle, CHANNEL, "health"]
    known = {name: {"epoch": EPOCH, "seq": 1} for name in names}
    async with served.client(msgpack=msgpack) as client:
        ack = await client.ask(
            "subscribe",
            channels=names,
            interval_ms=interval_ms,
            delta=True,
            fields=["last", "strike"],
            since=known,
        )
        assert (ack["channels"], ack["refused"]) == (names, [])
        resumes = (analytics, CHANNEL)
        assert ack["recovered"] == {name: name in resumes for name in names}
        wholes: dict[str, dict[str, Any]] = {}
        while len(wholes) < 3:
            message = await client.next()
            assert message["type"] == "snapshot"
            wholes[message["channel"]] = message
        assert wholes.keys() == set(names) - set(resumes)
        assert set(wholes[BAND]["rows"][0]) == {"symbol", "last", "strike"}
        await served.publish(moved(at_spot(25_041.0, 1), seconds=0, last={20: 77.5}), 2)
        updates: dict[str, dict[str, Any]] = {}
        while len(updates) < 4:
            message = await client.until(lambda one: one["type"] == "update")
            if message["channel"] != "health":
                updates[message["channel"]] = message
        key = {"symbol": CONTRACT.partition(":")[2]}
        assert updates[CHANNEL]["rows"] == [key | {"last": 77.5}]
        assert updates[BAND]["entered"] == [25_150.0]
        rows = _by_symbol(updates[BAND])
        assert rows.pop(key["symbol"]) == key | {"last": 77.5}
        assert {tuple(row) for row in rows.values()} == {("symbol", "strike", "last")}
        (row,) = updates[analytics]["rows"]
        assert row == {"symbol": "NIFTY-20260127", "spot": 25_041.0}
        (row,) = updates[candle]["rows"]
        assert row["close"] == 77.5
        assert set(row) <= {"starts", "high", "low", "close"}
        for name in resumes:
            assert (updates[name]["prev"], updates[name]["seq"]) == (1, 2)
        for name in (BAND, candle):
            assert updates[name]["prev"] == wholes[name]["seq"]


def _by_symbol(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["symbol"]: row for row in message["rows"]}


def _candles(message: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["starts"]: row for row in message["rows"]}
