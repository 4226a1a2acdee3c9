"""A connection that was taken over from redis-py: what it sends, and how it ends."""

import asyncio
import os
import signal

import pytest
from redis.exceptions import ConnectionError, NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.config import Settings
from pipeline.streams import wire
from pipeline.streams.links import Link
from tests.support import servers
from tests.support.conformance import Target


def link_to(url: str, key: str, *, is_cluster: bool = False) -> Link:
    return Link(Settings(redis_url=url, redis_cluster=is_cluster), key, "wire")


async def test_arguments_of_every_kind_and_size_arrive_as_they_are(
    server: Target, stream: str
) -> None:
    link = link_to(server.url, stream, is_cluster=server.is_cluster)
    line = await link.wire()
    small, large = b"\x00\r\n\xff", os.urandom(5 * wire.BUFFER_BYTES)
    edges = [bytes(wire.APART_BYTES - 1), bytes(wire.APART_BYTES)]
    sent = (small, large, "text €", 7, *edges, large)
    assert await line.call("RPUSH", stream, *sent) == len(sent)
    found = await line.call("LRANGE", stream, 0, -1)
    assert found == [small, large, "text €".encode(), b"7", *edges, large]
    await line.call("DEL", stream)
    await link.drop()


async def test_answers_come_in_the_order_of_the_calls_and_errors_among_them(
    server: Target, stream: str
) -> None:
    link = link_to(server.url, stream, is_cluster=server.is_cluster)
    line = await link.wire()
    calls = [line.call("HINCRBY", stream, "n", 1) for _ in range(100)]
    calls.insert(50, line.call("INCR", stream))
    calls.append(line.call("EVALSHA", "0" * 40, 1, stream))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    wrong, unknown = answers.pop(50), answers.pop()
    assert answers == list(range(1, 101))
    assert isinstance(wrong, ResponseError)
    assert str(wrong).startswith("WRONGTYPE")
    assert isinstance(unknown, NoScriptError)
    await line.call("DEL", stream)
    await link.drop()


async def test_call_without_an_answer_ends_the_connection_and_all_behind_it(
    own_server: servers.RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    assert own_server.process is not None
    link = link_to(own_server.url, stream)
    line = await link.wire()
    os.kill(own_server.process.pid, signal.SIGSTOP)
    try:
        calls = [line.call("INCR", stream) for _ in range(3)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        os.kill(own_server.process.pid, signal.SIGCONT)
    assert all(isinstance(end, RedisTimeoutError) for end in ends)
    with pytest.raises(ConnectionError):
        line.call("INCR", stream)
    assert line.has_ended
    await link.drop()


async def test_connection_that_the_server_closed_fails_what_is_under_way(
    own_server: servers.RedisServer, stream: str
) -> None:
    link = link_to(own_server.url, stream)
    line = await link.wire()
    waiting = line.call("BLPOP", stream, 4)
    own_server.kill()
    with pytest.raises(ConnectionError):
        await waiting
    assert line.has_ended
    await link.drop()
