"""The whole way: raw entry to committed rows, and raw entry to a WebSocket client.

A whole instance runs as its user would run it. Throughput: option chains of the simulator are
appended as fast as Redis takes them, and the clock runs until storage has committed their rows.
Latency: ten chains a second, each of another expiry, from just before the append to the receipt
of the WebSocket message that shows it.
"""

import asyncio
import statistics
import time
import urllib.request
from collections.abc import Callable
from datetime import date, timedelta

import msgspec
import websockets

from pipeline import dhan_chain
from pipeline.bodies import raw_entry
from pipeline.clock import Clock, exchange_date
from pipeline.dhan import CHAIN_PATH, EXPIRIES_PATH, UNDERLYINGS, request_context
from pipeline.models import RAW_CHAIN_TYPE, RequestContext, chain_symbol
from pipeline.streams import Producer
from pipeline.topics import Topics
from stockify.bench.instance import Instance, running_instance
from stockify.bench.report import Line, Report
from stockify.plan import SIMULATED_CLIENT_ID, SIMULATED_TOKEN

UNDERLYING = UNDERLYINGS["NIFTY"]
CHAINS_THROUGHPUT = 600
CHAINS_PER_SECOND = 10
LATENCY_S = 30
EXPIRIES = 10
COMMIT_DEADLINE_S = 180.0


class _Header(msgspec.Struct):
    ts_ingest: int


class _Message(msgspec.Struct):
    type: str
    header: _Header | None = None


_decode_messages = msgspec.json.Decoder(list[_Message])


def measure(say: Callable[[str], None], *, quick: bool = False) -> Report:
    """Run both measurements on one instance."""
    share = 10 if quick else 1
    say("starting an instance …")
    # One quiet chain keeps the instance's own polling out of the figures.
    with running_instance(
        underlyings="FINNIFTY", expiries_per_underlying="1", chain_spacing_s="3600"
    ) as instance:
        body = _body(instance)
        legs = _legs(body)
        say(f"appending {CHAINS_THROUGHPUT // share} chains of {legs} contracts …")
        seconds = asyncio.run(_throughput(instance, body, legs, CHAINS_THROUGHPUT // share))
        contracts = legs * (CHAINS_THROUGHPUT // share)
        say(f"{CHAINS_PER_SECOND} chains a second for {LATENCY_S // share} s …")
        latencies = asyncio.run(_latency(instance, body, LATENCY_S // share))
    cuts = statistics.quantiles(latencies, n=100)
    return Report(
        title="raw entry to Postgres and to the WebSocket",
        caption=f"{contracts:,} contracts committed; {len(latencies)} chains received",
        lines=[
            Line("contracts_per_s", "raw → Postgres committed", contracts / seconds, "contracts/s"),
            Line("chains_per_s", "the same, in chains", contracts / seconds / legs, "chains/s"),
            Line("ws_p50_ms", "XADD raw → WebSocket, p50", cuts[49], "ms", 1),
            Line("ws_p99_ms", "XADD raw → WebSocket, p99", cuts[98], "ms", 1),
            Line("received", "chains received of those sent", len(latencies), "chains"),
        ],
    )


async def _throughput(instance: Instance, body: bytes, legs: int, chains: int) -> float:
    """Seconds from the first append to the commit of the last row."""
    start_rows = instance.counter("storage", "rows_written")
    producer, topics = Producer(instance.settings, "bench"), Topics()
    clock = Clock()
    expiry = _today() + timedelta(days=7)
    began = time.perf_counter()
    for _chain in range(chains):
        now = clock.now_ns()
        entry = raw_entry(RAW_CHAIN_TYPE, _context(expiry), body, now)
        await producer.append(topics.raw(topics.shard_of(UNDERLYING.symbol)), entry)
    await producer.close()
    deadline = began + COMMIT_DEADLINE_S
    while instance.counter("storage", "rows_written") - start_rows < legs * chains:
        if time.perf_counter() > deadline:
            raise RuntimeError("not every row was committed in time")
        await asyncio.sleep(0.02)
    return time.perf_counter() - began


async def _latency(instance: Instance, body: bytes, seconds: int) -> list[float]:
    """Milliseconds from just before each append to the receipt of its message."""
    days = [_today() + timedelta(days=7 * (number + 2)) for number in range(EXPIRIES)]
    latencies: list[float] = []
    url = instance.gateway.replace("http", "ws", 1) + "/v1/ws"
    async with websockets.connect(
        url,
        subprotocols=[websockets.Subprotocol("stockify.v1")],
        additional_headers={"Authorization": f"Bearer {instance.token()}"},
        max_size=None,
        compression=None,
    ) as socket:
        channels = [f"chain:{chain_symbol(UNDERLYING.symbol, day)}" for day in days]
        producer, topics = Producer(instance.settings, "bench"), Topics()
        stream = topics.raw(topics.shard_of(UNDERLYING.symbol))

        async def send(number: int) -> None:
            now = Clock().now_ns()
            await producer.append(
                stream, raw_entry(RAW_CHAIN_TYPE, _context(days[number % EXPIRIES]), body, now)
            )

        for number in range(EXPIRIES):  # a channel is known once it has had a first value
            await send(number)
        await asyncio.sleep(2.0)
        await socket.send(
            msgspec.json.encode(
                {"op": "subscribe", "id": 1, "channels": channels, "interval_ms": 100}
            ).decode()
        )
        reading = asyncio.create_task(_receive(socket, latencies))
        began = time.perf_counter()
        for number in range(CHAINS_PER_SECOND * seconds):
            await asyncio.sleep(began + number / CHAINS_PER_SECOND - time.perf_counter())
            await send(number)
        await asyncio.sleep(1.0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await producer.close()
    return latencies


async def _receive(socket: websockets.ClientConnection, latencies: list[float]) -> None:
    clock = Clock()
    async for text in socket:
        received = clock.now_ns()
        latencies += [
            (received - message.header.ts_ingest) / 1e6
            for message in _decode_messages.decode(text)
            if message.type == "update" and message.header is not None
        ]


def _body(instance: Instance) -> bytes:
    expiries = _ask(instance, EXPIRIES_PATH, {})
    nearest = msgspec.json.decode(expiries)["data"][1]
    return _ask(instance, CHAIN_PATH, {"Expiry": nearest})


def _ask(instance: Instance, path: str, more: dict[str, str]) -> bytes:
    asked = {"UnderlyingScrip": UNDERLYING.security_id, "UnderlyingSeg": UNDERLYING.segment} | more
    request = urllib.request.Request(  # noqa: S310 - our own simulator
        instance.simulator + path,
        data=msgspec.json.encode(asked),
        headers={
            "Content-Type": "application/json",
            "access-token": SIMULATED_TOKEN,
            "client-id": SIMULATED_CLIENT_ID,
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body


def _legs(body: bytes) -> int:
    return int(dhan_chain.map_chain(body, _context(_today()), 0).legs["strike"].size)


def _context(expiry: date) -> RequestContext:
    return request_context(UNDERLYING, expiry, provider="simulator")


def _today() -> date:
    return exchange_date(Clock().now_ns())
