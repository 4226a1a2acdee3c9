"""Joined writes: all of them in their order, those of a round together, none left behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from api.joined import HELD_BYTES, Joined


class Counting:
    """A transport's writing side, that counts what it is told."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.calls: list[int] = []

    def writelines(self, parts: list[bytes]) -> None:
        self.calls.append(len(parts))
        self._transport.writelines(parts)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class Line:
    """A connection: what is written at one end, and the reader at the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.transport = cast(asyncio.Transport, writer.transport)
        self.counting = Counting(self.transport)
        joined = Joined(cast(asyncio.Transport, self.counting), asyncio.get_running_loop())
        self.joined = joined


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    ours = await accepted.get()
    yield Line(reader, ours)
    for end in (writer, ours):
        end.close()
        await end.wait_closed()
    server.close()
    await server.wait_closed()


async def test_writes_of_a_round_leave_together_and_before_the_loop_waits(line: Line) -> None:
    line.joined.write(b"head,")
    line.joined.write(b"body,")
    assert line.counting.calls == []
    assert await line.reader.readexactly(10) == b"head,body,"
    line.joined.write(b"next")
    assert await line.reader.readexactly(4) == b"next"
    assert line.counting.calls == [2, 1]


async def test_much_is_not_held(line: Line) -> None:
    large = bytes(HELD_BYTES)
    line.joined.write(b"head")
    line.joined.write(large)
    assert line.counting.calls == [2]
    line.joined.write(b"tail")
    assert await line.reader.readexactly(8 + HELD_BYTES) == b"head" + large + b"tail"
    assert line.counting.calls == [2, 1]


async def test_what_was_written_arrives_before_the_end(line: Line) -> None:
    line.joined.write(b"last")
    line.joined.close()
    assert await line.reader.read() == b"last"
    assert line.joined.is_closing()


async def test_nothing_is_written_to_a_connection_that_has_ended(line: Line) -> None:
    line.joined.write(b"never")
    line.transport.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.counting.calls == []
