"""The fan-out: one subscription to Redis a process, one reading and one encoding for all clients.

A change of a quiet symbol is read and sent at once; a busy one once each interval, and all symbols
that are due are read in one call. A client belongs to a group (channel, interval, fields); what
changed is found out once a group. The hub waits for no client: it puts packets into backlogs.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from api.live.backlog import Backlog
from api.live.messages import (
    Packet,
    State,
    chain_state,
    contract_state,
    select_fields,
    snapshot_packet,
    underlying_state,
    update_packet,
)
from pipeline.errors import BusUnavailable
from pipeline.latest import Latest
from pipeline.runtime import side_by_side
from pipeline.watch import Watch

SWEEP_S = 5.0  # everything in use is read again this often, whatever was or was not told
BLIND_SWEEP_S = 1.0  # and this often where the server tells of no changes
CHECK_S = 30.0  # how often the server is asked whether it tells

_READERS: dict[str, Callable[[bytes], State]] = {
    "chain": chain_state,
    "contract": contract_state,
    "underlying": underlying_state,
}


class Channel(msgspec.Struct, frozen=True):
    """What a client subscribes to: a kind and a symbol."""

    kind: str
    symbol: str

    @property
    def name(self) -> str:
        """As it stands in messages: `chain:NIFTY-20260127`."""
        return f"{self.kind}:{self.symbol}"


class Group:
    """Clients who get the very same messages of a channel."""

    def __init__(self, channel: Channel, interval_ms: int, fields: tuple[str, ...]) -> None:
        self.channel = channel
        self.interval_s = interval_ms / 1_000
        self.fields = fields
        self.members: set[Backlog] = set()
        self.state: State | None = None
        self.due = 0.0
        self._rows: dict[str, bytes] = {}
        self._seen = 0
        self._snapshot: Packet | None = None

    def flush(self, state: State, changes: int, now: float) -> None:
        """Bring every member to a state; `changes` counts the symbol's updates so far."""
        before, previous_rows = self.state, self._rows
        self._rows = self._selected(state)
        self.state, self._snapshot = state, None
        merged, self._seen = max(1, changes - self._seen), changes
        if self.interval_s:
            self.due = (math.floor(now / self.interval_s) + 1) * self.interval_s
        if before is None or before.position.epoch != state.position.epoch:
            for member in self.members:
                member.owe(self.channel.name)
            return
        changed = [row for name, row in self._rows.items() if previous_rows.get(name) != row]
        removed = [name for name in previous_rows if name not in self._rows]
        packet = update_packet(self.channel.name, before, state, changed, removed, merged)
        for member in self.members:
            member.offer(packet)

    def snapshot(self) -> Packet | None:
        """The state that the last update led to; None before the first."""
        if self._snapshot is None and self.state is not None:
            self._snapshot = snapshot_packet(self.channel.name, self.state, self._rows)
        return self._snapshot

    def _selected(self, state: State) -> dict[str, bytes]:
        if not self.fields:
            return state.rows
        before = self.state.rows if self.state is not None else {}
        return {
            name: self._rows[name] if before.get(name) == row else select_fields(row, self.fields)
            for name, row in state.rows.items()
        }


