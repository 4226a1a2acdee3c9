"""What groups have to say in one turn of the loop, put together for those who get the same.

Groups with the very same members share a batch, so what a client costs hangs on how many batches it
gets, and hardly on how many updates. Before a client enters or leaves a group, or is sent a
snapshot, `deliver` must be called: what waits here is for those who were members.
"""

import asyncio
import weakref
from collections.abc import Iterable

from api.live.backlog import FRAME_BYTES, Backlog
from api.live.batches import cut
from api.live.messages import Packet


class Audience:
    """Some clients who get the very same; `due` is when more may go to them at their interval."""

    __slots__ = ("__weakref__", "due", "members")

    def __init__(self, members: frozenset[Backlog]) -> None:
        self.members = members
        self.due = 0.0


class Outbox:
    """Delivers by itself before the loop does anything else that was not due already."""

    def __init__(self) -> None:
        self._waiting: dict[Audience, list[Packet]] = {}
        # Equal audiences are one object, which spares comparing them member by member.
        self._known: weakref.WeakValueDictionary[tuple[frozenset[Backlog], float], Audience] = (
            weakref.WeakValueDictionary()
        )

    def audience(self, members: Iterable[Backlog], interval_s: float = 0.0) -> Audience:
        """These members at an interval, the same object for the same ones while anybody has it."""
        key = frozenset(members), interval_s
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Audience(key[0])
        return known

    def put(self, audience: Audience, packet: Packet) -> None:
        """An update for some clients."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.deliver)
        self._waiting.setdefault(audience, []).append(packet)

    def deliver(self) -> None:
        """Put what waits into backlogs, now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for audience, packets in waiting.items():
            for batch in cut(packets, FRAME_BYTES):
                for member in audience.members:
                    member.offer_batch(batch)
