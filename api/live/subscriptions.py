"""What one client is subscribed to: which channels it may have, and the groups it is in."""

from collections.abc import Iterable, Iterator
from typing import Any

from api.gateway import Gateway
from api.live.backlog import Backlog
from api.live.hub import Channel, Group
from api.live.messages import Packet
from api.live.operations import Refused, Subscribe, parse_channel, parse_fields
from pipeline.latest import Catalog
from pipeline.models import ChainId, parse_symbol

_Refusals = list[dict[str, str]]


class Subscriptions:
    """The channels of one session; every answer names the refused ones with the reason."""

    def __init__(self, gateway: Gateway, backlog: Backlog) -> None:
        self._gateway = gateway
        self._backlog = backlog
        self._groups: dict[str, Group] = {}

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

    async def add(self, operation: Subscribe) -> dict[str, Any]:
        """Enter channels; gives what the acknowledgement says beside the full set.

        Raises Refused for fields that do not exist, and BusUnavailable.
        """
        fields = _fields(operation)
        refused: _Refusals = []
        resolved: dict[str, str] = {}
        catalog = await self._gateway.latest.catalog()
        wanted = self._wanted(operation, catalog, refused, resolved)
        groups = await self._gateway.hub.join(self._backlog, wanted, operation.interval_ms, fields)
        await self._settle(groups, catalog, refused)
        answer: dict[str, Any] = {"refused": refused}
        if resolved:
            answer["resolved"] = resolved
        if operation.since:
            answer["recovered"] = dict.fromkeys(operation.since, False)
        return answer

    async def remove(self, names: Iterable[str]) -> None:
        """Leave channels; those not subscribed to are no error."""
        gone = [self._groups.pop(name) for name in set(names) if name in self._groups]
        await self._gateway.hub.leave(self._backlog, gone)

    async def clear(self) -> None:
        """Leave every channel."""
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

    def _wanted(
        self,
        operation: Subscribe,
        catalog: Catalog,
        refused: _Refusals,
        resolved: dict[str, str],
    ) -> list[Channel]:
        """The channels that may be entered; the others are named in `refused`."""
        limit = self._gateway.limits.channels
        wanted: dict[str, Channel] = {}
        added = 0
        for name in dict.fromkeys(operation.channels):
            try:
                channel = self._resolve(parse_channel(name), catalog)
                is_new = channel.name not in self._groups and channel.name not in wanted
                if is_new and len(self._groups) + added >= limit:
                    raise Refused("too_many_channels", f"a session has at most {limit}")
            except Refused as error:
                refused.append(_refusal(name, error.code, str(error)))
                continue
            added += is_new
            wanted[channel.name] = channel
            if channel.name != name:
                resolved[name] = channel.name
        return list(wanted.values())

    def _resolve(self, channel: Channel, catalog: Catalog) -> Channel:
        """The chain that `chain:NIFTY-nearest` means now; any other channel as it is."""
        underlying, separator, _ = channel.symbol.rpartition("-nearest")
        if channel.kind != "chain" or not separator:
            return channel
        symbol = catalog.nearest(underlying, self._gateway.clock.now_ns())
        if symbol is None:
            raise Refused("unknown_symbol", f"no chain of {underlying[:40]!r} is known")
        return Channel("chain", symbol)

    async def _settle(self, groups: list[Group], catalog: Catalog, refused: _Refusals) -> None:
        """Keep the groups entered, leave those they replace and those of unknown symbols."""
        left: list[Group] = []
        for group in groups:
            name = group.channel.name
            before = self._groups.pop(name, None)
            if before is not None and before is not group:
                left.append(before)
            if group.state is None and not self._is_known(group.channel, catalog):
                left.append(group)
                refused.append(_refusal(name, "unknown_symbol", "nothing is known of it"))
            else:
                self._groups[name] = group
        await self._gateway.hub.leave(self._backlog, left)
        for group in left:  # leaving a group forgets what its channel is owed
            if group.channel.name in self._groups:
                self._backlog.owe(group.channel.name)

    def _is_known(self, channel: Channel, catalog: Catalog) -> bool:
        """Whether a symbol that has no value yet will have one."""
        parts = parse_symbol(channel.symbol)
        if isinstance(parts, str):
            return parts in self._gateway.settings.underlyings or parts in catalog.underlyings()
        card = catalog.listed.get(parts.underlying)
        is_listed = card is not None and parts.expiry.isoformat() in card.expiries
        return isinstance(parts, ChainId) and is_listed


def _fields(operation: Subscribe) -> tuple[str, ...]:
    try:
        return parse_fields(operation.fields)
    except Refused as error:
        raise Refused(error.code, str(error), operation.id) from None


def _refusal(channel: str, code: str, detail: str) -> dict[str, str]:
    return {"channel": channel[:200], "code": code, "detail": detail}
