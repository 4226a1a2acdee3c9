"""Patterns of channels over a real gateway: what they bring, what goes with them, and bounds."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from api.gateway import Limits
from api.live import patterns
from tests.support import chains, gateway
from tests.support.feed import CHANNEL
from tests.support.gateway import CHAIN, EPOCH, Gateway, moved, until_true


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """New symbols are looked for more often than anybody needs."""
    monkeypatch.setattr(patterns, "LOOK_S", 0.05)


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey) as running:
        yield running


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
