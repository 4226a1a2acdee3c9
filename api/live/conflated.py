"""Channels at an interval: the newest value of each, read in one call for all that are due.

A change after a quiet interval is read and sent at once; what changes after it goes to a client
together, once each interval. What is due when is kept by instant, so that a change costs the same
whatever the number of channels.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from api.live.channels import Channel, Form
from api.live.groups import Feed, Group
from api.live.kinds import KINDS
from api.live.messages import State
from api.live.outbox import Outbox
from pipeline.errors import BusUnavailable
from pipeline.latest import Latest
from pipeline.runtime import side_by_side
from pipeline.watch import Watch

SWEEP_S = 5.0  # everything in use is read again this often, whatever was or was not told
BLIND_SWEEP_S = 1.0  # and this often where the server tells of no changes
CHECK_S = 30.0  # how often the server is asked whether it tells
READ_AT_ONCE = 1_000  # symbols of one call; more would hold the loop while they are decoded


class Conflated:
    """The channels of this process that have an interval; fed while `run` runs."""

    def __init__(self, latest: Latest, watch: Watch, outbox: Outbox, log: Any) -> None:
        self.is_notifying: bool | None = None
        self._latest = latest
        self._watch = watch
        self._outbox = outbox
        self._log = log
        self._feeds: dict[str, Feed] = {}
        self._by_symbol: dict[str, list[Feed]] = {}
        self._dirty: dict[float, set[Feed]] = {}
        self._due: dict[Feed, float] = {}
        self._wake = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the subscription to Redis stands."""
        return self._watch.is_connected

    def feeds(self) -> list[Feed]:
        """Every channel in use."""
        return list(self._feeds.values())

    def find(self, name: str) -> Feed | None:
        """The feed of a channel in use."""
        return self._feeds.get(name)

    async def run(self) -> None:
        """Listen, read and send until cancelled."""
        await side_by_side(self._listen(), self._check(), self._sweep(), self._tick())

    def hold(self, channel: Channel) -> Feed:
        """The feed of a channel, kept while somebody is about to enter it."""
        feed = self._feeds.get(channel.name)
        if feed is None:
            feed = self._feeds[channel.name] = Feed(channel, KINDS[channel.kind], self._outbox)
            if feed.symbol is not None:
                self._by_symbol.setdefault(feed.symbol, []).append(feed)
        feed.held += 1
        return feed

    async def prepare(self, feeds: list[Feed]) -> None:
        """Watch the symbols of feeds and bring them to the newest. Raises BusUnavailable."""
        symbols = _symbols(feeds)
        await self._watch.add(symbols)
        await self._read(symbols)

    def enter(self, feed: Feed, form: Form) -> Group:
        """The group of a form, at a state that is not older than the feed's was when read."""
        group = feed.group(form)
        if group.state is not feed.state:
            self._schedule(feed)
        return group

    def force(self, feed: Feed, group: Group) -> None:
        """Flush a group before its interval is over."""
        if feed.state is not None and group.state is not feed.state:
            _flush(group, feed, time.monotonic())

    async def drop_unused(self, names: Iterable[str]) -> None:
        """Watch no longer what nobody uses."""
        unused = []
        for name in set(names):
            feed = self._feeds.get(name)
            if feed is None or not feed.is_unused:
                continue
            del self._feeds[name]
            self._unschedule(feed)
            if feed.symbol is not None:
                self._by_symbol[feed.symbol].remove(feed)
                if not self._by_symbol[feed.symbol]:
                    del self._by_symbol[feed.symbol]
                    unused.append(feed.symbol)
        await self._watch.remove(unused)

    def put(self, name: str, state: State) -> None:
        """A new state of a channel that has no symbol."""
        feed = self._feeds.get(name)
        if feed is not None and feed.is_newer(state):
            feed.state = state
            feed.changes += 1
            self._schedule(feed)

    async def _read(self, symbols: list[str]) -> None:
        for at in range(0, len(symbols), READ_AT_ONCE):
            some = symbols[at : at + READ_AT_ONCE]
            for symbol, text in zip(some, await self._latest.texts(some), strict=True):
                if text is not None:
                    self._take(symbol, text)

    def _take(self, symbol: str, text: bytes) -> None:
        for feed in self._by_symbol.get(symbol, ()):
            try:
                feed.state = feed.read(text) or feed.state
            except msgspec.MsgspecError as error:
                self._log.error("latest_undecodable", symbol=symbol, error=str(error))

    def _changed(self, symbol: str, times: int) -> None:
        for feed in self._by_symbol.get(symbol, ()):
            feed.changes += times
            if feed not in self._due:
                self._schedule(feed)

    def _schedule(self, feed: Feed) -> None:
        """Have a feed read and flushed when the first of its groups is due."""
        if feed in self._due:
            return
        due = min((group.due for group in feed.groups.values()), default=math.inf)
        if due == math.inf:
            return
        if due not in self._dirty:
            self._dirty[due] = set()
            self._wake.set()
        self._dirty[due].add(feed)
        self._due[feed] = due

    def _unschedule(self, feed: Feed) -> None:
        due = self._due.pop(feed, None)
        if due is not None:
            self._dirty[due].discard(feed)

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
            for feed in list(self._feeds.values()):
                self._schedule(feed)

    async def _tick(self) -> None:
        while True:
            await self._until_due()
            now = time.monotonic()
            feeds = [feed for due in list(self._dirty) if due <= now for feed in self._dirty[due]]
            if not feeds:
                for due in [due for due, waiting in self._dirty.items() if not waiting]:
                    del self._dirty[due]
                continue
            for feed in feeds:
                self._unschedule(feed)
            try:
                await self._read(_symbols(feeds))
            except BusUnavailable:
                for feed in feeds:
                    self._schedule(feed)
                await asyncio.sleep(BLIND_SWEEP_S / 4)
                continue
            self._flush(feeds, time.monotonic())

    async def _until_due(self) -> None:
        """Wait for the first instant at which something is due, or for an earlier one."""
        self._wake.clear()
        wait_s = min(self._dirty, default=math.inf) - time.monotonic()
        if wait_s <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wait_s == math.inf else wait_s):
                await self._wake.wait()

    def _flush(self, feeds: list[Feed], now: float) -> None:
        """Flush what is due, and have what is not read again when it is."""
        behind = [
            (feed, group, group.due <= now)
            for feed in feeds
            for group in feed.groups.values()
            if group.state is not feed.state
        ]
        for feed, group, is_due in behind:  # now, since a flush puts off those of the same clients
            if is_due:
                _flush(group, feed, now)
        for feed, _, is_due in behind:
            if not is_due:
                self._schedule(feed)


def _flush(group: Group, feed: Feed, now: float) -> None:
    if feed.state is not None:
        group.flush(feed.state, feed.changes)
        group.due = (math.floor(now / group.interval_s) + 1) * group.interval_s


def _symbols(feeds: Iterable[Feed]) -> list[str]:
    return list(dict.fromkeys(feed.symbol for feed in feeds if feed.symbol is not None))
