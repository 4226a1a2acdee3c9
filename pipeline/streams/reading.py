"""Reads what is new to a group, over one connection and, if wanted, a batch ahead of its worker.

A batch ahead is delivered by the server and not yet handed out: it is pending, and whoever takes
over finds it there. It writes nothing and knows nothing of leases.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from pipeline.entries import Entry, decode_entry
from pipeline.streams.links import Identity, Link
from pipeline.streams.wire import Wire


class Reading:
    """The reads of one member."""

    def __init__(self, link: Link, stream: str, group: str) -> None:
        self._link = link
        self._stream, self._group = stream, group
        self._asked: asyncio.Future[Any] | None = None
        self._wire: Wire | None = None

    def is_ahead(self) -> bool:
        """Whether a batch has been asked for that nobody has got yet."""
        return self._asked is not None and not self._has_moved_on()

    async def read(
        self, member: str, count: int, block_ms: int, told: Identity | None, *, ahead: bool
    ) -> list[Entry]:
        """The next entries, at most `count`; none after `block_ms` without any.

        `told` is the connection that the lease speaks of, so that a successor can end it; by any
        other one nothing is read. Where there may be more the next ones are asked for at once if
        `ahead`. Raises what the server answers, and one of AWAY. A read that is cancelled ends the
        connection.
        """
        wire = await self._link.wire()
        if self._link.identity != told:
            return []
        if self._asked is None or self._has_moved_on():
            self._ask(wire, member, count, block_ms)
        try:
            answer = await self._taken()
        except asyncio.CancelledError:
            await self._link.drop(wire)
            raise
        found = _found(answer)
        if ahead and len(found) >= count:
            self._ask(wire, member, count, block_ms)
        return [decode_entry(at, _by_name(fields)) for at, fields in found if fields]

    def _ask(self, wire: Wire, member: str, count: int, block_ms: int) -> None:
        self._wire = wire
        self._asked = wire.call(
            *("XREADGROUP", "GROUP", self._group, member, "COUNT", count, "BLOCK", block_ms),
            *("STREAMS", self._stream, ">"),
        )
        self._asked.add_done_callback(_hear)

    async def _taken(self) -> Any:
        asked, self._asked = self._asked, None
        return None if asked is None else await asked

    def _has_moved_on(self) -> bool:
        return self._wire is None or self._wire.has_ended


def _found(answer: Any) -> list[tuple[bytes, list[bytes] | None]]:
    """The entries of one stream, whichever version of the protocol is spoken."""
    if not answer:
        return []
    found: list[tuple[bytes, list[bytes] | None]]
    found = next(iter(answer.values())) if isinstance(answer, Mapping) else answer[0][1]
    return found


def _by_name(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _hear(asked: "asyncio.Future[Any]") -> None:
    """An error that nobody waits for any more is no news."""
    if not asked.cancelled():
        asked.exception()
