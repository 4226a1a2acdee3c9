"""A whole conversation on the live feed: every operation, and every message that a gateway says.

`python -m tests.support.conversation` writes the examples of the description again.
"""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from api.gateway import Limits
from api.reference.examples import LIVE_FILE
from pipeline import frames, latest
from pipeline.models import EnrichedChain, market_snapshot
from tests.support import chains, gateway, servers
from tests.support.events import streaming
from tests.support.gateway import CHAIN, EPOCH, Client, Gateway, moved

CHANNEL = "chain:NIFTY-20260127"
LIMITS = replace(Limits(), heartbeat_s=0.3)
_TOKEN = "eyJhbGciOi…"

Said = list[tuple[str, dict[str, Any]]]


class _Recorder:
    """A client that keeps what both sides say, by the names of the description."""

    def __init__(self, client: Client) -> None:
        self.said: Said = []
        self._client = client

    async def ask(self, op: str, **fields: Any) -> None:
        number = await self._client.send(op, **fields)
        self.said.append((op, {"op": op, "id": number, **fields}))
        await self.until(lambda message: message.get("id") == number)

    async def until(self, is_wanted: Any) -> None:
        await self._client.until(lambda message: self._keep(message) and is_wanted(message))

    async def hear(self, kind: str) -> None:
        await self.until(lambda message: message["type"] == kind)

    async def hear_of(self, kind: str, channel: str) -> None:
        """A message of a type and a channel (`analytics:NIFTY` is that of its chain)."""
        await self.until(
            lambda message: (
                message["type"] == kind and message.get("channel", "").startswith(channel)
            )
        )

    def _keep(self, message: dict[str, Any]) -> bool:
        is_auth = message["type"] == "ack" and message["op"] == "auth"
        self.said.append(("authAck" if is_auth else message["type"], message))
        return True


async def hold(served: Gateway, *, msgpack: bool = False) -> Said:
    """Say everything that a client may say, and hear everything that a gateway may.

    At the end the gateway stops, which a stream of events tells by its last one.
    """
    await _publish(served, CHAIN, 5, prev=0)
    async with served.client(is_authenticated=False, msgpack=msgpack) as client:
        recorder = _Recorder(client)
        await recorder.hear("hello")
        await recorder.ask("auth", token=served.token("live"))
        await recorder.ask(
            "subscribe",
            channels=["chain:NIFTY-nearest", "underlying:SENSEX"],
            interval_ms=0,
            fields=["last", "iv", "delta"],
            slow="skip",
            since={CHANNEL: {"epoch": "e0", "seq": 3}},
            delta=True,
        )
        await recorder.hear("snapshot")
        later = moved(CHAIN, seconds=6, last={3: 120.5})
        await _publish(served, later, 6, prev=5)
        await recorder.hear("update")
        await _publish(served, moved(CHAIN, seconds=9), 9, prev=8)
        await recorder.hear("skipped")
        await recorder.ask("subscribe", channels=["chain:BANK*"])
        await _publish(served, chains.enriched(underlying="BANKNIFTY"), 1, prev=0)
        await recorder.hear("joined")
        await recorder.ask("subscribe", channels=[CHANNEL], fields=["colour"])
        await recorder.ask("resync", channels=[CHANNEL])
        await recorder.ask("unsubscribe", channels=[CHANNEL])
        await recorder.ask("ping")
        await recorder.hear("heartbeat")
    return [*recorder.said, ("close", await _goodbye(served))]


async def _goodbye(served: Gateway) -> dict[str, Any]:
    async with streaming(served, CHANNEL) as events:
        await events.of("snapshot")
        served.stopping.set()
        while events.close is None:
            await events.read()
        return events.close


async def tour(served: Gateway) -> Said:
    """Hear a channel of each kind, and a band of the chain that moves with spot."""
    await _publish(served, CHAIN, 1, prev=0)
    async with served.client() as client:
        recorder = _Recorder(client)
        band = f"band:{CHANNEL.partition(':')[2]}:atm±2"
        names = [CHANNEL, "underlying:NIFTY", "contract:NIFTY-20260127-25000-CE", band]
        names += ["analytics:NIFTY", "candle:NIFTY:1m", "health"]
        await recorder.ask("subscribe", channels=names, interval_ms=0)
        for name in names:
            await recorder.hear_of("snapshot", name)
        header = msgspec.structs.replace(CHAIN.header, spot=25_041.0)
        await _publish(served, moved(EnrichedChain(header, CHAIN.legs), seconds=1), 2, prev=1)
        await recorder.hear_of("update", band)
        return recorder.said


async def _publish(served: Gateway, chain: EnrichedChain, seq: int, *, prev: int) -> None:
    """Write a chain as the realtime worker does, with what it says of the one before."""
    position = frames.Position(EPOCH, seq, chain.header.ts_ingest, prev)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    shard = served.topics.shard_of(chain.header.underlying)
    await latest.write_chain(served.redis, served.topics, shard, texts, chain.header, position)


def examples(said: Said) -> dict[str, Any]:
    """The first message of each name, with one row and without what lets anybody in."""
    found: dict[str, Any] = {}
    for name, message in said:
        shown = dict(message)
        if "rows" in shown:
            shown["rows"] = shown["rows"][:1]
        if "token" in shown:
            shown["token"] = _TOKEN
        if name == "hello":
            shown["heartbeat_s"] = Limits().heartbeat_s  # here it is shorter
        found.setdefault(name, shown)
    return dict(sorted(found.items()))


async def _record(directory: Path) -> dict[str, Any]:
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(server.url, limits=LIMITS) as served:
            return examples(await hold(served))


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(_record(Path(directory)))
    LIVE_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
