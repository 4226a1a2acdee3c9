"""One stream as its producer writes it: the connection, what is under way, what is known.

It sends nothing of its own but what ends an old connection.
"""

import asyncio
import secrets
from collections.abc import Awaitable
from typing import TypeVar

from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from pipeline import topics
from pipeline.config import Settings
from pipeline.entries import Appended
from pipeline.errors import BusUnavailable, EpochChanged, OutcomeUnknown, StreamRetired
from pipeline.streams.links import AWAY, Identity, Link, kill
from pipeline.streams.transaction import Call
from pipeline.streams.wire import Wire

T = TypeVar("T")


class Line:
    """Calls are sent in `turn`, so that they keep their order; `idle` when none is under way.

    `foretold` is the number of the last entry once all that is under way is done, None where that
    is not known.
    """

    def __init__(self, settings: Settings, stream: str, name: str) -> None:
        self.keys = (stream, topics.sequence(stream), topics.tally(stream))
        self.link = Link(settings, stream, name)
        self.confirming = Link(settings, stream, f"{name}-confirm")
        self.turn = asyncio.Lock()
        self.idle = asyncio.Event()
        self.idle.set()
        self.epoch = ""
        self.newest: Appended | None = None  # the last that was acknowledged
        self.foretold: int | None = None
        self.unknown = 0  # calls whose outcome is not known
        self._opening = asyncio.Lock()
        self._token = secrets.token_hex(6)  # tells its calls from those of every other producer
        self._calls = 0
        self._under_way = 0
        self._unsettled: Identity | None = None  # a connection that may still carry something out

    async def wire(self, generation: int | None) -> Wire:
        """The connection to call on, in the same step; BusUnavailable where it is not that one."""
        wire = await self._opened()
        if generation is not None and self.link.generation != generation:
            raise BusUnavailable("Redis was away: the connection is another one")
        return wire

    def enter(self, count: int) -> Call:
        """A call is under way that appends so many entries; `leave` must follow."""
        before = self._name() if self._under_way else ""
        self._under_way += 1
        self.idle.clear()
        self._calls += 1
        call = Call(self.epoch, self.foretold, self._name(), before)
        if self.foretold is not None:
            self.foretold += count
        return call

    def leave(self) -> None:
        """A call is done with."""
        self._under_way -= 1
        if not self._under_way:
            self.idle.set()

    def note(self, call: Call | None, epoch: str, places: list[Appended]) -> list[Appended]:
        """Where entries came to stand by a call that was sent last, or by one before it."""
        self.epoch = epoch
        if places:
            self.newest = places[-1]
            if call is not None and call.foretold is None and call.name == self._name():
                self.foretold = places[-1].seq
        return places

    async def answer(self, wire: Wire, sent: Awaitable[T]) -> T:
        """What a call gives. Raises BusUnavailable, OutcomeUnknown or EpochChanged."""
        used = self.link.identity
        stream = self.keys[0]
        try:
            return await sent
        except BaseException as error:
            self.foretold = None
            if isinstance(error, BusyLoadingError):
                raise BusUnavailable(str(error)) from error
            is_refused = isinstance(error, ResponseError)
            if isinstance(error, (*AWAY, asyncio.CancelledError)):
                if not is_refused:  # MOVED and the like are: then it did not happen
                    self._unsettled, self.unknown = used, self.unknown + 1
                await self.link.drop(wire)
                if is_refused:
                    raise BusUnavailable(f"Redis is away: {error}") from error
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise OutcomeUnknown(f"no answer to an append: {type(error).__name__}") from error
            if not is_refused:
                raise
            text = str(error)
            if text.startswith("EPOCH "):
                self.epoch, self.newest = text.split()[1], None
                raise EpochChanged(f"{stream} was lost; epoch {self.epoch} began") from error
            if text.startswith("RETIRED "):
                raise StreamRetired(f"{stream} is retired") from error
            raise BusUnavailable(f"refused: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self.link.drop()
        await self.confirming.drop()

    def _name(self) -> str:
        return f"{self._token}:{self._calls}"

    async def _opened(self) -> Wire:
        """A connection to call on; a new one first makes sure that the last can do nothing more."""
        async with self._opening:
            try:
                wire = await self.link.wire() if self.link.is_open else None
                if wire is not None and not wire.has_ended:
                    return wire
                self.foretold = None
                if self._under_way:  # those on the old one have yet to learn that it ended
                    raise BusUnavailable("Redis is away: the connection has just ended")
                await self.link.drop()
                client = await self.link.client()
                if self._unsettled is not None:
                    await kill(client, self._unsettled)
                    self._unsettled = None
                return await self.link.wire()
            except (RedisError, OSError) as error:
                await self.link.drop()
                raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
