"""Sockets that say anything: each ends as documented, and none hurts another."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from api.live.session import FAILED
from api.reference.asyncapi import CLOSE_CODES
from tests.support import feed, gateway, servers
from tests.support.feed import CHANNEL, Market
from tests.support.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWER_S = 10.0
GONE = {1000, 1001, 1002, 1003, 1005, 1006, 1007}  # by the protocol, or by the client itself
OPS = ("auth", "subscribe", "unsubscribe", "resync", "ping")
FIELDS = ("token", "channels", "interval_ms", "fields", "slow", "since", "delta", "id", "op")
KINDS = ("chain", "contract", "underlying", "band", "candle", "analytics", "health", "")
RESTS = ("NIFTY", "NIFTY-20260127", "NIFTY-20260127-25000-CE", "*", "NIFTY:1m", "NIFTY-nearest")

texts = st.text(max_size=20)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(2**63), 2**64]))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
channels = st.one_of(
    texts,
    st.builds("{}:{}".format, st.sampled_from(KINDS), st.sampled_from(RESTS) | texts),
    st.builds("band:NIFTY-20260127:atm±{}".format, st.integers(-1, 2_000)),
)
values: "st.SearchStrategy[Any]" = st.recursive(
    scalars | channels,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | channels, inner, max_size=4)
    ),
    max_leaves=8,
)
positions = st.fixed_dictionaries({"epoch": st.sampled_from(["e1", ""]), "seq": st.integers()})
likely = st.fixed_dictionaries(
    {"op": st.sampled_from(OPS)},
    optional={
        "id": scalars,
        "token": texts,
        "channels": st.lists(channels, max_size=5),
        "interval_ms": st.sampled_from([0, 100, 250, 1000, -1, 5]),
        "fields": st.lists(st.sampled_from(["last", "iv", "colour", ""]), max_size=3),
        "slow": st.sampled_from(["conflate", "skip", "disconnect", "wait"]),
        "since": st.dictionaries(channels, positions | scalars, max_size=3),
        "delta": scalars,
    },
)
messages = st.one_of(
    likely,
    st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=5),
    values,
)
deep = st.integers(1, 20_000).map(lambda depth: "[" * depth)


def as_json(value: Any) -> str:
    return json.dumps(value, default=repr)


def as_msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


frames = st.one_of(
    messages.map(as_json),
    messages.map(as_msgpack),
    st.text(max_size=50),
    st.binary(max_size=50),
    deep,
    # In fragments, the last of which may be half a character.
    st.lists(st.binary(max_size=10), min_size=2, max_size=4),
)
sessions = st.tuples(
    st.booleans(),  # MessagePack
    st.booleans(),  # lets itself in first
    st.lists(frames, min_size=1, max_size=8),
    st.sampled_from(["close", "abort", "wait"]),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def trading(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Market, str]]:
    directory = tmp_path_factory.mktemp("fuzz")
    with servers.running(servers.valkey_binary(), directory) as server:
        async with feed.market(server.url) as market:
            yield market, server.url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(trading: tuple[Market, str]) -> AsyncIterator[Gateway]:
    async with gateway.running(
        trading[1], gateway_address_rate=0, gateway_rate=0, log_level="info"
    ) as running:
        yield running


async def test_whatever_is_said_ends_as_documented_and_hurts_nobody(
    trading: tuple[Market, str], served: Gateway, capfd: pytest.CaptureFixture[str]
) -> None:
    market, _ = trading
    first = await market.open()
    document = (await served.http.get("/asyncapi.json")).json()
    validators = {
        name: Draft7Validator({**message["payload"], "components": document["components"]})
        for name, message in document["components"]["messages"].items()
    }
    drawn = draw(150)
    async with served.client() as healthy:
        await healthy.ask("subscribe", channels=[CHANNEL], interval_ms=0)
        held = (await healthy.of("snapshot", CHANNEL))["seq"]
        assert held == first
        ended: set[int] = set()
        for number, session in enumerate(drawn, 1):
            ended.add(await speak(served, session, validators))
            if number % 10 == 0:
                (seq,) = await market.append(number)
                update = await healthy.of("update", CHANNEL)
                assert (update["prev"], update["seq"]) == (held, seq)
                held = seq
    assert 4400 in ended
    assert ended <= (CLOSE_CODES.keys() - {FAILED}) | GONE
    assert (await served.http.get("/healthz")).status_code == 200
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert '"level":"error"' not in out + err


def draw(count: int) -> list[Any]:
    """Sessions, the same ones each time."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sessions)
    def keep(session: Any) -> None:
        found.append(session)

    keep()
    return found


async def speak(served: Gateway, session: Any, validators: dict[str, Draft7Validator]) -> int:
    """Say all that a session says; how it ended. Checks what is answered."""
    is_msgpack, is_let_in, said, ending = session
    protocol = "stockify.v1.msgpack" if is_msgpack else "stockify.v1"
    async with asyncio.timeout(ANSWER_S):
        socket = await websockets.connect(
            served.socket_url, subprotocols=[websockets.Subprotocol(protocol)]
        )
        hearing = asyncio.create_task(hear(socket, is_msgpack, validators))
        with contextlib.suppress(websockets.ConnectionClosed, ConnectionError):
            if is_let_in:
                auth = {"op": "auth", "token": served.token("live")}
                await socket.send(as_msgpack(auth) if is_msgpack else as_json(auth))
            for frame in said:
                await socket.send(frame)
            if ending == "wait":
                await (await socket.ping())
        if ending == "abort":
            socket.transport.abort()
        else:
            await socket.close()
        await hearing
        assert socket.close_code is not None
        return socket.close_code


async def hear(
    socket: websockets.ClientConnection, is_msgpack: bool, validators: dict[str, Draft7Validator]
) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            data = await socket.recv()
            decode = msgspec.msgpack.decode if is_msgpack else msgspec.json.decode
            for message in decode(data):
                is_auth = message["type"] == "ack" and message["op"] == "auth"
                validators["authAck" if is_auth else message["type"]].validate(message)
