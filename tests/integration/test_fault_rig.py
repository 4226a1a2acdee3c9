"""The tools of the faults' bench break what they say, and its counting notices what is wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stockify.bench.faults.journal import Journal, JournalReader, Promise
from stockify.bench.faults.proxy import LOOPBACK, Proxy, proxied


class Echo:
    """A server that answers each line with itself and keeps what it was sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.received.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.serve, LOOPBACK, 0)
    async with proxied(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()
    await server.wait_closed()


async def say(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await writer.drain()


async def test_proxy_passes_lines_both_ways(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    await say(writer, b"one\n")
    assert await reader.readline() == b"one\n"
    assert proxy.connections == 1
    writer.close()
    await writer.wait_closed()


async def test_reset_is_a_reset_and_not_an_end(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    await say(writer, b"one\n")
    await reader.readline()
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    again, other = await asyncio.open_connection(LOOPBACK, proxy.port)
    await say(other, b"two\n")
    assert await again.readline() == b"two\n"
    other.close()
    await other.wait_closed()


async def test_held_answer_is_lost_and_its_request_is_not(proxy: Proxy, echo: Echo) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    proxy.hold_answers()
    await say(writer, b"unknown\n")
    async with asyncio.timeout(5):
        while not echo.received:
            await asyncio.sleep(0.01)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert echo.received == [b"unknown\n"]
    writer.close()


async def test_connection_to_a_server_that_is_gone_is_reset(proxy: Proxy) -> None:
    async with proxied(1) as nowhere:
        reader, writer = await asyncio.open_connection(LOOPBACK, nowhere.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


def test_journal_is_read_on_where_it_was_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader, journal = JournalReader(path), Journal(path)
    first, second = Promise("a:1", "chain"), Promise("b:2", "poison")
    journal.note(first)
    with open(path, "ab") as file:
        file.write(b"poison b")
    assert reader.read() == [first]
    with open(path, "ab") as file:
        file.write(b":2\n")
    assert reader.read() == [second]
    assert reader.promises == [first, second]
    journal.close()
    reader.close()
