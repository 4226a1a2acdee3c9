"""`/v1/ws` over a real gateway and a real Valkey: the protocol and its outages."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from api.gateway import Limits
from pipeline.models import EnrichedChain
from tests.support import feed, gateway, servers
from tests.support.gateway import CHAIN, QUICK, Gateway, moved, until_true

CHANNEL = "chain:NIFTY-20260127"
ATM = "NIFTY-20260127-25000-CE"


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey, limits=QUICK) as running:
        await running.publish(CHAIN, 5)
        yield running


def applied(rows: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """What a client holds after a message."""
    held = {} if message["type"] == "snapshot" else dict(rows)
    held |= {row["symbol"]: row for row in message["rows"]}
    return {name: row for name, row in held.items() if name not in message.get("removed", [])}


# The order of things


async def test_hello_comes_first_and_says_the_bounds(served: Gateway) -> None:
    async with served.client(is_authenticated=False) as client:
        hello = await client.next()
        assert (hello["type"], hello["protocol"]) == ("hello", "stockify.v1")
        assert hello["limits"]["operations_per_s"] == 10
        assert client.socket.subprotocol == "stockify.v1"


async def test_snapshot_comes_before_updates_and_updates_link_up(served: Gateway) -> None:
    async with served.client() as client:
        ack = await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        assert (ack["type"], ack["channels"], ack["refused"]) == ("ack", [CHANNEL], [])
        snapshot = await client.next()
        assert (snapshot["type"], snapshot["epoch"], snapshot["seq"]) == ("snapshot", "e1", 5)
        assert snapshot["as_of"] == "2026-01-25T10:00:00.000000Z"
        assert len(snapshot["rows"]) == CHAIN.header.n
        rows, last = applied({}, snapshot), snapshot["seq"]
        chain = CHAIN
        for seq in (6, 9, 11):
            chain = moved(chain, seconds=3, last={3: 90.0 + seq}, volume={3: 65 * seq, 8: 65 * seq})
            await served.publish(chain, seq)
            update = await client.of("update", CHANNEL)
            assert (update["prev"], update["seq"], update["n"]) == (last, seq, 1)
            assert {row["symbol"] for row in update["rows"]} == {
                list(rows)[3],
                list(rows)[8],
            }
            assert update["header"]["ts_ingest"] == chain.header.ts_ingest
            rows, last = applied(rows, update), seq
        whole = (await served.get("/v1/chains/NIFTY/nearest")).json()
        assert list(rows.values()) == whole["data"]
        assert whole["meta"]["seq"] == last


async def test_all_kinds_of_channel_share_one_flush(served: Gateway) -> None:
    channels = ["underlying:NIFTY", CHANNEL, f"contract:{ATM}"]
    async with served.client() as client:
        await client.ask("subscribe", channels=channels, interval_ms=100)
        for channel in channels:
            assert (await client.of("snapshot", channel))["seq"] == 5
        frames = client.frames
        await served.publish(moved(CHAIN, seconds=3, last={20: 99.0}), 6)
        updates = [await client.until(lambda m: m["type"] == "update") for _ in channels]
        assert {update["channel"] for update in updates} == set(channels)
        assert {update["prev"] for update in updates} == {5}
        assert client.frames == frames + 1
        by_channel = {update["channel"]: update for update in updates}
        assert by_channel[f"contract:{ATM}"]["rows"][0]["last"] == 99.0
        assert by_channel["underlying:NIFTY"]["rows"][0]["symbol"] == "NIFTY"


async def test_busy_channel_is_conflated_to_one_update_an_interval(served: Gateway) -> None:
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=1000)
        await client.of("snapshot", CHANNEL)
        began = time.monotonic()
        for seq in range(6, 36):
            await served.publish(moved(CHAIN, seconds=seq, last={seq: 1.5 * seq}), seq)
            await asyncio.sleep(0.01)
        updates = []
        while not updates or updates[-1]["seq"] < 35:
            updates.append(await client.of("update", CHANNEL))
        assert len(updates) <= 2 + (time.monotonic() - began)  # the first comes at once
        assert sum(update["n"] for update in updates) == 30
        assert [update["prev"] for update in updates[1:]] == [u["seq"] for u in updates[:-1]]


async def test_what_changes_within_an_interval_comes_in_one_frame(served: Gateway) -> None:
    header = msgspec.structs.replace(CHAIN.header, chain="NIFTY-20260224", expiry=date(2026, 2, 24))
    other = EnrichedChain(header, CHAIN.legs)
    await served.publish(other, 6)
    async with served.client() as client:
        channels = [CHANNEL, f"chain:{header.chain}"]
        await client.ask("subscribe", channels=channels, interval_ms=1000)
        for channel in channels:
            await client.of("snapshot", channel)
        await asyncio.sleep(1.1 - time.monotonic() % 1)  # intervals are counted on this clock
        await served.publish(moved(CHAIN, seconds=1, last={1: 1.5}), 7)
        await client.of("update", CHANNEL)
        await served.publish(moved(other, seconds=2, last={2: 2.5}), 8)
        await served.publish(moved(CHAIN, seconds=3, last={3: 3.5}), 9)
        seqs, frames = set(), set()
        for _ in channels:
            seqs.add((await client.until(lambda m: m["type"] == "update"))["seq"])
            frames.add(client.frames)
        assert seqs == {8, 9}
        assert len(frames) == 1


async def test_joining_client_gets_the_state_its_group_has(served: Gateway) -> None:
    async with served.client() as first, served.client() as second:
        await first.ask("subscribe", channels=[CHANNEL], interval_ms=1000)
        await first.of("snapshot", CHANNEL)
        for seq in (6, 7, 8):
            await served.publish(moved(CHAIN, seconds=seq, last={seq: 1.5 * seq}), seq)
        await second.ask("subscribe", channels=[CHANNEL], interval_ms=1000)
        snapshot = await second.of("snapshot", CHANNEL)
        await served.publish(moved(CHAIN, seconds=9, last={9: 1.5}), 9)
        rows, last = applied({}, snapshot), snapshot["seq"]
        while last < 9:
            update = await second.of("update", CHANNEL)
            assert update["prev"] == last
            rows, last = applied(rows, update), update["seq"]
        whole = (await served.get("/v1/chains/NIFTY/nearest")).json()["data"]
        assert list(rows.values()) == whole


async def test_removed_legs_and_a_new_epoch(served: Gateway) -> None:
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        rows = applied({}, await client.of("snapshot", CHANNEL))
        await served.publish(moved(_without_last_strike(CHAIN), seconds=3), 6)
        update = await client.of("update", CHANNEL)
        assert sorted(update["removed"]) == sorted(list(rows)[-2:])
        await served.publish(moved(CHAIN, seconds=6), 1, epoch="e2")
        snapshot = await client.of("snapshot", CHANNEL)
        assert (snapshot["epoch"], snapshot["seq"]) == ("e2", 1)


def _without_last_strike(chain: EnrichedChain) -> EnrichedChain:
    header = msgspec.structs.replace(chain.header, n=chain.header.n - 2)
    return EnrichedChain(header, {name: column[:-2] for name, column in chain.legs.items()})


async def test_fields_cut_rows_and_hide_other_changes(served: Gateway) -> None:
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, fields=["last", "iv"])
        snapshot = await client.of("snapshot", CHANNEL)
        assert set(snapshot["rows"][0]) == {"symbol", "last", "iv"}
        await served.publish(moved(CHAIN, seconds=3, volume={1: 65}, last={2: 9.5}), 6)
        update = await client.of("update", CHANNEL)
        assert [row["last"] for row in update["rows"]] == [9.5]


async def test_msgpack_says_the_same_as_json(served: Gateway) -> None:
    async with served.client() as text, served.client(msgpack=True) as packed:
        assert packed.socket.subprotocol == "stockify.v1.msgpack"
        messages = []
        for client in (text, packed):
            await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
            messages.append(await client.of("snapshot", CHANNEL))
        assert messages[0] == messages[1]
        await served.publish(moved(CHAIN, seconds=3, last={2: 9.5}), 6)
        updates = [await client.of("update", CHANNEL) for client in (text, packed)]
        assert updates[0] == updates[1]


async def test_subscriptions_answer_with_the_full_set_and_reasons(served: Gateway) -> None:
    async with served.client() as client:
        first = await client.ask("subscribe", channels=["chain:NIFTY-nearest", "chain:NIFTY"])
        assert first["channels"] == [CHANNEL]
        assert first["resolved"] == {"chain:NIFTY-nearest": CHANNEL}
        assert [(r["channel"], r["code"]) for r in first["refused"]] == [
            ("chain:NIFTY", "malformed_channel")
        ]
        names = ["underlying:NIFTY", "underlying:GOLD", "contract:NIFTY-20260127-1-CE"]
        second = await client.ask(
            "subscribe", channels=names, since={CHANNEL: {"epoch": "e1", "seq": 3}}
        )
        assert second["channels"] == [CHANNEL, "underlying:NIFTY"]
        assert {r["channel"]: r["code"] for r in second["refused"]} == {
            "underlying:GOLD": "unknown_symbol",
            "contract:NIFTY-20260127-1-CE": "unknown_symbol",
        }
        assert second["recovered"] == {CHANNEL: False}
        third = await client.ask("unsubscribe", channels=[CHANNEL, "chain:X"])
        assert third["channels"] == ["underlying:NIFTY"]
        await served.publish(moved(CHAIN, seconds=3), 6)
        message = await client.until(lambda m: m["type"] == "update")
        assert message["channel"] == "underlying:NIFTY"


async def test_channel_without_a_value_yet_gets_its_snapshot_with_the_first(valkey: str) -> None:
    async with gateway.running(valkey, limits=QUICK) as served, served.client() as client:
        ack = await client.ask("subscribe", channels=["underlying:NIFTY"])
        assert ack["channels"] == ["underlying:NIFTY"]
        await served.publish(CHAIN, 5)
        assert (await client.of("snapshot", "underlying:NIFTY"))["seq"] == 5


async def test_resync_gives_a_fresh_snapshot(served: Gateway) -> None:
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        await client.of("snapshot", CHANNEL)
        answer = await client.ask("resync", channels=[CHANNEL, "chain:X"])
        assert [refusal["code"] for refusal in answer["refused"]] == ["not_subscribed"]
        assert (await client.of("snapshot", CHANNEL))["seq"] == 5


async def test_idle_session_gets_heartbeats_with_freshness(served: Gateway) -> None:
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL])
        beat = await client.until(lambda m: m["type"] == "heartbeat")
        assert beat["channels"][CHANNEL]["as_of"] == "2026-01-25T10:00:00.000000Z"
        assert 30_000 <= beat["channels"][CHANNEL]["age_ms"] < 60_000
        pong = await client.ask("ping")
        assert pong["type"] == "pong"


# Outages and slow clients


async def test_restart_of_redis_heals(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with gateway.running(server.url, limits=QUICK) as served, served.client() as client:
            await served.publish(CHAIN, 5)
            await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
            snapshot = await client.of("snapshot", CHANNEL)
            for seq in (6, 7):
                await asyncio.to_thread(server.stop)
                assert (await served.get("/v1/underlyings")).status_code == 503
                refused = await client.ask("subscribe", channels=["underlying:NIFTY"])
                assert (refused["type"], refused["code"]) == ("error", "unavailable")
                await asyncio.to_thread(server.start)
                await served.publish(moved(CHAIN, seconds=seq, last={1: float(seq)}), seq)
                update = await client.of("update", CHANNEL)
                assert update["seq"] == seq
                assert update["prev"] == snapshot["seq"] if seq == 6 else seq - 1
            ready = (await served.http.get("/readyz")).json()
            assert ready["checks"]["redis"]["is_up"] is True


async def test_server_that_tells_of_no_changes_is_read_by_timer(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with gateway.running(server.url) as first:
            await first.redis.config_set("notify-keyspace-events", "")
        async with gateway.running(server.url) as served, served.client() as client:
            await served.publish(CHAIN, 5)
            await client.ask("subscribe", channels=[CHANNEL], interval_ms=100)
            await client.of("snapshot", CHANNEL)
            await served.publish(moved(CHAIN, seconds=3), 6)
            assert (await client.of("update", CHANNEL))["seq"] == 6
            ready = (await served.http.get("/readyz")).json()
            assert ready["checks"]["notifications"]["is_up"] is False
            assert any("notify-keyspace-events" in reason for reason in ready["reasons"])


def _clients(served: Gateway) -> float:
    count: float = served.telemetry.report()["gauges"]["clients"]
    return count


def _is_open(served: Gateway, client: socket.socket) -> bool:
    """Whether the gateway still holds its end of a connection."""
    ends = (served.settings.gateway_port, client.getsockname()[1])
    return any(
        (found.laddr.port, found.raddr.port) == ends
        for found in psutil.Process().net_connections("tcp")
        if found.laddr and found.raddr
    )


async def test_stalled_client_is_cut_and_hurts_nobody(served: Gateway) -> None:
    sloth = await feed.stalled(served)
    try:
        async with served.client() as healthy:
            await healthy.ask("subscribe", channels=[CHANNEL], interval_ms=0)
            await healthy.of("snapshot", CHANNEL)
            last = 5
            chain = CHAIN
            for seq in range(6, 300):
                changed = dict.fromkeys(range(42), float(seq))
                chain = moved(chain, seconds=1, last=changed, bid=changed)
                await served.publish(chain, seq)
                update = await healthy.of("update", CHANNEL)
                assert update["prev"] == last
                last = update["seq"]
                if _clients(served) == 1:
                    break
            await until_true(lambda: _clients(served) == 1)
            await until_true(lambda: not _is_open(served, sloth))
            assert (await healthy.ask("ping"))["type"] == "pong"
    finally:
        sloth.close()


async def test_slow_client_is_told_what_it_missed_and_catches_up(valkey: str) -> None:
    limits = Limits(backlog_bytes=40_000)
    async with gateway.running(valkey, limits=limits) as served:
        await served.publish(CHAIN, 5)
        options: dict[str, Any] = {"max_queue": 1, "compression": None}
        async with served.client(**options) as client:
            await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
            rows = applied({}, await client.of("snapshot", CHANNEL))
            chain, last = CHAIN, 5
            for seq in range(6, 260):
                chain = moved(chain, seconds=1, last=dict.fromkeys(range(42), float(seq)))
                await served.publish(chain, seq)
                await asyncio.sleep(0)
            skipped = 0
            while last < 259:
                message = await client.next()
                if message["type"] == "skipped":
                    assert message["from"] == last
                    skipped += message["n"]
                    message = await client.next()
                    assert message["type"] == "snapshot"
                    assert message["seq"] >= last
                elif message["type"] == "update":
                    assert message["prev"] == last
                else:
                    continue
                rows, last = applied(rows, message), message["seq"]
            whole = (await served.get("/v1/chains/NIFTY/nearest")).json()["data"]
            assert list(rows.values()) == whole
            assert skipped > 0


async def test_sessions_are_closed_for_a_restart(valkey: str) -> None:
    async with gateway.running(valkey) as served, served.client() as client:
        served.stopping.set()
        assert await client.closed() == 1012


async def test_clients_that_left_leave_nothing_behind(served: Gateway) -> None:
    for _ in range(3):
        async with served.client() as client:
            await client.ask("subscribe", channels=[CHANNEL, "underlying:NIFTY"])
    await until_true(lambda: _clients(served) == 0)
    watched = await served.redis.pubsub_numsub(
        served.topics.keyspace_event(served.topics.latest("NIFTY-20260127"))
    )
    assert watched[0][1] == 0
