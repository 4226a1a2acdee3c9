"""Calls on one connection with little between them and the socket, several of them under way.

For the data path, where an entry is tens of kilobytes: a large argument goes out as it lies in
memory, and answers are read into one buffer. redis-py opens and greets the connection. Nothing is
ever sent twice.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import ConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.runtime import Redis

BUFFER_BYTES = 1 << 20  # a batch of 32 frames in one read of the socket
APART_BYTES = 2_048  # an argument from here on is not copied into a command's text

Argument = str | int | bytes


class _Waiting:
    """A call under way: what it waits for, and what has come of several answers."""

    __slots__ = ("answer", "come", "wanted")

    def __init__(self, answer: "asyncio.Future[Any]", wanted: int) -> None:
        self.answer = answer
        self.wanted = wanted
        self.come: list[Any] = []


class Wire(asyncio.BufferedProtocol):
    """A client's one connection, taken over; the client itself can call nothing any more.

    Answers come in the order of the calls. Where one stays out longer than the client's time-out
    the connection ends, and with it every call under way.
    """

    def __init__(self, client: Redis) -> None:
        connection = client.connection
        writer = None if connection is None else connection._writer
        if connection is None or writer is None:
            raise ConnectionError("this connection has ended")
        self._loop = asyncio.get_running_loop()
        self._timeout_s = connection.socket_timeout
        self._under_way: deque[_Waiting] = deque()
        self._due: deque[float] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._end: Exception | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        errors = connection._parser.parse_error  # so that they are those of every other call
        self._reader = hiredis.Reader(protocolError=_broken, replyError=errors)
        self._reader.setmaxbuf(0)  # none: it would give its memory back after each large answer
        self._transport = cast(asyncio.Transport, writer.transport)  # it reads as well
        # Reading has to begin anew for the transport to see that the buffer is now ours.
        self._transport.pause_reading()
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        if self._transport.is_closing():
            self._lose(None)

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._end is not None

    def call(self, *arguments: Argument) -> "asyncio.Future[Any]":
        """Send a command at once; its answer, a redis-py error among them, comes later.

        Raises ConnectionError where nothing was sent because the connection has ended.
        """
        return self._send(packed(arguments), 1)

    def burst(self, commands: Sequence[Sequence[Argument]]) -> "asyncio.Future[Any]":
        """Send several commands at once; the list of their answers, errors among them.

        Raises as `call` does.
        """
        parts = [part for command in commands for part in packed(command)]
        return self._send(parts, len(commands))

    def _send(self, parts: list[bytes], answers: int) -> "asyncio.Future[Any]":
        if self._end is not None:
            raise ConnectionError("this connection has ended") from self._end
        answer = self._loop.create_future()
        self._under_way.append(_Waiting(answer, answers))
        if self._timeout_s is not None:
            self._due.append(self._loop.time() + self._timeout_s)
            if self._watch is None:
                self._watch = self._loop.call_at(self._due[0], self._check)
        self._transport.writelines(parts)
        return answer

    def abort(self) -> None:
        """End the connection; what is under way fails as one that lost it."""
        self._lose(ConnectionError("this connection was given up"))
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have come."""
        try:
            self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]
            while (answer := self._reader.gets()) is not False:
                self._give(answer)
        except ConnectionError as error:
            self._lose(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._lose(exc)

    def _give(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return
        if not self._under_way:
            raise ConnectionError("an answer that nobody asked for")
        waiting = self._under_way[0]
        if waiting.wanted > 1:
            waiting.come.append(answer)
            if len(waiting.come) < waiting.wanted:
                return
            answer = waiting.come
        self._under_way.popleft()
        if self._due:
            self._due.popleft()
        if waiting.answer.done():
            return
        if isinstance(answer, Exception):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)

    def _check(self) -> None:
        self._watch = None
        if not self._due:
            return
        if self._due[0] > self._loop.time():
            self._watch = self._loop.call_at(self._due[0], self._check)
            return
        self._lose(RedisTimeoutError(f"no answer within {self._timeout_s} s"))
        self._transport.abort()

    def _lose(self, error: Exception | None) -> None:
        if self._end is None:
            self._end = error or ConnectionError("the server closed the connection")
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._due.clear()
        while self._under_way:
            answer = self._under_way.popleft().answer
            if not answer.done():
                answer.set_exception(_as_away(self._end))


def packed(arguments: Sequence[Argument]) -> list[bytes]:
    """A command's bytes in parts: a large argument is one of them as it is."""
    parts = [b"*%d\r\n" % len(arguments)]
    begin = 0
    for place, argument in enumerate(arguments):
        if type(argument) is bytes and len(argument) >= APART_BYTES:
            parts.append(_packed_small(arguments[begin:place]) + b"$%d\r\n" % len(argument))
            parts += (argument, b"\r\n")
            begin = place + 1
    if begin < len(arguments):
        parts.append(_packed_small(arguments[begin:]))
    return parts


def _packed_small(arguments: Sequence[Argument]) -> bytes:
    if not arguments:
        return b""
    whole: bytes = hiredis.pack_command(tuple(arguments))  # type: ignore[arg-type]
    return whole[whole.index(b"\n") + 1 :]  # its own count goes


def _broken(text: str) -> Exception:
    return ConnectionError(f"not Redis's protocol: {text}")


def _as_away(error: Exception) -> Exception:
    """The end of a connection as one of its calls gets it: an exception object of its own."""
    if isinstance(error, RedisTimeoutError):
        return RedisTimeoutError(*error.args)
    return ConnectionError(*error.args)
