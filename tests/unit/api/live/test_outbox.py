"""What waits in an outbox is put together once, and reaches those who were members, in order."""

import asyncio
import json

import msgspec

from api.live.backlog import FRAME_BYTES, Backlog
from api.live.batches import Batch, cut
from api.live.messages import Packet
from api.live.outbox import Outbox
from api.live.wire import Pong


def update(seq: int, *, channel: str = "contract:A", size: int = 10) -> Packet:
    body = {"type": "update", "channel": channel, "seq": seq, "pad": "x" * size}
    return Packet(channel, json.dumps(body).encode(), prev=seq - 1, seq=seq, n=1)


def taken(backlog: Backlog) -> list[int]:
    seqs = []
    while (batch := backlog.take_batch()) is not None:
        seqs += [packet.seq for packet in batch.packets]
    return seqs


async def test_members_of_the_same_groups_are_written_the_same_bytes() -> None:
    outbox, one, other = Outbox(), Backlog(is_msgpack=False), Backlog(is_msgpack=False)
    for seq in range(1, 4):
        outbox.put(outbox.audience({one, other}), update(seq, channel=f"contract:{seq}"))
    outbox.deliver()
    first, second = one.take_batch(), other.take_batch()
    assert first is not None
    assert second is not None
    assert first.frame(False) is second.frame(False)
    assert not one.ready.is_set()


async def test_equal_audiences_are_one_object_for_as_long_as_somebody_has_it() -> None:
    outbox, member = Outbox(), Backlog(is_msgpack=False)
    audience = outbox.audience([member])
    assert outbox.audience({member}) is audience
    del audience
    assert len(outbox._known) == 0


async def test_outbox_delivers_by_itself_in_the_next_turn_of_the_loop() -> None:
    outbox, member = Outbox(), Backlog(is_msgpack=False)
    outbox.put(outbox.audience([member]), update(1))
    assert taken(member) == []
    await asyncio.sleep(0)
    assert taken(member) == [1]


async def test_clients_with_different_groups_get_theirs_alone_and_in_order() -> None:
    outbox, both, one = Outbox(), Backlog(is_msgpack=False), Backlog(is_msgpack=False)
    for seq in range(1, 7):
        members = [both, one] if seq % 2 else [both]
        outbox.put(outbox.audience(members), update(seq, channel=f"contract:{seq % 2}"))
    outbox.deliver()
    assert taken(one) == [1, 3, 5]
    assert sorted(taken(both)) == [1, 2, 3, 4, 5, 6]


async def test_no_batch_is_larger_than_a_frame_may_be() -> None:
    packets = [update(seq, size=FRAME_BYTES // 3) for seq in range(1, 9)]
    batches = list(cut(packets, FRAME_BYTES))
    assert [packet for batch in batches for packet in batch.packets] == packets
    assert all(batch.size <= FRAME_BYTES for batch in batches)
    assert len(list(cut([update(1, size=2 * FRAME_BYTES)], FRAME_BYTES))) == 1


def test_batch_for_which_there_is_no_room_is_cut_to_its_updates() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.offer_batch(Batch((update(1), update(2))))
    backlog.offer_batch(Batch((update(1, channel="contract:B", size=2_000),)))
    assert backlog.take_batch() is None  # snapshots are owed now
    assert backlog.skipped == 3


def test_batch_waits_behind_what_must_go_before_it() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.tell(Pong(id=1, ts=""))
    backlog.offer_batch(Batch((update(1),)))
    assert backlog.take_batch() is None
    messages = backlog.take(lambda channel: None)
    assert [json.loads(message)["type"] for message in messages] == ["pong", "update"]


def test_forgotten_channel_leaves_its_batches() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.offer_batch(Batch((update(1), update(2, channel="contract:B"))))
    backlog.offer_batch(Batch((update(3),)))
    backlog.forget("contract:A")
    assert taken(backlog) == [2]


def test_frame_has_the_updates_of_its_batch_in_either_form() -> None:
    batch = Batch((update(1), update(2)))
    text, packed = batch.frame(False), batch.frame(True)
    assert (text[0], packed[0]) == (0x81, 0x82)
    assert [message["seq"] for message in json.loads(text[text.index(b"[") :])] == [1, 2]
    head = 2 if packed[1] < 126 else 4
    assert [message["seq"] for message in msgspec.msgpack.decode(packed[head:])] == [1, 2]


def test_batch_is_passed_on_where_nothing_waits_and_in_its_order_where_something_does() -> None:
    backlog, passed, is_free = Backlog(is_msgpack=False), [], True

    def pass_on(batch: Batch) -> bool:
        passed.extend(packet.seq for packet in batch.packets) if is_free else None
        return is_free

    backlog.pass_on = pass_on
    backlog.offer_batch(Batch((update(1),)))
    assert (passed, backlog.ready.is_set()) == ([1], False)
    is_free = False
    backlog.offer_batch(Batch((update(2),)))
    is_free = True
    backlog.offer_batch(Batch((update(3),)))
    assert taken(backlog) == [2, 3]
    backlog.tell(Pong(id=1, ts=""))
    backlog.offer_batch(Batch((update(4),)))
    assert len(backlog.take(lambda channel: None)) == 2
    backlog.owe("contract:B")
    backlog.offer_batch(Batch((update(5),)))
    assert passed == [1]
    assert len(backlog.take(lambda channel: update(9, channel=channel))) == 2
    backlog.offer_batch(Batch((update(6),)))
    assert passed == [1, 6]