class _Feed:
    """A symbol in use: its newest state and the groups it goes to."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.groups: dict[tuple[int, tuple[str, ...]], Group] = {}
        self.state: State | None = None
        self.changes = 0
        self.held = 0
        self._text: bytes | None = None

    def take(self, text: bytes) -> None:
        """Keep a text unless it is the one held, or older."""
        if text == self._text:
            return
        state = _READERS[self.channel.kind](text)
        self._text = text
        if self.state is None or _order(state) > _order(self.state):
            self.state = state

    def due(self) -> float:
        return min((group.due for group in self.groups.values()), default=math.inf)


class Hub:
    """All groups of this process. `run` must run for anything to be sent."""

    def __init__(self, latest: Latest, watch: Watch, log: Any) -> None:
        self.is_notifying: bool | None = None
        self._latest = latest
        self._watch = watch
        self._log = log
        self._feeds: dict[str, _Feed] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the subscription to Redis stands."""
        return self._watch.is_connected

    async def run(self) -> None:
        """Listen, read and send until cancelled."""
        await side_by_side(self._listen(), self._check(), self._sweep(), self._tick())

    async def join(
        self,
        member: Backlog,
        channels: Sequence[Channel],
        interval_ms: int,
        fields: tuple[str, ...],
    ) -> list[Group]:
        """Put a client into the group of each channel; it is owed their snapshots.

        Raises BusUnavailable, and then the client is in none of them.
        """
        feeds = [self._hold(channel) for channel in channels]
        symbols = [channel.symbol for channel in channels]
        try:
            await self._watch.add(symbols)
            texts = await self._latest.texts(symbols)
            groups = []
            for feed, text in zip(feeds, texts, strict=True):
                if text is not None:
                    self._take(feed, text)
                groups.append(self._enter(member, feed, interval_ms, fields))
            return groups
        finally:
            for feed in feeds:
                feed.held -= 1
            await self._drop_unused(symbols)

    async def leave(self, member: Backlog, groups: Iterable[Group]) -> None:
        """Take a client out of its groups; what nobody uses is no longer watched."""
        left = list(groups)
        for group in left:
            group.members.discard(member)
            member.forget(group.channel.name)
            feed = self._feeds.get(group.channel.symbol)
            if feed is not None and not group.members:
                feed.groups = {key: kept for key, kept in feed.groups.items() if kept is not group}
        await self._drop_unused(group.channel.symbol for group in left)

    async def evict(self, member: Backlog) -> None:
        """Take a client out of every group, also of one it was just entering."""
        groups = [group for feed in self._feeds.values() for group in feed.groups.values()]
        await self.leave(member, [group for group in groups if member in group.members])

    def _hold(self, channel: Channel) -> _Feed:
        """The feed of a channel, kept while somebody is about to enter it."""
        feed = self._feeds.setdefault(channel.symbol, _Feed(channel))
        feed.held += 1
        return feed

    def _enter(
        self, member: Backlog, feed: _Feed, interval_ms: int, fields: tuple[str, ...]
    ) -> Group:
        channel = feed.channel
        chosen = () if channel.kind == "underlying" else fields
        group = feed.groups.get((interval_ms, chosen))
        if group is None:
            group = feed.groups[interval_ms, chosen] = Group(channel, interval_ms, chosen)
            if feed.state is not None:
                group.flush(feed.state, feed.changes, time.monotonic())
        elif group.state is not feed.state:
            self._dirty.add(channel.symbol)
            self._wake.set()
        group.members.add(member)
        member.owe(channel.name)
        return group

    async def _drop_unused(self, symbols: Iterable[str]) -> None:
        unused = []
        for symbol in set(symbols):
            feed = self._feeds.get(symbol)
            if feed is not None and not feed.groups and not feed.held:
                unused.append(symbol)
                del self._feeds[symbol]
                self._dirty.discard(symbol)
        await self._watch.remove(unused)

    def _take(self, feed: _Feed, text: bytes) -> None:
        try:
            feed.take(text)
        except msgspec.MsgspecError as error:
            self._log.error("latest_undecodable", symbol=feed.channel.symbol, error=str(error))

    def _changed(self, symbol: str, times: int) -> None:
        feed = self._feeds.get(symbol)
        if feed is not None:
            feed.changes += times
            self._dirty.add(symbol)
            self._wake.set()

    async def _listen(self) -> None:
        def lost(why: str, attempt: int) -> None:
            self._log.warning("redis_subscription_lost", error=why, attempt=attempt)

        await self._watch.run(self._changed, lost)

    async def _check(self) -> None:
        while True:
            try:
                answer = await self._latest.is_notifying()
            except BusUnavailable:
                await asyncio.sleep(BLIND_SWEEP_S)
                continue
            if answer is not True and answer is not self.is_notifying:
                self._log.warning("keyspace_notifications_off", known=answer is not None)
            self.is_notifying = answer
            await asyncio.sleep(CHECK_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S if self.is_notifying else BLIND_SWEEP_S)
            self._dirty.update(self._feeds)
            self._wake.set()

    async def _tick(self) -> None:
        while True:
            await self._until_due()
            self._wake.clear()
            now = time.monotonic()
            feeds = [
                feed
                for symbol in self._dirty
                if (feed := self._feeds.get(symbol)) is not None and feed.due() <= now
            ]
            if not feeds:
                continue
            symbols = [feed.channel.symbol for feed in feeds]
            self._dirty.difference_update(symbols)
            try:
                texts = await self._latest.texts(symbols)
            except BusUnavailable:
                self._dirty.update(symbols)
                await asyncio.sleep(BLIND_SWEEP_S / 4)
                continue
            for feed, text in zip(feeds, texts, strict=True):
                if text is not None:
                    self._take(feed, text)
                self._flush(feed, time.monotonic())

    async def _until_due(self) -> None:
        """Wait for a change, or for the interval of a symbol that changed within it."""
        due = min(
            (self._feeds[symbol].due() for symbol in self._dirty if symbol in self._feeds),
            default=math.inf,
        )
        wait_s = due - time.monotonic()
        if wait_s <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due == math.inf else wait_s):
                await self._wake.wait()

    def _flush(self, feed: _Feed, now: float) -> None:
        if feed.state is None:
            return
        for group in feed.groups.values():
            if group.state is feed.state:
                continue
            if group.due <= now:
                group.flush(feed.state, feed.changes, now)
            else:
                self._dirty.add(feed.channel.symbol)


def _order(state: State) -> tuple[int, int]:
    return state.ts_ingest, state.position.seq
