"""The whole pipeline on a real cluster: a primary is killed under load, and nothing is lost.

Six shards on three primaries with a replica each, real workers, a real Postgres and a gateway. What
Redis had acknowledged and lost with the primary is appended again by the outbox.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
import websockets

from pipeline.config import Settings
from pipeline.credentials import issue_token
from stockify import plan
from stockify.bench.faults import RATE, failover
from stockify.bench.faults.chains import UNDERLYINGS_OF_SIX
from stockify.bench.faults.failover import running_on_cluster
from stockify.bench.faults.members import Member
from stockify.bench.faults.rig import Rig
from stockify.bench.faults.trial import trial
from tests.support.gateway import SECRET, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="stockify-cluster-") as directory:
        async with running_on_cluster(Path(directory), RATE) as made:
            yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(rig: Rig) -> AsyncIterator[Settings]:
    """A gateway as a process of its own; its settings."""
    settings = msgspec.structs.replace(
        rig.settings, jwt_secret=SECRET, gateway_port=plan.Ports().free()
    )
    member = Member("gateway", plan.launch("gateway", settings), rig.directory / "gateway.log")
    await member.start()
    try:
        yield settings
    finally:
        await member.stop()


async def test_nothing_is_lost_or_double_when_a_primary_is_killed_under_load(
    rig: Rig, gateway: Settings
) -> None:
    told: dict[str, str] = {}
    listening = asyncio.create_task(listen(gateway, told))
    outcome = await trial(rig, failover.FAULT, failover.FAULT.short)
    counted = outcome.counted
    assert counted.lost == []
    assert counted.double == []
    assert counted.disorder == []
    assert counted.refused == []
    assert outcome.stuck == []
    assert not outcome.crashes
    assert counted.entries > 100  # there was load
    positions = await rig.progress.positions()
    assert {stream for stream, _ in positions} == {
        stream for n in range(6) for stream in (rig.topics.raw(n), rig.topics.enriched(n))
    }
    assert all(position.is_done for position in positions.values())
    answers = await latest_of_all(gateway)
    async with asyncio.timeout(WAIT_S):  # what the socket was told last is what REST tells now
        while told != answers:
            assert not listening.done(), listening.exception()
            await asyncio.sleep(0.1)
    listening.cancel()


async def latest_of_all(settings: Settings) -> dict[str, str]:
    """The instant of each underlying's newest value, by REST."""
    base = f"http://127.0.0.1:{settings.gateway_port}"
    async with httpx.AsyncClient(base_url=base, headers=authorization()) as http:
        answer = (await http.get("/v1/underlyings")).raise_for_status().json()
    return {row["symbol"]: row["ts_ingest"] for row in answer["data"]}


async def listen(settings: Settings, told: dict[str, str]) -> None:
    """Keep the instant of the newest value of each underlying that a socket tells."""
    channels = [f"underlying:{name}" for name in UNDERLYINGS_OF_SIX]
    async with await connected(f"ws://127.0.0.1:{settings.gateway_port}/v1/ws") as socket:
        client = Client(socket)
        refused: list[Any] = channels
        while refused:  # what has not been seen yet is not known yet
            answer = await client.ask("subscribe", channels=channels, interval_ms=0)
            refused = answer.get("refused", channels)  # or an error: Redis is away for a while
            await asyncio.sleep(0.1)
        while True:
            message = await client.next()
            if message["type"] in ("snapshot", "update"):
                told[message["channel"].partition(":")[2]] = message["as_of"]


def authorization() -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, scopes=('live', 'history'))}"}


async def connected(url: str) -> websockets.ClientConnection:
    protocol = websockets.Subprotocol("stockify.v1")
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await websockets.connect(
                    url, subprotocols=[protocol], additional_headers=authorization()
                )
            except OSError:
                await asyncio.sleep(0.1)
