"""Every update, holes in the feed, and clients who come back: over real streams and workers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline import frames, latest
from pipeline.models import market_snapshot
from tests.support import gateway
from tests.support.feed import CHANNEL, CONTRACT, OTHER, Held, Market, market
from tests.support.gateway import CHAIN, Gateway, moved

UNDERLYING = "underlying:NIFTY"
EPOCH = "e1"


@pytest.fixture
async def trading(valkey: str) -> AsyncIterator[Market]:
    async with market(valkey) as running:
        yield running


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey) as running:
        yield running


async def test_every_update_comes_in_its_order_and_unmerged(
    trading: Market, served: Gateway
) -> None:
    first = await trading.open()
    await trading.published(UNDERLYING, first)
    async with served.client() as client:
        channels = [CHANNEL, CONTRACT, UNDERLYING]
        await client.ask("subscribe", channels=channels, interval_ms=0)
        held = [Held(channel) for channel in channels]
        for one in held:
            one.apply(await client.of("snapshot", one.channel))
            assert one.last == first
        published = trading.context.telemetry.counter("live_published", "")
        before = published.value
        await trading.append(1, chain=OTHER)
        expected = await trading.append(*range(1, 41))
        while min(one.last for one in held) < expected[-1]:
            message = await client.next()
            for one in held:
                one.apply(message)
        for one in held:
            assert one.seqs == expected
            assert (one.merged, one.skipped, one.snapshots) == (0, 0, 1)
        texts = CHAIN.header.n + 2
        assert published.value - before < 40 * texts, "the worker left none out"
        whole = (await served.get("/v1/chains/NIFTY/nearest")).json()["data"]
        assert list(held[0].rows.values()) == whole


async def test_updates_that_were_not_heard_come_from_the_stream(
    trading: Market, served: Gateway
) -> None:
    first = await trading.open()
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        held = await Held().follow(client, first)
        served_only = [seq for number in (1, 2) for seq in await trading.append(number)]
        await held.follow(client, served_only[-1])
        await _cut_subscriptions(served)
        expected = await trading.append(3, 4, 5)
        await held.follow(client, expected[-1])
        assert held.seqs == [*served_only, *expected]
        assert (held.merged, held.snapshots) == (0, 1)


async def test_hole_that_nothing_fills_is_told_with_a_snapshot(served: Gateway) -> None:
    await _publish(served, 5, prev=0)
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        held = await Held().follow(client, 5)
        await _publish(served, 6, prev=5)
        await held.follow(client, 6)
        await _publish(served, 9, prev=8)
        skipped = await client.of("skipped", CHANNEL)
        assert skipped == {
            "type": "skipped",
            "channel": CHANNEL,
            "from": 6,
            "to": 9,
            "n": None,
            "reason": "lost",
        }
        assert (await client.of("snapshot", CHANNEL))["seq"] == 9


async def test_stream_that_is_made_again_begins_anew_for_every_update(served: Gateway) -> None:
    """A new epoch is a snapshot and never a hole; what is late of the old one is not told."""
    await _publish(served, 900, prev=899)
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL, CONTRACT], interval_ms=0)
        for channel in (CHANNEL, CONTRACT):
            assert (await client.of("snapshot", channel))["seq"] == 900
        symbol = CHANNEL.partition(":")[2]
        late = await served.redis.get(served.topics.latest(symbol))
        await _publish(served, 1, prev=0, epoch="e2", seconds=901)
        told = [await client.next(), await client.next()]
        assert {one["channel"] for one in told} == {CHANNEL, CONTRACT}
        assert {(one["type"], one["epoch"], one["seq"]) for one in told} == {("snapshot", "e2", 1)}
        await served.redis.publish(served.topics.live(symbol), late)
        await _publish(served, 2, prev=1, epoch="e2", seconds=902)
        told = [await client.next(), await client.next()]
        assert {one["channel"] for one in told} == {CHANNEL, CONTRACT}
        assert {(one["type"], one["epoch"], one["prev"], one["seq"]) for one in told} == {
            ("update", "e2", 1, 2)
        }
    since = {CHANNEL: {"epoch": EPOCH, "seq": 900}}
    async with served.client() as client:
        ack = await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, since=since)
        assert ack["recovered"] == {CHANNEL: False}
        again = await client.next()
        assert (again["type"], again["epoch"], again["seq"]) == ("snapshot", "e2", 2)


FORMS: list[tuple[str, dict[str, Any]]] = [
    (CHANNEL, {"interval_ms": 0}),
    (CHANNEL, {"interval_ms": 0, "fields": ["last"]}),
    (CHANNEL, {"interval_ms": 1000}),
    (CONTRACT, {"interval_ms": 0}),
    (UNDERLYING, {"interval_ms": 0}),
]


async def test_client_that_was_away_gets_each_update_once(trading: Market, served: Gateway) -> None:
    known = [Held(channel) for channel, _ in FORMS]
    first = await trading.open()
    for held, (channel, options) in zip(known, FORMS, strict=True):
        async with served.client() as client:
            await client.ask("subscribe", channels=[channel], **options)
            await held.follow(client, first)
    expected = []
    for number in range(1, 13):
        await trading.append(number, chain=OTHER)
        expected += await trading.append(number)
    await trading.published(UNDERLYING, expected[-1])
    for number, (held, (channel, options)) in enumerate(zip(known, FORMS, strict=True), 13):
        async with served.client() as client, served.client() as other:
            ack = await client.ask("subscribe", channels=[channel], since=held.since, **options)
            assert ack["recovered"] == {channel: True}
            await held.follow(client, expected[-1])
            expected += await trading.append(number)
            await held.follow(client, expected[-1])
            assert held.seqs == expected
            assert (held.merged, held.skipped, held.snapshots) == (0, 0, 1)
            await other.ask("subscribe", channels=[channel], **options)
            assert (await Held(channel).follow(other, expected[-1])).rows == held.rows


async def test_all_contracts_of_a_chain_are_recovered_at_once(
    trading: Market, served: Gateway
) -> None:
    first = await trading.open()
    whole = (await served.get("/v1/chains/NIFTY/nearest")).json()["data"]
    channels = [CHANNEL, *(f"contract:{row['symbol']}" for row in whole)]
    expected = await trading.append(*range(1, 21))
    await trading.published(CHANNEL, expected[-1])
    known = {"epoch": await trading.epoch(), "seq": first}
    async with served.client() as client:
        since = dict.fromkeys(channels, known)
        ack = await client.ask("subscribe", channels=channels, interval_ms=0, since=since)
        assert ack["recovered"] == dict.fromkeys(channels, True)
        await served.redis.client_kill_filter(_type="pubsub")
        expected += await trading.append(21, 22)
        seqs: dict[str, list[int]] = {channel: [] for channel in channels}
        while any(len(found) < len(expected) for found in seqs.values()):
            message = await client.until(lambda one: "channel" in one)
            assert message["type"] == "update"
            seqs[message["channel"]].append(message["seq"])
        assert seqs == dict.fromkeys(channels, expected)


async def test_position_that_is_the_newest_needs_nothing(trading: Market, served: Gateway) -> None:
    first = await trading.open()
    epoch = await trading.epoch()
    async with served.client() as client:
        since = {CHANNEL: {"epoch": epoch, "seq": first}}
        ack = await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, since=since)
        assert ack["recovered"] == {CHANNEL: True}
        (second,) = await trading.append(1)
        update = await client.next()
        assert (update["type"], update["prev"], update["seq"]) == ("update", first, second)


async def test_what_cannot_be_recovered_whole_is_a_snapshot(
    trading: Market, served: Gateway
) -> None:
    first = await trading.open()
    (foreign,) = await trading.append(0, chain=OTHER)
    last = (await trading.append(1, 2, 3))[-1]
    await trading.published(CHANNEL, last)
    epoch = await trading.epoch()

    async def refuses(position: dict[str, Any]) -> bool:
        async with served.client() as client:
            ack = await client.ask(
                "subscribe", channels=[CHANNEL], interval_ms=0, since={CHANNEL: position}
            )
            message = await client.next() if ack["recovered"] == {CHANNEL: False} else {}
            return (message.get("type"), message.get("seq")) == ("snapshot", last)

    assert not await refuses({"epoch": epoch, "seq": first})
    assert await refuses({"epoch": "1", "seq": first}), "another epoch"
    assert await refuses({"epoch": epoch, "seq": last + 1}), "not there yet"
    assert await refuses({"epoch": epoch, "seq": foreign}), "of another chain"
    await trading.trim(2)
    assert await refuses({"epoch": epoch, "seq": first}), "trimmed"


async def test_too_much_to_recover_is_a_snapshot(trading: Market, served: Gateway) -> None:
    first = await trading.open()
    last = (await trading.append(*range(1, 300)))[-1]
    await trading.published(CHANNEL, last)
    async with served.client() as client:
        since = {CHANNEL: {"epoch": await trading.epoch(), "seq": first}}
        ack = await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, since=since)
        assert ack["recovered"] == {CHANNEL: False}
        assert (await client.next())["type"] == "snapshot"


async def _cut_subscriptions(served: Gateway) -> None:
    """End every connection that listens; what is published until they are back goes unheard."""
    await served.redis.client_kill_filter(_type="pubsub")


async def _publish(
    served: Gateway, seq: int, *, prev: int, epoch: str = EPOCH, seconds: int | None = None
) -> None:
    """Write a chain as the realtime worker does, with what it says of the one before."""
    chain = moved(CHAIN, seconds=seq if seconds is None else seconds)
    position = frames.Position(epoch, seq, chain.header.ts_ingest, prev)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    await latest.write_chain(served.redis, served.topics, 0, texts, chain.header, position)
