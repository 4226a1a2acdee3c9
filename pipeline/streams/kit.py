"""consume(): the enriched stream, or any other, for a program that wants its data and not its bus.

It reads every shard that carries what is wanted, decodes no more than that, and hands out batches;
what is finished is said of a batch. It is the only room of the bus that looks into entries, and
never into a body of the provider's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import date, datetime
from typing import Literal

import msgspec

from pipeline.dhan import underlyings_named
from pipeline.entries import Entry
from pipeline.errors import ConfigError, DecodeError
from pipeline.models import ENRICHED_CHAIN_TYPE, ENRICHED_EXPIRIES_TYPE, ENRICHED_POLLS_TYPE, Kind
from pipeline.runtime import Context, pause
from pipeline.schemas import announce
from pipeline.selection import Selection, selection
from pipeline.shapes import Schema, schema_of
from pipeline.streams import groups
from pipeline.streams.batch import Batch, Writer
from pipeline.streams.consumer import Consumer
from pipeline.streams.shards import Read, Shard
from pipeline.streams.standalone import standalone
from pipeline.topics import Topics
from pipeline.views import Chain, view


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer asked for, checked; the arguments of `consume`."""

    group: str
    stream: str
    start: str
    selected: Selection
    count: int
    critical: bool
    promise_s: int
    promise_bytes: int
    exclusive: bool
    manual_ack: bool
    schemas: tuple[Schema, ...]
    writes: Mapping[str, type]

    @property
    def has_frames(self) -> bool:
        """Whether the stream carries chains."""
        return self.stream == Topics().enriched()


def consume(
    group: str,
    *,
    context: Context | None = None,
    stream: str = "enriched",
    start: str | datetime | None = None,
    underlying: str | Iterable[str] = (),
    expiry: date | str | Iterable[date | str] = (),
    kind: Kind | Literal["call", "put"] | None = None,
    band_strikes: int | None = None,
    band_percent: float | None = None,
    count: int = 16,
    critical: bool = False,
    promise_s: int = 0,
    promise_bytes: int = 0,
    exclusive: bool = True,
    manual_ack: bool = False,
    writes: Mapping[str, type] | None = None,
    stopping: asyncio.Event | None = None,
) -> "Consumption":
    """Batches of a stream, for a group of that name: `async for batch in consume("my-group")`.

    In a worker pass its `context`. Without one it takes the running instance's settings, and stops
    on SIGINT and SIGTERM unless given an event `stopping` to stop by.

    `stream` is `enriched`, `raw`, `contracts` or any other name. `start` says where a group begins
    that never was: `latest`, `earliest`, a stream id or a time (RFC 3339 text or datetime, of the
    entry's appending). It may be left out for a best-effort group, which then begins with what
    comes: nobody waits for what it missed before it was.

    `underlying` and `expiry` name one or several; `kind` is `call` or `put`; `band_strikes` keeps
    the strike nearest the forward and so many on each side, `band_percent` the strikes within so
    many percent of it. The last three cut legs, and are for chains alone.

    A `critical` group holds the trimmer back until it has finished; a best-effort one does so
    within its promise, seconds and bytes, 0 being what the stream keeps anyway. Of an `exclusive`
    group one member works a shard at a time and each underlying stays in order; otherwise its
    members compete. A batch is acknowledged when the next one is asked for, unless `manual_ack`.
    `writes` names the types that the group appends by `batch.finish`, `{"signal.v1": Signal}`.

    Raises ConfigError for what cannot be meant.
    """
    chosen = selection(
        underlying=underlying,
        expiry=expiry,
        kind=kind,
        band_strikes=band_strikes,
        band_percent=band_percent,
    )
    underlyings_named(sorted(chosen.underlyings), "consume(underlying=…)")
    if start is None and critical:
        raise ConfigError(f"critical group {group}: say where it starts, latest or earliest")
    order = Order(
        group=group,
        stream=Topics().stream(stream),
        start=_position("latest" if start is None else start),
        selected=chosen,
        count=count,
        critical=critical,
        promise_s=promise_s,
        promise_bytes=promise_bytes,
        exclusive=exclusive,
        manual_ack=manual_ack,
        schemas=tuple(_schema(name, made) for name, made in (writes or {}).items()),
        writes=writes or {},
    )
    if not order.has_frames and chosen.cuts_legs:
        raise ConfigError(f"kind and band cut chains, and {order.stream} has none")
    return Consumption(order, context, stopping)


