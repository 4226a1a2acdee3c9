"""What members of a group are told, and the same updates made again for one who was away."""

import json
from typing import Any

from api.live.backlog import Backlog
from api.live.channels import Channel, Form
from api.live.groups import Group, replayed
from api.live.messages import Packet, State
from api.live.outbox import Outbox
from pipeline.frames import Position

CHANNEL = Channel("chain", "A")
FORM = Form(0)


def state(seq: int, *, epoch: str = "e1", **rows: int) -> State:
    encoded = {name: json.dumps({"symbol": name, "last": last}) for name, last in rows.items()}
    texts = {name: text.encode() for name, text in encoded.items()}
    return State(Position(epoch, seq, seq), seq * 1_000, None, texts)


STATES = [state(1, x=1, y=1), state(4, x=2, y=1), state(5, x=2), state(9, x=2, z=7)]


def told(packets: list[Packet]) -> list[dict[str, Any]]:
    return [json.loads(packet.json) for packet in packets]


def test_updates_made_again_are_those_that_members_got() -> None:
    group = Group(CHANNEL, FORM, Outbox())
    live = [group.advance(each, number) for number, each in enumerate(STATES)]
    assert live[0] is None
    again = replayed(Group(CHANNEL, FORM, Outbox()), STATES, 1, 9)
    assert again is not None
    assert [packet.json for packet in again] == [packet.json for packet in live if packet]
    assert [(each["prev"], each["seq"], each["n"]) for each in told(again)] == [
        (1, 4, 1),
        (4, 5, 1),
        (5, 9, 1),
    ]
    assert told(again)[1]["removed"] == ["y"]


def test_updates_are_made_again_whole_or_not_at_all() -> None:
    for states, first, last in (
        ([], 1, 9),
        (STATES[1:], 1, 9),
        (STATES[:-1], 1, 9),
        ([*STATES[:2], state(5, epoch="e2"), STATES[3]], 1, 9),
    ):
        assert replayed(Group(CHANNEL, FORM, Outbox()), states, first, last) is None


async def test_loss_is_told_to_each_member_with_the_newest_state() -> None:
    group = Group(CHANNEL, FORM, Outbox())
    member = Backlog(is_msgpack=False)
    group.flush(STATES[0], 1)
    group.enter(member)
    group.lose(STATES[3], 2)
    messages = [json.loads(one) for one in member.take(lambda name: group.snapshot())]
    assert [one["type"] for one in messages] == ["skipped", "snapshot"]
    assert (messages[0]["from"], messages[0]["to"]) == (1, 9)
    assert messages[1]["seq"] == 9


def test_groups_of_the_same_clients_wait_for_one_interval() -> None:
    outbox, one, other = Outbox(), Backlog(is_msgpack=False), Backlog(is_msgpack=False)
    form = Form(100)
    busy, quiet, shared = (Group(Channel("chain", name), form, outbox) for name in "ABC")
    slower = Group(Channel("chain", "A"), Form(1_000), outbox)
    for group in (busy, quiet, shared, slower):
        group.enter(one)
    shared.enter(other)
    busy.due = 7.5
    assert (quiet.due, shared.due, slower.due) == (7.5, 0.0, 0.0)
    quiet.enter(other)
    assert (busy.due, quiet.due) == (7.5, 0.0)
