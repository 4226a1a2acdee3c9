"""Channels without an interval: every update in its order, as the live channels bring them.

Each text names the update before it. Where that is not the one held, something was lost on the
way: it is read again from the enriched stream and sent as if nothing had happened; where it cannot
be, every client is told what it missed and gets the newest state.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from api.live.channels import Channel, Form
from api.live.groups import Feed, Group
from api.live.kinds import KINDS
from api.live.messages import State
from api.live.outbox import Outbox
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.replay import Replay, source
from pipeline.runtime import side_by_side

SWEEP_S = 5.0  # a last update that was lost has no successor to tell of it
READ_AT_ONCE = 1_000  # symbols of one call; more would hold the loop while they are decoded
WAITING_TEXTS = 256  # of one channel, while what is before them is looked for


class Every:
    """The channels of this process that have no interval; fed while `run` runs."""

    def __init__(
        self, latest: Latest, live: Live, replay: Replay, outbox: Outbox, log: Any
    ) -> None:
        self._latest = latest
        self._live = live
        self._replay = replay
        self._outbox = outbox
        self._log = log
        self._feeds: dict[str, Feed] = {}
        self._by_symbol: dict[str, list[Feed]] = {}
        # Texts behind a hole that is being looked into.
        self._waiting: dict[Feed, list[bytes]] = {}
        self._broken: asyncio.Queue[Feed] = asyncio.Queue()
        self._unsure: set[str] = set()
        self._look = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the subscription to Redis stands."""
        return self._live.is_connected

    def feeds(self) -> list[Feed]:
        """Every channel in use."""
        return list(self._feeds.values())

    def find(self, name: str) -> Feed | None:
        """The feed of a channel in use."""
        return self._feeds.get(name)

    async def run(self) -> None:
        """Listen and send until cancelled."""
        await side_by_side(self._listen(), self._mend(), self._compare(), self._sweep())

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
        """Listen to the symbols of feeds; those without a state get the newest.

        Raises BusUnavailable.
        """
        symbols = list(dict.fromkeys(feed.symbol for feed in feeds if feed.symbol is not None))
        await self._live.add(symbols)
        await self._read(symbols)

    def enter(self, feed: Feed, form: Form) -> Group:
        """The group of a form; it is always at the state of its feed."""
        return feed.group(form)

    def force(self, feed: Feed, group: Group) -> None:
        """Nothing: a group has nothing to wait for."""

    async def drop_unused(self, names: Iterable[str]) -> None:
        """Listen no longer to what nobody uses."""
        unused = []
        for name in set(names):
            feed = self._feeds.get(name)
            if feed is None or not feed.is_unused:
                continue
            del self._feeds[name]
            self._waiting.pop(feed, None)
            if feed.symbol is not None:
                self._by_symbol[feed.symbol].remove(feed)
                if not self._by_symbol[feed.symbol]:
                    del self._by_symbol[feed.symbol]
                    unused.append(feed.symbol)
        await self._live.remove(unused)

    def put(self, name: str, state: State) -> None:
        """A new state of a channel that has no symbol."""
        feed = self._feeds.get(name)
        if feed is not None and feed.is_newer(state):
            _go_on(feed, state)

    async def _listen(self) -> None:
        def lost(why: str, attempt: int) -> None:
            self._log.warning("redis_live_lost", error=why, attempt=attempt)

        await self._live.run(self._heard, lost)

    def _heard(self, symbol: str, text: bytes | None) -> None:
        """A text of a live channel; None where some may have gone by unheard."""
        if text is None:
            self._unsure.add(symbol)
            self._look.set()
            return
        for feed in self._by_symbol.get(symbol, ()):
            self._take(feed, text)

    def _take(self, feed: Feed, text: bytes) -> None:
        if feed in self._waiting:
            waiting = self._waiting[feed]
            if len(waiting) < WAITING_TEXTS:
                waiting.append(text)
            return
        try:
            state = feed.read(text)
        except msgspec.MsgspecError as error:
            self._log.error("live_undecodable", channel=feed.channel.name, error=str(error))
            return
        if state is None:
            return
        if feed.kind.resumes and _is_after_hole(feed, state):
            self._waiting[feed] = [text]
            self._broken.put_nowait(feed)
        else:
            _go_on(feed, state)

    async def _mend(self) -> None:
        """Look into the holes; those that are the same, as in all contracts of a chain, at once."""
        while True:
            broken = [await self._broken.get()]
            while not self._broken.empty():
                broken.append(self._broken.get_nowait())
            alike: dict[tuple[str, str, int, int], list[Feed]] = {}
            for feed in broken:
                held, waiting = feed.state, self._waiting.get(feed)
                first = self._state_again(feed, waiting[0]) if waiting else None
                if held is not None and first is not None and feed.symbol is not None:
                    at = held.position
                    hole = (source(feed.symbol), at.epoch, at.seq, first.position.seq)
                    alike.setdefault(hole, []).append(feed)
            for (_, epoch, held_seq, seq), feeds in alike.items():
                symbols = [feed.symbol for feed in feeds if feed.symbol is not None]
                found = await self._found(symbols, epoch, held_seq, seq)
                for feed in feeds:
                    texts = None if found is None else found[feed.symbol or ""]
                    self._close(feed, texts)

    async def _found(
        self, symbols: list[str], epoch: str, held: int, first: int
    ) -> dict[str, list[bytes]] | None:
        try:
            return await self._replay.texts(symbols, epoch, held, first)
        except (BusUnavailable, DecodeError) as error:
            self._log.warning("replay_failed", symbol=symbols[0], error=str(error))
            return None

    def _close(self, feed: Feed, texts: list[bytes] | None) -> None:
        """Send what was found, up to the first text that waits, and then the others that do.

        Where nothing was found, tell that it was lost, with the newest.
        """
        waiting = self._waiting.pop(feed, None)
        if waiting is None:
            return  # nobody is in it any more
        if texts is not None:
            for text in texts[1:]:
                state = self._state_again(feed, text)
                if state is not None and feed.is_newer(state):
                    _go_on(feed, state)
            for text in waiting[1:]:
                self._take(feed, text)
            return
        states = [self._state_again(feed, text) for text in waiting]
        newest = max((state for state in states if state), key=_instant, default=None)
        if newest is not None and feed.is_newer(newest):
            self._log.warning("live_lost", channel=feed.channel.name)
            feed.state = newest
            feed.changes += 1
            for group in feed.groups.values():
                group.lose(newest, feed.changes)

    def _state_again(self, feed: Feed, text: bytes) -> State | None:
        """The state of a text that may have been read before."""
        try:
            return feed.kind.reader(feed.channel.symbol)(text)
        except msgspec.MsgspecError:
            return None

    async def _compare(self) -> None:
        """Look at the newest values of symbols of which something may have gone unheard."""
        while True:
            await self._look.wait()
            self._look.clear()
            symbols = [symbol for symbol in self._unsure if symbol in self._by_symbol]
            self._unsure.clear()
            try:
                await self._read(symbols)
            except BusUnavailable:
                self._unsure.update(symbols)
                await asyncio.sleep(SWEEP_S / 10)
                self._look.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._unsure.update(self._by_symbol)
            self._look.set()

    async def _read(self, symbols: list[str]) -> None:
        for at in range(0, len(symbols), READ_AT_ONCE):
            some = symbols[at : at + READ_AT_ONCE]
            for symbol, text in zip(some, await self._latest.texts(some), strict=True):
                if text is not None:
                    self._heard(symbol, text)


def _is_after_hole(feed: Feed, state: State) -> bool:
    """Whether the update before a state is not the one held; True also where that is not known."""
    held, prev = feed.state, state.position.prev
    if held is None or prev is None or held.position.epoch != state.position.epoch:
        return False
    return prev == 0 or prev > held.position.seq


def _go_on(feed: Feed, state: State) -> None:
    feed.state = state
    feed.changes += 1
    for group in feed.groups.values():
        group.flush(state, feed.changes)


def _instant(state: State) -> tuple[int, int]:
    return state.ts_ingest, state.position.seq
