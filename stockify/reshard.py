"""Cuts the bus into another number of shards: old streams are worked off, then the names change.

Nothing is appended to a stream that is being worked off, which the appending call itself sees to;
nobody may start on the new names before all groups are through with the old ones; and a stream that
bears a name of both is opened again once no process of the old cut is left. So nothing is lost, and
what came first of an underlying is still finished first.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from pipeline import latest, layout, topics
from pipeline.cluster import primaries
from pipeline.errors import ConfigError
from pipeline.layout import Layout, Record
from pipeline.runtime import Redis
from pipeline.streams import groups
from pipeline.streams.state import GroupState, StreamState, read_state
from pipeline.topics import Topics
from stockify.bus import Bus

LOOK_S = 0.2
TOLD_EVERY_S = 5.0
AT_ONCE = 100  # values that are copied at the same time
RETIRED = "retired"
KINDS = ("raw", "enriched", "contracts")  # those first that the others are made from
NEVER = ("dead", "replay")  # letters are found in streams of every cut; a replay's go within a day


class Waiting(msgspec.Struct, frozen=True):
    """A group that has not finished a stream."""

    stream: str
    group: str
    unread: int | None
    pending: int


class Outlook(msgspec.Struct, frozen=True):
    """What stands before a change: which groups have how much to do, and what is there."""

    old: Topics
    new: Topics
    waiting: tuple[Waiting, ...]
    letters: int
    chains: int


class Reshard:
    """One change of the number of shards; `leave` names groups that nobody works any more."""

    def __init__(self, bus: Bus, record: Record, shards: int, leave: Iterable[str]) -> None:
        if shards <= 0:
            raise ConfigError("--shards must be above zero")
        self._bus = bus
        self._redis = bus.redis
        self._keep_s = bus.settings.keep_s
        self._record = record
        self._leave = frozenset(leave)
        self.old = record.current.topics
        self.new = Topics(shards, bus.settings.redis_cluster)

    async def outlook(self) -> Outlook:
        """How things stand now. Raises ConfigError where the bus is cut so already."""
        if names(self.old) == names(self.new):
            raise ConfigError(f"the number of shards is {self.old.shards} already")
        letters = [await self._redis.xlen(self.old.dead(n)) for n in range(self.old.shards)]
        catalog = await latest.Latest(self._redis, self.old).catalog()
        return Outlook(
            old=self.old,
            new=self.new,
            waiting=tuple(await self._waiting(names(self.old, await kinds(self._bus, self.old)))),
            letters=sum(letters),
            chains=len(catalog.chains),
        )

    async def run(self, say: Callable[[str], None], wait_s: float) -> None:
        """Do it. Raises TimeoutError where groups did not finish in time; then all is as before."""
        coming = Layout(self.new.shards, self.new.tagged)
        await layout.write(self._redis, msgspec.structs.replace(self._record, coming=coming))
        began = time.monotonic()
        deadline = began + wait_s
        found = await kinds(self._bus, self.old)
        try:
            for kind in found:
                streams = streams_of(self.old, kind)
                await retire(self._redis, streams)
                await self._until_finished(streams, say, deadline)
        except BaseException:
            await cancel(self._bus, self._record)
            raise
        await self._clear_leftovers()
        await self._make_groups(found)
        say(f"{await self._copy_latest():,} latest values copied")
        current = msgspec.structs.replace(coming, since_ms=time.time_ns() // 1_000_000)
        past = (*self._record.past, self._record.current)
        await layout.write(self._redis, Record(current=current, past=past))
        held_s = time.monotonic() - began
        say(f"shards now: {self.new.shards}; nothing was appended for {held_s:.1f} s")
        await self._let_go()
        await open_again(self._bus, self.old, self.new, say)

    async def _until_finished(
        self, streams: Sequence[str], say: Callable[[str], None], deadline: float
    ) -> None:
        told = time.monotonic() - TOLD_EVERY_S
        while waiting := await self._waiting(streams):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished in time: {described(waiting)}")
            if time.monotonic() - told >= TOLD_EVERY_S:
                told = time.monotonic()
                say(f"waiting for {described(waiting)}")
            await asyncio.sleep(LOOK_S)

    async def _waiting(self, streams: Iterable[str]) -> list[Waiting]:
        found = []
        for stream in streams:
            state = await read_state(self._redis, stream)
            found += [
                Waiting(stream, group.name, group.lag, group.pending)
                for group in state.groups
                if group.name not in self._leave and not is_finished(state, group)
            ]
        return found

    async def _clear_leftovers(self) -> None:
        """Streams of the new names from an earlier cut are finished long since: they begin anew."""
        for stream in set(names(self.new)) - set(names(self.old)):
            await self._redis.delete(stream)
            for key in beside(stream):
                await self._redis.delete(key)

    async def _make_groups(self, found: Sequence[str]) -> None:
        """Every group begins at the start of its new streams, also one that is not running."""
        for kind in found:
            known: dict[str, GroupState] = {}
            for stream in streams_of(self.old, kind):
                state = await read_state(self._redis, stream)
                known |= {group.name: group for group in state.groups}
            for stream in streams_of(self.new, kind):
                for group in known.values():
                    if group.name not in self._leave:
                        await groups.ensure(
                            self._redis, stream, group.name, start="0-0", card=group.card
                        )

    async def _copy_latest(self) -> int:
        """Bring the newest values to the names of their new shards."""
        copied = 0
        for shard in range(self.old.shards):
            catalog: Any = await self._redis.hgetall(self.old.catalog(shard))
            for field, card in catalog.items():
                target = self.new.catalog(latest.shard_of(self.new, field.decode()))
                await self._redis.hset(target, field, card)
        async for symbols in symbols_of(self._redis, self.old):
            copied += sum(await asyncio.gather(*map(self._copy_one, symbols)))
        return copied

    async def _copy_one(self, symbol: str) -> bool:
        old, new = latest.shard_of(self.old, symbol), latest.shard_of(self.new, symbol)
        source, target = self.old.latest(symbol, old), self.new.latest(symbol, new)
        if source == target:
            return False
        text = await self._redis.get(source)
        if text is not None:
            await self._redis.set(target, text, ex=topics.LATEST_TTL_S)
        return text is not None

    async def _let_go(self) -> None:
        """Old streams stay as long as any finished entry does, then go by themselves."""
        for stream in set(names(self.old)) - set(names(self.new)):
            for key in (stream, *beside(stream)):
                await self._redis.expire(key, self._keep_s)


def names(topic_map: Topics, found: Sequence[str] = KINDS) -> list[str]:
    """Every stream of these kinds, in their order."""
    return [stream for kind in found for stream in streams_of(topic_map, kind)]


async def kinds(bus: Bus, cut: Topics) -> list[str]:
    """Ours, then the users' own streams: those that are numbered as ours, shard by shard."""
    own = []
    for stream in await bus.streams():
        kind = stream.removeprefix(Topics().stream("")).partition(":{")[0]
        is_numbered = await bus.redis.exists(topics.sequence(stream))
        if is_numbered and stream in streams_of(cut, kind):
            own.append(kind)
    others = sorted(set(own) - set(KINDS))
    return [*KINDS, *(kind for kind in others if kind.partition(":")[0] not in NEVER)]


