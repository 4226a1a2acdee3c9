"""What one client is subscribed to: which channels it may have, and the groups it is in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from api.gateway import Gateway
from api.live.backlog import Backlog
from api.live.channels import Channel, Form, Lookup, Refused
from api.live.groups import Group
from api.live.kinds import KINDS, parse_channel
from api.live.messages import Packet
from api.live.operations import Since, Subscribe, parse_fields
from api.live.patterns import MOST_PATTERNS, is_pattern, pinned
from api.live.wire import Ack, Joined, Refusal

_Refusals = list[Refusal]


@dataclass(slots=True)
class _Asked:
    """How a pattern was asked for, the channels it brought, and what was told of those refused."""

    operation: Subscribe
    brought: set[str]
    refused: _Refusals = field(default_factory=list)


@dataclass(slots=True)
class _Meant:
    """What the names of a subscription mean: the channels to enter, and those named one by one."""

    channels: dict[str, Channel] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    refused: _Refusals = field(default_factory=list)
    resolved: dict[str, str | list[str]] = field(default_factory=dict)
    added: int = 0

    def take(self, name: str, names: list[str], channels: list[Channel], added: int) -> None:
        """A name means these, of which some are to enter, so many for the first time."""
        self.added += added
        self.channels |= {one.name: one for one in channels}
        if is_pattern(name):
            self.resolved[name] = names
            return
        self.named.update(names)
        if names != [name]:
            self.resolved[name] = names[0] if len(names) == 1 else names


class Subscriptions:
    """The channels of one session; every answer names the refused ones with the reason."""

    def __init__(self, gateway: Gateway, backlog: Backlog) -> None:
        self._gateway = gateway
        self._backlog = backlog
        self._groups: dict[str, Group] = {}
        self._named: set[str] = set()  # the channels that no pattern alone brought
        self._patterns: dict[str, _Asked] = {}
        self._changing = asyncio.Lock()  # patterns bring channels at any time
        self._is_over = False

    def names(self) -> list[str]:
        """The full set of channels, in order."""
        return sorted(self._groups)

    def instants(self) -> Iterator[tuple[str, int]]:
        """Each channel with the `ts_ingest` of what was last sent of it."""
        for name, group in self._groups.items():
            if group.state is not None:
                yield name, group.state.ts_ingest

    def snapshot(self, channel: str) -> Packet | None:
        """The state of a channel as of its last update; None while it has none."""
        group = self._groups.get(channel)
        return None if group is None else group.snapshot()

    async def add(self, operation: Subscribe) -> Ack:
        """Enter channels; gives the acknowledgement.

        Raises Refused for fields that do not exist, BusUnavailable and DecodeError.
        """
        patterns = [name for name in operation.channels if is_pattern(name)]
        async with self._changing:
            if patterns and not self._is_over:
                self._gateway.patterns.follow(self)  # first: from now on nothing new is missed
            try:
                with self._gateway.sources.entering() as begin:
                    answer = await self._add(operation, await self._lookup(begin))
                for name in patterns:
                    if answer.resolved and name in answer.resolved:
                        asked = msgspec.structs.replace(operation, channels=[], since={})
                        self._patterns[name] = _Asked(asked, _matched(answer, name))
            finally:
                self._unfollow()
        return answer

    async def look_again(self) -> None:
        """Enter the channels that patterns match by now, and tell the client.

        Raises BusUnavailable and DecodeError.
        """
        async with self._changing:
            if self._is_over or not self._patterns:
                return
            with self._gateway.sources.entering() as begin:
                lookup = await self._lookup(begin)
                for pattern, asked in list(self._patterns.items()):
                    if not self._is_over:
                        await self._look_again(pattern, asked, lookup)

    async def _look_again(self, pattern: str, asked: _Asked, lookup: Lookup) -> None:
        name = pinned(pattern, asked.brought)
        again = msgspec.structs.replace(asked.operation, channels=[name])
        before = set(self._groups)
        answer = await self._add(again, lookup, asked)
        new = sorted(self._groups.keys() - before)
        asked.brought |= _matched(answer, name)
        if new or (answer.refused and answer.refused != asked.refused):
            self._backlog.tell(Joined(pattern=pattern, refused=answer.refused, channels=new))
        asked.refused = answer.refused

    async def _lookup(self, begin: Callable[[str], Awaitable[bool]]) -> Lookup:
        gateway = self._gateway
        return Lookup(
            gateway.latest,
            await gateway.latest.catalog(),
            gateway.settings.underlyings,
            gateway.clock.now_ns(),
            begin,
        )

    async def _add(self, operation: Subscribe, lookup: Lookup, again: _Asked | None = None) -> Ack:
        """The same; where a pattern is asked `again`, what is there or was left stays so."""
        form = Form(operation.interval_ms, _fields(operation), operation.delta)
        meant = await self._meant(operation, lookup, again)
        wanted = list(meant.channels.values())
        since = _since(operation, meant.resolved)
        hub, leaving = self._gateway.hub, self._in_other_forms(wanted, form)
        groups, missing = await hub.join(self._backlog, wanted, form, since=since, leaving=leaving)
        for channel in wanted:
            self._backlog.choose(channel.name, operation.slow)
            self._gateway.sources.show(channel.name)
        await self._settle(groups, lookup, meant.refused)
        self._named |= meant.named & self._groups.keys()
        recovered = await hub.recover(self._backlog, missing)
        return Ack(
            op="subscribe",
            id=operation.id,
            channels=self.names(),
            refused=meant.refused,
            resolved=meant.resolved or UNSET,
            recovered={name: name in recovered for name in since} if operation.since else UNSET,
        )

    async def remove(self, names: Iterable[str]) -> None:
        """Leave channels; those not subscribed to are no error.

        With a pattern goes what it alone brought.
        """
        async with self._changing:
            left = set(names)
            gone = [self._patterns.pop(name) for name in left & self._patterns.keys()]
            kept = self._named.union(*(asked.brought for asked in self._patterns.values()))
            left |= set().union(*(asked.brought for asked in gone)) - kept
            self._named -= left
            self._unfollow()
            groups = [self._groups.pop(name) for name in left if name in self._groups]
            if any(asked.refused for asked in self._patterns.values()):
                self._gateway.patterns.follow(self)  # there may be room now
            await self._gateway.hub.leave(self._backlog, groups)

    async def clear(self) -> None:
        """Leave every channel."""
        self._is_over = True
        self._gateway.patterns.dismiss(self)
        async with self._changing:
            self._groups.clear()
            self._patterns.clear()
            await self._gateway.hub.evict(self._backlog)

    def _unfollow(self) -> None:
        """Look no more where there is no pattern left, or nobody."""
        if self._is_over or not self._patterns:
            self._gateway.patterns.dismiss(self)

    def resync(self, names: list[str] | None) -> _Refusals:
        """Owe snapshots of these channels, or of all; gives those that are not subscribed to."""
        refused: _Refusals = []
        for name in list(self._groups) if names is None else names:
            if name in self._groups:
                self._backlog.owe(name)
            else:
                refused.append(_refusal(name, "not_subscribed", "subscribe to it first"))
        return refused

    async def _meant(self, operation: Subscribe, lookup: Lookup, again: _Asked | None) -> _Meant:
        """The channels that may be entered; the others are named as refused."""
        meant = _Meant()
        left_alone = self._groups.keys() | again.brought if again else frozenset()
        for name in dict.fromkeys(operation.channels):
            try:
                found = await _resolve(parse_channel(name), lookup)
                channels = [one for one in found if one.name not in left_alone]
                new = {one.name for one in channels} - self._groups.keys() - meant.channels.keys()
                self._demand_room(name, len(new), meant)
            except Refused as error:
                meant.refused.append(_refusal(name, error.code, str(error)))
                continue
            meant.take(name, [one.name for one in found], channels, len(new))
        return meant

    def _demand_room(self, name: str, more: int, meant: _Meant) -> None:
        """Raises Refused where a name means more than the session has room for."""
        limit = self._gateway.limits.channels
        if more and len(self._groups) + meant.added + more > limit:
            detail = f"{more} more, and a session has at most {limit}"
            raise Refused("too_many_channels", detail)
        if is_pattern(name):
            patterns = {name, *self._patterns, *filter(is_pattern, meant.resolved)}
            if len(patterns) > max(MOST_PATTERNS, len(self._patterns)):
                detail = f"a session has at most {MOST_PATTERNS} patterns"
                raise Refused("too_many_channels", detail)

    def _in_other_forms(self, wanted: Iterable[Channel], form: Form) -> list[Group]:
        """The groups in which channels are now, and which they leave for those of this form."""
        return [
            group
            for channel in wanted
            if (group := self._groups.get(channel.name)) is not None
            and group.form != KINDS[channel.kind].form(form)
        ]

    async def _settle(self, groups: list[Group], lookup: Lookup, refused: _Refusals) -> None:
        """Keep the groups entered, leave those of unknown symbols."""
        left: list[Group] = []
        for group in groups:
            channel = group.channel
            is_known = KINDS[channel.kind].is_known
            if group.state is None and not is_known(channel.symbol, lookup):
                self._groups.pop(channel.name, None)
                left.append(group)
                refused.append(_refusal(channel.name, "unknown_symbol", "nothing is known of it"))
            else:
                self._groups[channel.name] = group
        await self._gateway.hub.leave(self._backlog, left)


async def _resolve(channel: Channel, lookup: Lookup) -> list[Channel]:
    rests = await KINDS[channel.kind].resolve(channel.symbol, lookup)
    return [Channel(channel.kind, rest) for rest in rests]


def _since(operation: Subscribe, resolved: dict[str, str | list[str]]) -> dict[str, Since]:
    """What the client knows, by the names that channels have once resolved."""
    known = dict(operation.since)
    for name, channel in resolved.items():
        if name in known and isinstance(channel, str):
            known.setdefault(channel, known.pop(name))
    return known


def _fields(operation: Subscribe) -> tuple[str, ...]:
    try:
        return parse_fields(operation.fields)
    except Refused as error:
        raise Refused(error.code, str(error), operation.id) from None


def _refusal(channel: str, code: str, detail: str) -> Refusal:
    return Refusal(channel[:200], code, detail)


def _matched(answer: Ack, pattern: str) -> set[str]:
    """The channels that a pattern means by an answer."""
    found = answer.resolved.get(pattern, []) if answer.resolved else []
    return {found} if isinstance(found, str) else set(found)
