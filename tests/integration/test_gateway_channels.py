"""Channels that are more than one latest value: bands, aggregates, candles, health, deltas."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from api.gateway import Limits
from api.live import patterns
from api.live.backlog import Backlog
from api.live.channels import Channel, Form
from api.live.hub import Hub
from api.live.sources import Sources
from pipeline.clock import SECOND_NS
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.models import EnrichedChain
from pipeline.replay import Replay
from pipeline.watch import Watch
from tests.support import bus, chains, gateway
from tests.support.feed import CHANNEL, CONTRACT
from tests.support.gateway import CHAIN, EPOCH, Gateway, moved, until_true
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import write

BAND = "band:NIFTY-20260127:atm±2"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """New symbols are looked for more often than anybody needs."""
    monkeypatch.setattr(patterns, "LOOK_S", 0.05)


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
    async with bus.context(valkey, "gateway") as context:
        parts, log = (context.redis, context.topics), context.telemetry.log
        latest, live = Latest(*parts), Live(*parts)
        hub = Hub(latest, Watch(*parts), live, Replay(*parts), log)
        sources = Sources(hub, latest, live, None, context.clock, log)
        await gateway.publish(context.redis, context.topics, CHAIN, 1)
        first, second = (asyncio.create_task(sources.open("NIFTY:1m")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()  # the client left
        assert await second
        channel = Channel("candle", "NIFTY:1m")
        member = Backlog(is_msgpack=False)
        (group,), _ = await hub.join(member, [channel], Form(0))
        sources.show(channel.name)
        assert group.state is not None
        assert len(group.state.rows) == 1


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


async def test_pattern_brings_what_matches_and_what_appears(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    calls, chain_pattern = "contract:NIFTY-20260127-250*-CE", "chain:*-20260127"
    async with served.client() as client:
        ack = await client.ask("subscribe", channels=[calls, chain_pattern], interval_ms=100)
        matched = [f"contract:NIFTY-20260127-{strike}-CE" for strike in (25_000, 25_050)]
        assert ack["resolved"] == {calls: matched, chain_pattern: [CHANNEL]}
        assert ack["channels"] == [CHANNEL, *matched]
        await served.publish(chains.enriched(underlying="BANKNIFTY"), 2)
        joined = await client.until(lambda message: message["type"] == "joined")
        new = "chain:BANKNIFTY-20260127"
        assert (joined["pattern"], joined["channels"]) == (chain_pattern, [new])
        assert (await client.of("snapshot", new))["seq"] == 2
        left = await client.ask("unsubscribe", channels=[chain_pattern])
        assert left["channels"] == matched


async def test_pattern_takes_with_it_only_what_it_alone_brought(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    by_strike = "contract:NIFTY-20260127-25000-*"
    calls = "contract:NIFTY-20260127-250*-CE"
    call, put = (f"contract:NIFTY-20260127-25000-{kind}" for kind in ("CE", "PE"))
    higher = "contract:NIFTY-20260127-25050-CE"
    async with served.client() as client:
        await client.ask("subscribe", channels=[put, calls])
        ack = await client.ask("subscribe", channels=[by_strike])
        assert ack["channels"] == [call, put, higher]
        left = await client.ask("unsubscribe", channels=[by_strike])
        assert left["channels"] == [call, put, higher]  # another pattern's, and the client's own
        left = await client.ask("unsubscribe", channels=[calls])
        assert left["channels"] == [put]
        left = await client.ask("unsubscribe", channels=[put])
        assert left["channels"] == []


async def test_what_was_left_by_name_a_pattern_does_not_bring_back(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client:
        await client.ask("subscribe", channels=["chain:*"], interval_ms=100)
        assert (await client.ask("unsubscribe", channels=[CHANNEL]))["channels"] == []
        await served.publish(chains.enriched(underlying="BANKNIFTY"), 2)
        joined = await client.until(lambda message: message["type"] == "joined")
        assert joined["channels"] == ["chain:BANKNIFTY-20260127"]
        ack = await client.ask("unsubscribe", channels=["chain:*"])
        assert ack["channels"] == []
        again = await client.ask("subscribe", channels=["chain:*"])
        assert again["channels"] == ["chain:BANKNIFTY-20260127", CHANNEL]


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_pattern_resumes_what_it_matches(valkey: str, msgpack: bool) -> None:
    async with gateway.running(valkey) as served:
        await served.publish(CHAIN, 7)
        async with served.client(msgpack=msgpack) as client:
            known = {"epoch": EPOCH, "seq": 7}
            ack = await client.ask(
                "subscribe",
                channels=["chain:*", "underlying:N*"],
                interval_ms=0,
                since={CHANNEL: known},
            )
            assert ack["recovered"] == {CHANNEL: True}
            assert ack["channels"] == [CHANNEL, "underlying:NIFTY"]
            await served.publish(moved(CHAIN, seconds=1, last={0: 1.5}), 8)
            assert (await client.of("snapshot", "underlying:NIFTY"))["seq"] == 7
            update = await client.of("update", CHANNEL)
            assert (update["prev"], update["seq"]) == (7, 8)


async def test_channels_and_patterns_of_a_session_are_bounded(valkey: str) -> None:
    limits = replace(Limits(), channels=6)
    async with gateway.running(valkey, limits=limits) as served:
        await served.publish(CHAIN, 1)
        async with served.client() as client:
            pattern = "contract:NIFTY-20260127-*"
            ack = await client.ask(
                "subscribe", channels=[pattern, "underlying:*", "contract:*", "chain:*"]
            )
            codes = {one["channel"]: one["code"] for one in ack["refused"]}
            assert codes == {pattern: "too_many_channels", "contract:*": "malformed_channel"}
            assert len(ack["channels"]) < 6
            others = [f"chain:{underlying}*" for underlying in ("X", "Y", "Z")]
            for number in range(0, 30, 3):
                names = [f"{name}{number}" for name in others]
                ack = await client.ask("subscribe", channels=names)
            assert {one["code"] for one in ack["refused"]} == {"too_many_channels"}
            assert "chain:*" not in {one["channel"] for one in ack["refused"]}
            again = await client.ask("subscribe", channels=["chain:*"], interval_ms=100)
            assert again["refused"] == []  # it is one of them


async def test_new_symbols_beyond_the_bound_are_told_once_and_come_when_there_is_room(
    valkey: str,
) -> None:
    async with gateway.running(valkey, limits=replace(Limits(), channels=2)) as served:
        await served.publish(CHAIN, 1)
        new = "chain:BANKNIFTY-20260127"
        async with served.client() as client:
            await client.ask("subscribe", channels=["chain:*", "health"])
            await served.publish(chains.enriched(underlying="BANKNIFTY"), 2)
            joined = await client.until(lambda message: message["type"] == "joined")
            assert (joined["channels"], joined["refused"][0]["channel"]) == ([], "chain:*")
            await served.publish(chains.enriched(underlying="FINNIFTY"), 3)  # 2 more, told anew
            joined = await client.until(lambda message: message["type"] == "joined")
            assert joined["refused"][0]["detail"].startswith("2 more")
            ack = await client.ask("unsubscribe", channels=["health", CHANNEL])
            assert ack["channels"] == []
            joined = await client.until(lambda message: message["type"] == "joined")
            assert joined["channels"] == [new, "chain:FINNIFTY-20260127"]
            assert joined["refused"] == []


async def test_session_that_ends_while_a_pattern_brings_channels_leaves_nothing(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "LOOK_S", 0.01)
    async with gateway.running(valkey) as served:
        for number in range(12):
            async with served.client() as client:
                await client.ask("subscribe", channels=["chain:*", "contract:NIFTY-nearest-*"])
                await served.publish(chains.enriched(underlying=f"U{number}"), number + 1)
                await asyncio.sleep(number * 0.002)
        await until_true(lambda: served.telemetry.report()["gauges"]["clients"] == 0)
        channels = f"{served.topics.live('')}*", f"*{served.topics.latest('', 0)}*"
        deadline = time.monotonic() + gateway.WAIT_S
        while any([await served.redis.pubsub_channels(one) for one in channels]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def _by_symbol(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["symbol"]: row for row in message["rows"]}


def _candles(message: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["starts"]: row for row in message["rows"]}
