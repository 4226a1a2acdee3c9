"""What one client is subscribed to: which channels it may have, and the groups it is in."""

import asyncio
from collections.abc import Collection, Iterable, Iterator

import msgspec
from msgspec import UNSET

from api.gateway import Gateway
from api.live.backlog import Backlog
from api.live.channels import Channel, Form, Lookup, Refused
from api.live.groups import Group
from api.live.kinds import KINDS, parse_channel
from api.live.messages import Packet
from api.live.operations import Since, Subscribe, parse_fields
from api.live.patterns import is_pattern
from api.live.wire import Ack, Joined, Refusal

_Refusals = list[Refusal]


class Subscriptions:
    """The channels of one session; every answer names the refused ones with the reason."""

    def __init__(self, gateway: Gateway, backlog: Backlog) -> None:
        self._gateway = gateway
        self._backlog = backlog
        self._groups: dict[str, Group] = {}
        # By pattern: how it was asked for, and the channels it brought.
        self._patterns: dict[str, tuple[Subscribe, set[str]]] = {}
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
        async with self._changing:
            answer = await self._add(operation)
        refused = {one.channel for one in answer.refused}
        for name in filter(is_pattern, operation.channels):
            if name[:200] not in refused:
                self._patterns[name] = (operation, _matched(answer, name))
                self._gateway.patterns.follow(self)
        return answer

    async def look_again(self) -> None:
        """Enter the channels that patterns match by now, and tell the client.

        Raises BusUnavailable and DecodeError.
        """
        async with self._changing:
            for pattern, (operation, brought) in list(self._patterns.items()):
                if self._is_over:
                    return
                asked = msgspec.structs.replace(operation, channels=[pattern], since={})
                answer = await self._add(asked, brought)
                names = _matched(answer, pattern)
                new = sorted(names - brought)
                brought.update(names)
                if new or answer.refused:
                    told = Joined(pattern=pattern, refused=answer.refused, channels=new)
                    self._backlog.tell(told)

    async def _add(self, operation: Subscribe, brought: Collection[str] = ()) -> Ack:
        """The same; those that a pattern has `brought` already are left as they are."""
        form = Form(operation.interval_ms, _fields(operation), operation.delta)
        refused: _Refusals = []
        resolved: dict[str, str | list[str]] = {}
        latest = self._gateway.latest
        lookup = Lookup(
            latest,
            await latest.catalog(),
            self._gateway.settings.underlyings,
            self._gateway.clock.now_ns(),
            self._gateway.sources.open,
        )
        wanted = await self._wanted(operation, lookup, refused, resolved)
        wanted = [one for one in wanted if one.name not in brought]
        since = _since(operation, resolved)
        hub, leaving = self._gateway.hub, self._in_other_forms(wanted, form)
        groups, missing = await hub.join(self._backlog, wanted, form, since=since, leaving=leaving)
        for channel in wanted:
            self._backlog.choose(channel.name, operation.slow)
            self._gateway.sources.show(channel.name)
        await self._settle(groups, lookup, refused)
        recovered = await hub.recover(self._backlog, missing)
        return Ack(
            op="subscribe",
            id=operation.id,
            channels=self.names(),
            refused=refused,
            resolved=resolved or UNSET,
            recovered={name: name in recovered for name in since} if operation.since else UNSET,
        )

    async def remove(self, names: Iterable[str]) -> None:
        """Leave channels; those not subscribed to are no error."""
        async with self._changing:
            left = set(names)
            for pattern in left & self._patterns.keys():
                left |= self._patterns.pop(pattern)[1]
            gone = [self._groups.pop(name) for name in left if name in self._groups]
            await self._gateway.hub.leave(self._backlog, gone)

    async def clear(self) -> None:
        """Leave every channel."""
        self._is_over = True
        self._gateway.patterns.dismiss(self)
        async with self._changing:
            self._groups.clear()
            await self._gateway.hub.evict(self._backlog)

    def resync(self, names: list[str] | None) -> _Refusals:
        """Owe snapshots of these channels, or of all; gives those that are not subscribed to."""
        refused: _Refusals = []
        for name in list(self._groups) if names is None else names:
            if name in self._groups:
                self._backlog.owe(name)
            else:
                refused.append(_refusal(name, "not_subscribed", "subscribe to it first"))
        return refused

    async def _wanted(
        self,
        operation: Subscribe,
        lookup: Lookup,
        refused: _Refusals,
        resolved: dict[str, str | list[str]],
    ) -> list[Channel]:
        """The channels that may be entered; the others are named in `refused`."""
        limit = self._gateway.limits.channels
        wanted: dict[str, Channel] = {}
        added = 0
        for name in dict.fromkeys(operation.channels):
            try:
                channels = await _resolve(parse_channel(name), lookup)
                new = [
                    one.name
                    for one in channels
                    if one.name not in self._groups and one.name not in wanted
                ]
                if new and len(self._groups) + added + len(new) > limit:
                    detail = f"{len(new)} more, and a session has at most {limit}"
                    raise Refused("too_many_channels", detail)
            except Refused as error:
                refused.append(_refusal(name, error.code, str(error)))
                continue
            added += len(new)
            wanted |= {one.name: one for one in channels}
            names = [one.name for one in channels]
            if names != [name] or is_pattern(name):
                is_one = len(names) == 1 and not is_pattern(name)
                resolved[name] = names[0] if is_one else names
        return list(wanted.values())

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
