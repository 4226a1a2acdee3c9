"""What a consumer of the kit is handed: entries of one shard, read together and finished together.

A batch is the only way to say of an entry that it is done. It never reads from the stream.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.entries import Entry, NewEntry
from pipeline.errors import ConfigError
from pipeline.runtime import Context
from pipeline.streams.consumer import Consumer
from pipeline.streams.shards import Gap
from pipeline.views import Chain

Source = Chain | Entry


class Writer:
    """Makes entries of what a user writes: each type of message by its class, encoded as JSON."""

    def __init__(self, context: Context, group: str, types: Mapping[str, type]) -> None:
        self._context, self._group = context, group
        self._types = {made: name for name, made in types.items()}

    def stream(self, target: str, shard: int) -> str:
        """The stream of that name which lives beside a shard."""
        return self._context.topics.stream(target, shard)

    def entry(self, source: Entry, result: Any, number: int) -> NewEntry:
        """The entry of the `number`th result of a source; the same again after a crash.

        Raises ConfigError for a class that the consumer was not told of.
        """
        if isinstance(result, NewEntry):
            return result
        kind = self._types.get(type(result))
        if kind is None:
            raise ConfigError(
                f"{type(result).__name__} is not among what {self._group} said it writes:"
                f" want consume(…, writes={{'signal.v1': {type(result).__name__}}})"
            )
        return NewEntry(
            id=f"{source.id or source.stream_id}:{self._group}:{number}",
            type=kind,
            key=source.key,
            ts=source.ts,
            te=self._context.clock.now_ns(),
            traceparent=source.traceparent,
            data=msgspec.json.encode(result),
        )


class Batch:
    """What came of one read: iterating gives its chains, `entries` whatever the stream holds.

    Entries of one underlying are in order, within a batch and from one to the next. `skipped`
    counts entries that were trimmed before this group could read them, since the batch before;
    `is_new_epoch` says that the stream was lost and numbered anew since then. Members that compete
    for entries (`exclusive=False`) cannot tell the first of these.
    """

    def __init__(
        self,
        consumer: Consumer,
        writer: Writer,
        shard: int,
        read: Sequence[Entry],
        *,
        entries: list[Entry],
        chains: list[Chain] | None,
        gap: Gap,
    ) -> None:
        self._consumer, self._writer = consumer, writer
        self._chains = chains
        self._left = {entry.stream_id: entry for entry in read}
        self._unwanted = self._left.keys() - {entry.stream_id for entry in entries}
        self.shard = shard
        self.entries = entries
        self.skipped, self.epoch, self.is_new_epoch = gap

    def __iter__(self) -> Iterator[Chain]:
        return iter(self.chains)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def chains(self) -> list[Chain]:
        """The chains of the batch. Raises ConfigError where the stream carries no frames."""
        if self._chains is None:
            raise ConfigError(f"{self._consumer.stream} carries no frames: read `batch.entries`")
        return self._chains

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to acknowledge."""
        return not self._left

    async def ack(self, *, only: Iterable[Source] | None = None) -> int:
        """Acknowledge all that is left of the batch, or only some; gives how many counted.

        What is no longer this member's, since another took it over, does not count.
        """
        chosen = list(self._left.values()) if only is None else self._taken(only)
        done = await self._consumer.ack(chosen)
        self._forget(chosen)
        return done

    async def dead_letter(self, source: Source, reason: str, error: str = "") -> None:
        """Set one entry aside with a reason in a word and the error; the rest goes on."""
        (entry,) = self._taken([source], with_unwanted=False)
        await self._consumer.dead_letter(entry, reason, error)
        self._forget([entry])

    async def finish(
        self,
        target: str,
        results: Iterable[tuple[Source, Any]],
        *,
        only: Iterable[Source] | None = None,
    ) -> int:
        """Acknowledge the batch and append what came of it to a stream, in one step.

        A result stands beside the chain or entry it was made of, which may have many or none. It
        is of a class that `writes` names, or a `NewEntry`. `only` finishes part of the batch. So
        each is written exactly once: nothing is written for an entry that is no longer this
        member's, and its next owner writes it. Gives how many were written.
        """
        left = dict(self._left) if only is None else _by_id(self._taken(only))
        made: dict[str, list[NewEntry]] = {stream_id: [] for stream_id in left}
        for source, result in results:
            entry = _entry(source)
            if entry.stream_id not in left:
                raise ConfigError(f"a result of entry {entry.stream_id}, which is not to finish")
            beside = made[entry.stream_id]
            beside.append(self._writer.entry(entry, result, len(beside)))
        if not left:
            return 0
        pairs = [(entry, made[stream_id]) for stream_id, entry in left.items()]
        stream = self._writer.stream(target, self.shard)
        written = await self._consumer.finish_each(stream, pairs)
        self._forget(list(left.values()))
        return sum(many or 0 for many in written)

    def _taken(self, sources: Iterable[Source], *, with_unwanted: bool = True) -> list[Entry]:
        """The entries of those sources, and what nobody wanted of the batch along with them."""
        chosen = []
        for entry in map(_entry, sources):
            if entry.stream_id not in self._left:
                raise ConfigError(f"entry {entry.stream_id} is finished, or of another batch")
            chosen.append(entry)
        if with_unwanted:
            chosen += [self._left[stream_id] for stream_id in self._unwanted & self._left.keys()]
        return chosen

    def _forget(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._left.pop(entry.stream_id, None)


def _entry(source: Source) -> Entry:
    return source.entry if isinstance(source, Chain) else source


def _by_id(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.stream_id: entry for entry in entries}
