"""Feeds and groups: a channel in use, and the clients who get the very same messages of it.

What changed is found out once a group, and encoded once. Nothing here reads Redis or waits.
"""

from collections.abc import Mapping, Sequence

from api.live.backlog import Backlog
from api.live.channels import Channel, Form, Kind
from api.live.deltas import delta_of
from api.live.messages import Packet, State, select_fields, snapshot_packet, update_packet
from api.live.outbox import Audience, Outbox


class Group:
    """Clients who get the very same messages of a channel."""

    def __init__(self, channel: Channel, form: Form, outbox: Outbox) -> None:
        self.channel = channel
        self.name = channel.name
        self.form = form
        self._outbox = outbox
        self._audience: Audience | None = None  # the members, where that is known
        self.interval_s = form.interval_ms / 1_000
        self.members: set[Backlog] = set()
        self.state: State | None = None
        self._due = 0.0
        self._rows: dict[str, bytes] = {}
        self._seen = 0
        self._snapshot: Packet | None = None

    @property
    def due(self) -> float:
        """When it may be flushed again, where it has an interval.

        Its members get one frame in each, so it waits for the groups that have the same ones.
        """
        return max(self._due, self._their().due) if self.members else self._due

    @due.setter
    def due(self, due: float) -> None:
        self._due = self._their().due = due

    def _their(self) -> Audience:
        if self._audience is None:
            self._audience = self._outbox.audience(self.members, self.interval_s)
        return self._audience

    def enter(self, member: Backlog) -> None:
        """Take a client in; what was told before is not for it."""
        self._outbox.deliver()
        self.members.add(member)
        self._audience = None

    def leave(self, member: Backlog) -> None:
        """Let a client go, with all that it was told before."""
        self._outbox.deliver()
        self.members.discard(member)
        self._audience = None

    def flush(self, state: State, changes: int) -> None:
        """Bring every member to a state; `changes` counts the channel's updates so far."""
        packet = self.advance(state, changes)
        if packet is None:
            self._outbox.deliver()
            for member in self.members:
                member.owe(self.name)
            return
        if self.members:
            self._outbox.put(self._audience or self._their(), packet)

    def advance(self, state: State, changes: int) -> Packet | None:
        """Go on to a state; gives the update that leads there, None where a snapshot must."""
        before, previous_rows = self.state, self._rows
        self._rows = self._selected(state) if self.form.fields else state.rows
        self.state, self._snapshot = state, None
        merged, self._seen = changes - self._seen or 1, changes
        if before is None or before.position.epoch != state.position.epoch:
            return None
        changed: dict[str, bytes] = {}
        known = 0
        for name, row in self._rows.items():
            held = previous_rows.get(name)
            if held is not None:
                known += 1
            if held != row:
                changed[name] = row
        removed: list[str] = []
        if known != len(previous_rows):
            removed = [name for name in previous_rows if name not in self._rows]
        whole = _shortened(changed, previous_rows) if self.form.is_delta else None
        return update_packet(self.name, before, state, changed.values(), removed, merged, whole)

    def lose(self, state: State, changes: int) -> None:
        """Go on to a state over updates that were lost: every member is told, and gets it whole."""
        before = self.state
        self.advance(state, changes)
        self._outbox.deliver()
        for member in self.members:
            if before is None or before.position.epoch != state.position.epoch:
                member.owe(self.name)
            else:
                member.miss(self.name, before.position.seq, state.position.seq)

    def snapshot(self) -> Packet | None:
        """The state that the last update led to; None before the first."""
        if self._snapshot is None and self.state is not None:
            self._snapshot = snapshot_packet(self.name, self.state, self._rows)
        return self._snapshot

    def _selected(self, state: State) -> dict[str, bytes]:
        fields = self.form.fields
        before = self.state.rows if self.state is not None else {}
        return {
            name: self._rows[name] if before.get(name) == row else select_fields(row, fields)
            for name, row in state.rows.items()
        }


class Feed:
    """A channel in use: its newest state and the groups it goes to."""

    def __init__(self, channel: Channel, kind: Kind, outbox: Outbox) -> None:
        self.channel = channel
        self.kind = kind
        self.symbol = kind.symbol(channel.symbol)
        self.groups: dict[Form, Group] = {}
        self.state: State | None = None
        self.changes = 0
        self.held = 0  # how many are about to enter
        self._read = kind.reader(channel.symbol)
        self._text: bytes | None = None
        self._outbox = outbox

    @property
    def is_unused(self) -> bool:
        """Whether nobody is in it, nor about to enter."""
        return not self.groups and not self.held

    def read(self, text: bytes) -> State | None:
        """The state of a text, None where it tells nothing newer than the state that is held.

        Raises msgspec.MsgspecError.
        """
        if text == self._text:
            return None
        state = self._read(text)
        self._text = text
        return state if state is not None and self.is_newer(state) else None

    def is_newer(self, state: State) -> bool:
        """Whether a state is after the one that is held."""
        held = self.state
        if held is None or state.ts_ingest > held.ts_ingest:
            return True
        return state.ts_ingest == held.ts_ingest and state.position.seq > held.position.seq

    def group(self, form: Form) -> Group:
        """The group of a form, made where it is not there, with the state that is held."""
        group = self.groups.get(form)
        if group is None:
            group = self.groups[form] = Group(self.channel, form, self._outbox)
            if self.state is not None:
                group.flush(self.state, self.changes)
        return group


def replayed(own: Group, states: Sequence[State], first: int, last: int) -> list[Packet] | None:
    """The updates from the state `first` on to the state `last`, as members of a group get them.

    `own` is a group of that form that nobody is in. None where the states are not all of one epoch,
    or do not lead from the one seq to the other.
    """
    if not states or (states[0].position.seq, states[-1].position.seq) != (first, last):
        return None
    own.advance(states[0], 0)
    packets = [own.advance(state, number) for number, state in enumerate(states[1:], 1)]
    whole = [packet for packet in packets if packet is not None]
    return whole if len(whole) == len(packets) else None


def _shortened(changed: dict[str, bytes], before: Mapping[str, bytes]) -> list[str]:
    """Put deltas in the place of the rows that were there; the names of those that have none."""
    whole = []
    for name, row in changed.items():
        held = before.get(name)
        if held is None:
            continue  # it is new to every client
        delta = delta_of(held, row)
        if delta is None:
            whole.append(name)
        else:
            changed[name] = delta
    return whole
