"""Frames that were made beforehand leave as they are, and bend no rule of the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import websockets
from uvicorn.protocols.utils import ClientDisconnected

from api.live.protocol import WRITING, Protocol, frame_of
from tests.support.servers import free_port

Send = Callable[[Any], Awaitable[None]]
Write = Callable[[bytes], bool]
SIZES = (0, 1, 125, 126, 65_535, 65_536, 300_000)


class Quiet(uvicorn.Server):
    """Leaves signals to the test."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(
    talk: Callable[[Send], Awaitable[None]], take: Callable[[Write], None] = lambda write: None
) -> AsyncIterator[str]:
    """A server that accepts a socket and then lets `talk` send; `take` gets its `write`."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        take(scope["extensions"][WRITING]["write"])
        await send({"type": "websocket.accept"})
        await talk(send)
        with contextlib.suppress(ClientDisconnected):
            await send({"type": "websocket.close", "code": 1000})

    port = free_port()
    options: dict[str, Any] = {"ws": Protocol, "ws_per_message_deflate": False}
    config = uvicorn.Config(app, port=port, lifespan="off", log_config=None, **options)
    server = Quiet(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{port}"
    server.should_exit = True
    await running


@pytest.mark.parametrize("is_binary", [False, True], ids=["text", "binary"])
async def test_ready_frames_and_messages_arrive_whole_and_in_order(is_binary: bool) -> None:
    async def talk(send: Send) -> None:
        for size in SIZES:
            frame = frame_of(b"x" * size, is_binary=is_binary)
            await send({"type": "websocket.send", "frame": frame})
            await send({"type": "websocket.send", "text": f"after {size}"})

    async with serving(talk) as url, websockets.connect(url, max_size=None) as client:
        for size in SIZES:
            wanted = b"x" * size if is_binary else "x" * size
            assert await client.recv() == wanted
            assert await client.recv() == f"after {size}"
        await client.wait_closed()
        assert client.close_code == 1000


async def test_sender_of_frames_waits_for_a_client_that_does_not_read() -> None:
    sent = 0
    frame = frame_of(b"x" * 1_000_000, is_binary=True)

    async def talk(send: Send) -> None:
        nonlocal sent
        for _ in range(40):
            await send({"type": "websocket.send", "frame": frame})
            sent += 1

    async with serving(talk) as url:
        async with websockets.connect(url, max_size=None, max_queue=1) as client:
            before = -1
            while before != sent or not sent:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 40
            for _ in range(40):
                assert len(await client.recv()) == 1_000_000
        assert sent == 40


async def test_frame_to_a_client_that_is_gone_is_told_to_the_sender() -> None:
    told = asyncio.get_running_loop().create_future()

    async def talk(send: Send) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "frame": frame_of(b"x", is_binary=True)})
                await asyncio.sleep(0.001)
        except ClientDisconnected as error:
            told.set_result(error)

    async with serving(talk) as url:
        client = await websockets.connect(url)
        await client.recv()
        client.transport.abort()
        await asyncio.wait_for(told, 10.0)


async def test_frame_after_the_close_is_refused() -> None:
    refused = []

    async def talk(send: Send) -> None:
        await send({"type": "websocket.close", "code": 1000})
        try:
            await send({"type": "websocket.send", "frame": frame_of(b"x", is_binary=True)})
        except ClientDisconnected as error:
            refused.append(error)

    async with serving(talk) as url, websockets.connect(url) as client:
        await client.wait_closed()
        assert client.close_code == 1000
    assert len(refused) == 1


async def test_frame_is_written_at_once_or_not_at_all() -> None:
    writes: list[Write] = []
    frame, over = frame_of(b"x" * 1_000_000, is_binary=True), asyncio.Event()
    tried: list[bool] = []

    async def talk(send: Send) -> None:
        while len(tried) < 40 and False not in tried:
            tried.append(writes[0](frame))
        await over.wait()
        await send({"type": "websocket.close", "code": 1000})
        assert not writes[0](frame)

    async with serving(talk, writes.append) as url:
        async with websockets.connect(url, max_size=None, max_queue=1) as client:
            assert await client.recv() == b"x" * 1_000_000
            assert 1 < len(tried) < 40
            for _ in tried[1:-1]:
                assert await client.recv() == b"x" * 1_000_000
            over.set()
            await client.wait_closed()
            assert client.close_code == 1000
        assert not writes[0](frame)
