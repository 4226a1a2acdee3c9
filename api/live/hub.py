"""The fan-out: one subscription to Redis a process, one reading and one encoding for all clients.

A client belongs to a group (channel and form). Forms with an interval are fed from latest values
(`conflated`), those without from live channels (`every`). The hub waits for no client: it puts
packets into backlogs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api.live.backlog import Backlog
from api.live.channels import Channel, Form
from api.live.conflated import Conflated
from api.live.every import Every
from api.live.groups import Feed, Group, replayed
from api.live.kinds import KINDS
from api.live.messages import Packet, State
from api.live.operations import Since
from api.live.outbox import Outbox
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.replay import Replay, source
from pipeline.runtime import side_by_side
from pipeline.watch import Watch

# A group that was entered, what its new member knows, and the state that it then had.
Missing = tuple[Group, Since, State | None]


class Hub:
    """All groups of this process. `run` must run for anything to be sent."""

    def __init__(self, latest: Latest, watch: Watch, live: Live, replay: Replay, log: Any) -> None:
        self._outbox = Outbox()
        self._conflated = Conflated(latest, watch, self._outbox, log)
        self._every = Every(latest, live, replay, self._outbox, log)
        self._replay = replay
        self._log = log

    @property
    def is_connected(self) -> bool:
        """Whether the subscriptions to Redis stand."""
        return self._conflated.is_connected and self._every.is_connected

    @property
    def is_notifying(self) -> bool | None:
        """Whether the server tells of changes to keys; None where that is not known."""
        return self._conflated.is_notifying

    async def run(self) -> None:
        """Listen, read and send until cancelled."""
        await side_by_side(self._conflated.run(), self._every.run())

    def deliver(self) -> None:
        """Put what groups have said into the backlogs of their members, before the loop does."""
        self._outbox.deliver()

    def put(self, channel: str, state: State) -> None:
        """A new state of a channel whose kind has no symbol; nothing where nobody is in it."""
        self._conflated.put(channel, state)
        self._every.put(channel, state)

    def is_used(self, channel: str) -> bool:
        """Whether anybody is in a channel."""
        return any(part.find(channel) is not None for part in (self._conflated, self._every))

    async def join(
        self,
        member: Backlog,
        channels: Sequence[Channel],
        form: Form,
        *,
        since: Mapping[str, Since] | None = None,
        leaving: Sequence[Group] = (),
    ) -> tuple[list[Group], list[Missing]]:
        """Put a client into the group of each channel, and take it out of those it had before.

        It is owed a snapshot of each, except of those that it says `since` when it knows: they are
        held until `recover` has been asked for them. Raises BusUnavailable, and then nothing has
        changed; otherwise nothing is awaited once the client is in.
        """
        part = self._part(form)
        feeds = [part.hold(channel) for channel in channels]
        names = [channel.name for channel in channels]
        try:
            await part.prepare(feeds)
            self._outbox.deliver()  # what is to be held comes after the states told here
            for group in leaving:
                self._take_out(member, group)
            groups: list[Group] = []
            missing: list[Missing] = []
            for feed in feeds:
                group = part.enter(feed, feed.kind.form(form))
                name = feed.channel.name
                known = since.get(name) if since else None
                if known is not None and _may_recover(feed, known):
                    part.force(feed, group)
                    self._outbox.deliver()  # a member already has this one, and gets it again
                    member.hold(name)
                    missing.append((group, known, group.state))
                else:
                    member.owe(name)
                group.enter(member)
                groups.append(group)
            return groups, missing
        finally:
            for feed in feeds:
                feed.held -= 1
            await part.drop_unused(names)
            await self._drop_unused(leaving)

    async def recover(self, member: Backlog, missing: Sequence[Missing]) -> set[str]:
        """Give a client the updates since it was away; the channels of which it gets them all.

        Of the others it is owed a snapshot.
        """
        recovered = set()
        alike: dict[tuple[str, Since, int], list[Group]] = {}
        for group, since, state in missing:
            symbol = _symbol(group)
            if symbol is None or state is None:
                member.owe(group.channel.name)
            else:
                alike.setdefault((source(symbol), since, state.position.seq), []).append(group)
        for (_, since, last), groups in alike.items():
            texts = await self._missed([_symbol(group) or "" for group in groups], since, last)
            for group in groups:
                name = group.channel.name
                packets = _again(group, texts, since.seq, last)
                if packets is not None and member.release(name, packets):
                    recovered.add(name)
                else:
                    member.owe(name)
        return recovered

    async def leave(self, member: Backlog, groups: Iterable[Group]) -> None:
        """Take a client out of its groups; what nobody uses is no longer listened to."""
        left = list(groups)
        for group in left:
            self._take_out(member, group)
        await self._drop_unused(left)

    async def evict(self, member: Backlog) -> None:
        """Take a client out of every group, also of one it was just entering."""
        feeds = [*self._conflated.feeds(), *self._every.feeds()]
        groups = [group for feed in feeds for group in feed.groups.values()]
        await self.leave(member, [group for group in groups if member in group.members])

    def _take_out(self, member: Backlog, group: Group) -> None:
        group.leave(member)
        member.forget(group.channel.name)
        feed = self._part(group.form).find(group.channel.name)
        if feed is not None and not group.members and feed.groups.get(group.form) is group:
            del feed.groups[group.form]

    async def _drop_unused(self, groups: Sequence[Group]) -> None:
        for part in (self._every, self._conflated):
            await part.drop_unused(
                group.channel.name for group in groups if self._part(group.form) is part
            )

    def _part(self, form: Form) -> Conflated | Every:
        return self._conflated if form.interval_ms else self._every

    async def _missed(
        self, symbols: list[str], since: Since, last: int
    ) -> dict[str, list[bytes]] | None:
        """The texts of symbols of one source from a position to a seq; nothing where that is it."""
        if since.seq == last:
            return {}
        try:
            return await self._replay.texts(symbols, since.epoch, since.seq, last)
        except (BusUnavailable, DecodeError) as error:
            self._log.warning("replay_failed", symbol=symbols[0], error=str(error))
            return None


def _symbol(group: Group) -> str | None:
    return KINDS[group.channel.kind].symbol(group.channel.symbol)


def _again(
    group: Group, texts: Mapping[str, list[bytes]] | None, first: int, last: int
) -> list[Packet] | None:
    """The updates of a group from a seq to another; None where they are not to be had."""
    if texts is None or first == last:
        return None if texts is None else []
    reader = KINDS[group.channel.kind].reader(group.channel.symbol)
    try:
        states = [state for text in texts[_symbol(group) or ""] if (state := reader(text))]
    except msgspec.MsgspecError:
        return None
    return replayed(Group(group.channel, group.form, Outbox()), states, first, last)


def _may_recover(feed: Feed, since: Since) -> bool:
    """Whether it is worth to look for what a client missed; the feed is at its newest."""
    newest = feed.state
    return (
        newest is not None
        and feed.kind.resumes
        and newest.position.epoch == since.epoch
        and 0 < since.seq <= newest.position.seq
    )