class Consumption:
    """A group's reading of a stream; iterate it for batches, once.

    Used as `async with consume(…) as batches`, it has let go of everything at the end of the block,
    however that came. Without it the loop lets go when it ends, and after a `break` soon. What was
    handed out and not acknowledged comes again: to this group's next member, first of all.
    """

    def __init__(
        self, order: Order, context: Context | None = None, stopping: asyncio.Event | None = None
    ) -> None:
        self.order = order
        self._given, self._stopping = context, stopping
        self._context: Context | None = None
        self._exits = contextlib.AsyncExitStack()
        self._shards: list[Shard] = []
        self._ready: asyncio.Queue[Read] = asyncio.Queue()
        self._running = asyncio.Event()
        self._running.set()

    @property
    def context(self) -> Context:
        """Settings, clock, telemetry and Redis, while it is open."""
        if self._context is None:
            raise ConfigError("not open: use `async with consume(…) as batches`")
        return self._context

    @property
    def lag(self) -> int:
        """Entries appended and not yet read, of the shards that this member works."""
        return sum(shard.consumer.lag for shard in self._shards)

    async def __aenter__(self) -> "Consumption":
        await self.open()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self._batches()

    async def open(self) -> None:
        """Join the group and begin to read. Raises ConfigError, SchemaConflict."""
        if self._context is not None:
            return
        order = self.order
        try:
            context = self._given
            if context is None:
                alone = standalone(order.group, self._stopping)
                context = await self._exits.enter_async_context(alone)
            self._context = context
            if order.schemas:
                await announce(context, order.schemas)
            for number in self._numbers(context):
                shard = self._shard(context, number)
                self._exits.push_async_callback(shard.close)
                self._shards.append(shard)
            if context.telemetry.state == "starting":
                context.telemetry.set_state("ready")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give up shards and connections; what is not acknowledged stays pending."""
        await self._exits.aclose()
        self._shards = []
        self._context = None

    def pause(self) -> None:
        """Hand out nothing more until `resume`."""
        self._running.clear()
        for shard in self._shards:
            shard.consumer.pause()

    def resume(self) -> None:
        """Hand out batches again."""
        self._running.set()
        for shard in self._shards:
            shard.consumer.resume()

    async def seek(self, position: str | datetime) -> None:
        """Go on after an id or at a time, `earliest` or `latest`: the whole group, every shard.

        What was handed out before is let go: acknowledging it does nothing. An id is one of a
        single shard, so with several seek to a time. Raises BusUnavailable where another member
        works a shard of this group.
        """
        to = _position(position)
        await self.open()
        for shard in self._shards:
            await shard.seek(to)

    def _shard(self, context: Context, number: int) -> Shard:
        order = self.order
        consumer = Consumer(
            context,
            context.topics.stream(order.stream, number),
            order.group,
            dead_stream=context.topics.dead(number),
            start=order.start,
            critical=order.critical,
            promise_s=order.promise_s,
            promise_bytes=order.promise_bytes,
            exclusive=order.exclusive,
        )
        return Shard(
            *(context, consumer, number, self._ready),
            count=order.count,
            exclusive=order.exclusive,
        )

    def _numbers(self, context: Context) -> list[int]:
        """The shards that carry what is wanted."""
        wanted = self.order.selected.underlyings
        if not wanted:
            return list(range(context.topics.shards))
        return sorted({context.topics.shard_of(underlying) for underlying in wanted})

    async def _batches(self) -> AsyncIterator[Batch]:
        opened_here = self._context is None
        await self.open()
        try:
            while (read := await self._next()) is not None:
                batch = await self._batch(*read)
                if batch.entries or batch.skipped or batch.is_new_epoch:
                    yield batch
                if not batch.is_finished and (not self.order.manual_ack or not batch.entries):
                    await batch.ack()
        finally:
            if opened_here:
                await self.close()

    async def _next(self) -> tuple[Shard, list[Entry]] | None:
        """What was read next, the shards in turn; None when all have stopped."""
        stopping = self.context.stopping
        while any(not shard.has_ended for shard in self._shards):
            read = await self._ready.get()
            while not self._running.is_set():
                if stopping.is_set():
                    return None
                await pause(stopping, 0.05)
            entries = read.shard.take(read)
            if entries:
                return read.shard, entries
        return None

    async def _batch(self, shard: Shard, read: list[Entry]) -> Batch:
        order = self.order
        entries = [entry for entry in read if order.selected.wants(entry.key)]
        chains: list[Chain] | None = None
        spoiled: list[Entry] = []
        if order.has_frames:
            chains = []
            for entry in entries:
                try:
                    if (chain := _chain(entry, order.selected)) is not None:
                        chains.append(chain)
                except DecodeError as error:
                    await shard.consumer.dead_letter(entry, "undecodable", str(error))
                    spoiled.append(entry)
            entries = [chain.entry for chain in chains]
        gap = shard.gap(read)
        return Batch(
            shard.consumer,
            Writer(self.context, order.group, order.writes),
            shard.number,
            [entry for entry in read if entry not in spoiled] if spoiled else read,
            entries=entries,
            chains=chains,
            gap=gap,
        )


def _chain(entry: Entry, selected: Selection) -> Chain | None:
    """The chain of an entry; None for what is there beside chains. Raises DecodeError."""
    if entry.type == ENRICHED_CHAIN_TYPE:
        return view(entry, selected)
    if entry.type in (ENRICHED_EXPIRIES_TYPE, ENRICHED_POLLS_TYPE):
        return None
    raise DecodeError(f"type {entry.type!r} is not known")


def _position(position: str | datetime) -> str:
    """The position as text. Raises ConfigError for what is none."""
    if isinstance(position, datetime):
        if position.tzinfo is None:
            raise ConfigError(f"{position}: want a time with its zone")
        position = position.isoformat()
    groups.start_id(position)
    return position


def _schema(kind: str, made: type) -> Schema:
    subject, _, version = kind.rpartition(".v")
    try:
        return schema_of(subject, int(version), made)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"writes {kind!r}: {error}") from error