def streams_of(topic_map: Topics, kind: str) -> list[str]:
    """The streams of one kind, by shard."""
    return [topic_map.stream(kind, shard) for shard in range(topic_map.shards)]


def beside(stream: str) -> tuple[str, ...]:
    """What is kept of a stream's groups."""
    return topics.group_cards(stream), topics.cursors(stream), topics.bookmarks(stream)


async def retire(redis: Redis, streams: Iterable[str]) -> None:
    """Have nothing more appended to these."""
    for stream in streams:
        await redis.hset(topics.sequence(stream), RETIRED, "1")


async def cancel(bus: Bus, record: Record) -> None:
    """Give up a change that was begun: the old streams take entries again."""
    cut = record.current.topics
    for stream in names(cut, await kinds(bus, cut)):
        await bus.redis.hdel(topics.sequence(stream), RETIRED)
    await layout.write(bus.redis, msgspec.structs.replace(record, coming=None))


async def is_interrupted(bus: Bus, record: Record) -> bool:
    """Whether streams of the cut in use still take nothing."""
    cut = record.current.topics
    for stream in names(cut, await kinds(bus, cut)):
        if await bus.redis.hexists(topics.sequence(stream), RETIRED):
            return True
    return False


async def open_again(bus: Bus, old: Topics, new: Topics, say: Callable[[str], None]) -> None:
    """Open the new streams, those that bear an old name once nobody of the old cut is left."""
    redis = bus.redis
    found = list(dict.fromkeys((*await kinds(bus, old), *await kinds(bus, new))))
    shared = set(names(old, found)) & set(names(new, found))
    for stream in set(names(new, found)) - shared:
        await redis.hdel(topics.sequence(stream), RETIRED)
    told = ""
    while shared and (left := await processes_of(redis, old)):
        if (text := ", ".join(sorted(left))) != told:
            say(f"waiting until these leave: {text}")
            told = text
        await asyncio.sleep(LOOK_S)
    for stream in shared:
        await redis.hdel(topics.sequence(stream), RETIRED)


async def processes_of(redis: Redis, cut: Topics) -> list[str]:
    """Who has told of itself lately and reads or writes the streams of that cut.

    One that is starting does not yet, and will be refused.
    """
    found = []
    for server in await primaries(redis):
        async for key in server.scan_iter(match=topics.HEARTBEATS):
            text = await redis.get(key)
            report = msgspec.json.decode(text) if text else {}
            if report.get("shards") == cut.shards and report.get("state") != "starting":
                found.append(key.decode().partition(":")[2])
    return found


def is_finished(state: StreamState, group: GroupState) -> bool:
    """Whether a group has been given and has finished all there is."""
    if not state.is_there or not state.newest:
        return True
    return group.is_there and group.pending == 0 and _place(group.position) >= _place(state.newest)


def described(waiting: Sequence[Waiting]) -> str:
    """Who is how far behind, in words."""
    return "; ".join(
        f"{one.group} of {one.stream}: "
        f"{'some' if one.unread is None else format(one.unread, ',')} unread, "
        f"{one.pending:,} in work"
        for one in waiting
    )


async def symbols_of(redis: Redis, cut: Topics) -> AsyncIterator[list[str]]:
    """The symbols that have a newest value, some at a time."""
    for server in await primaries(redis):
        for shard in range(cut.shards):
            prefix = cut.latest("", shard)
            keys = server.scan_iter(match=f"{prefix}*", count=1_000)
            found = [key.decode().removeprefix(prefix) async for key in keys]
            # Without a tag the names of every cut begin alike.
            symbols = (symbol for symbol in found if "{" not in symbol)
            while page := list(islice(symbols, AT_ONCE)):
                yield page


def _place(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number or 0)
