"""The tools of the faults' bench break what they say, and its counting notices what is wrong."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stockify.bench.faults.journal import Journal, JournalReader, Promise
from stockify.bench.faults.members import Member
from stockify.bench.faults.proxy import LOOPBACK, Proxy, proxied
from stockify.processes import Launch


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


def member(path: Path, text: str) -> Member:
    launch = Launch(name="one", argv=(sys.executable, "-c", text), env=dict(os.environ))
    return Member("one", launch, path / "one.log")


async def other_pid(one: Member, pid: int) -> int:
    async with asyncio.timeout(10):
        while not one.is_running or one.pid == pid:
            await asyncio.sleep(0.01)
    return one.pid


async def test_killed_member_is_started_again_at_once_and_its_death_is_no_crash(
    tmp_path: Path,
) -> None:
    one = member(tmp_path, "import time; time.sleep(60)")
    await one.start()
    pid = one.pid
    assert one.kill()
    assert await other_pid(one, pid) != pid
    await one.stop()
    assert not one.is_running
    assert one.crashes == []


async def test_member_that_ends_by_itself_has_crashed_and_its_last_words_are_told(
    tmp_path: Path,
) -> None:
    exception = "Traceback\\nValueError: no such thing"
    line = f'{{"event":"failed","exception":"{exception}"}}'
    one = member(tmp_path, f"import sys; print({line!r}); sys.exit(3)")
    await one.start()
    async with asyncio.timeout(10):
        while not one.crashes:
            await asyncio.sleep(0.01)
    await one.kill_for_good()
    assert one.crashes[0] == "one: exit 3, failed ValueError: no such thing"


async def test_frozen_member_is_told_to_leave_too(tmp_path: Path) -> None:
    one = member(tmp_path, "import time; time.sleep(60)")
    await one.start()
    one.send(signal.SIGSTOP)
    async with asyncio.timeout(5):
        await one.stop()
    assert not one.is_running
