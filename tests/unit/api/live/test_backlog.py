"""The bounded queue of a client: order, bound, and what a slow one is told."""

import json
from typing import Any

from api.live.backlog import ANSWERS_BYTES, FRAME_BYTES, Backlog
from api.live.messages import Packet
from api.live.wire import Pong


def update(seq: int, *, channel: str = "chain:A", size: int = 100, n: int = 1) -> Packet:
    body = {"type": "update", "channel": channel, "prev": seq - 1, "seq": seq, "pad": "x" * size}
    return Packet(channel, json.dumps(body).encode(), prev=seq - 1, seq=seq, n=n)


def snapshot(channel: str) -> Packet:
    body = {"type": "snapshot", "channel": channel}
    return Packet(channel, json.dumps(body).encode(), prev=9, seq=9, n=1)


def taken(backlog: Backlog) -> list[dict[str, Any]]:
    return [json.loads(message) for message in backlog.take(snapshot)]


def kinds(backlog: Backlog) -> list[str]:
    return [message["type"] for message in taken(backlog)]


def test_answers_go_before_updates_and_snapshots() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.owe("chain:B")
    backlog.offer(update(1))
    backlog.tell(Pong(id=1, ts=""))
    assert kinds(backlog) == ["pong", "update", "snapshot"]
    assert not backlog.ready.is_set()


def test_update_of_a_channel_that_is_owed_a_snapshot_is_in_the_snapshot() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.owe("chain:A")
    backlog.offer(update(1))
    assert kinds(backlog) == ["snapshot"]


def test_owed_snapshot_waits_for_a_first_value() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.owe("chain:A")
    assert backlog.take(lambda channel: None) == []
    assert not backlog.ready.is_set()
    backlog.offer(update(1))
    assert kinds(backlog) == ["snapshot"]


def test_full_backlog_becomes_a_notice_and_a_snapshot() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    for seq in range(1, 31):
        backlog.offer(update(seq, n=2))
    notice, whole = taken(backlog)
    assert notice == {
        "type": "skipped",
        "channel": "chain:A",
        "from": 0,
        "to": 30,
        "n": 60,
        "reason": "slow",
    }
    assert whole["type"] == "snapshot"
    assert backlog.skipped == 60
    backlog.offer(update(31))
    assert kinds(backlog) == ["update"]


def test_one_message_larger_than_the_bound_still_goes_out() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.offer(update(1, size=5_000))
    assert kinds(backlog) == ["update"]


def test_memory_of_a_client_that_takes_nothing_is_bounded() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=10_000)
    for seq in range(10_000):
        backlog.offer(update(seq, channel=f"contract:{seq % 50}"))
    assert sum(batch.size for batch in backlog._batches) <= 10_000
    assert len(backlog._owed) <= 50


def test_long_queue_goes_out_in_several_frames_in_order() -> None:
    backlog = Backlog(is_msgpack=False)
    for seq in range(1, 9):
        backlog.offer(update(seq, size=FRAME_BYTES // 3))
    seen = []
    while backlog.ready.is_set():
        frame = taken(backlog)
        assert 1 <= len(frame) <= 3
        seen += [message["seq"] for message in frame]
    assert seen == list(range(1, 9))


def test_forgotten_channel_is_sent_no_more() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.offer(update(1))
    backlog.offer(update(2, channel="chain:B"))
    backlog.owe("chain:C")
    backlog.forget("chain:A")
    backlog.forget("chain:C")
    assert [message["channel"] for message in taken(backlog)] == ["chain:B"]


def test_who_would_rather_skip_keeps_what_waits() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.choose("chain:A", "skip")
    for seq in range(1, 31):
        backlog.offer(update(seq))
    *kept, notice, whole = taken(backlog)
    assert [message["seq"] for message in kept] == list(range(1, len(kept) + 1))
    assert (notice["from"], notice["to"]) == (len(kept), 30)
    assert notice["n"] == 30 - len(kept) > 0
    assert whole["type"] == "snapshot"


def test_who_would_rather_be_cut_is_cut_when_there_is_no_room() -> None:
    cuts: list[str] = []
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000, cut=lambda: cuts.append("cut"))
    backlog.choose("chain:A", "disconnect")
    backlog.offer(update(1, size=900))
    assert cuts == []
    backlog.offer(update(2, size=900))
    assert cuts == ["cut"]


def test_one_channel_that_is_conflated_takes_nothing_from_one_that_skips() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.choose("chain:B", "skip")
    backlog.offer(update(1, channel="chain:B"))
    backlog.offer(update(1, size=600))
    backlog.offer(update(2, size=600))
    assert [(one["type"], one["channel"]) for one in taken(backlog)] == [
        ("update", "chain:B"),
        ("skipped", "chain:A"),
        ("snapshot", "chain:A"),
    ]


def test_updates_of_a_held_channel_wait_behind_earlier_ones() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.hold("chain:A")
    backlog.offer(update(3))
    backlog.offer(update(1, channel="chain:B"))
    assert [message["channel"] for message in taken(backlog)] == ["chain:B"]
    assert backlog.release("chain:A", [update(1), update(2)])
    backlog.offer(update(4))
    assert [message["seq"] for message in taken(backlog)] == [1, 2, 3, 4]


def test_what_is_sent_again_does_not_count_against_the_bound() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.hold("chain:A")
    assert backlog.release("chain:A", [update(seq, size=300) for seq in range(1, 21)])
    backlog.offer(update(21))
    assert [message["seq"] for message in taken(backlog)] == list(range(1, 22))


def test_too_much_to_send_again_is_refused_whole() -> None:
    backlog = Backlog(is_msgpack=False, limit_bytes=1_000)
    backlog.hold("chain:A")
    assert not backlog.release("chain:A", [update(seq, size=1_000) for seq in range(1, 21)])
    assert taken(backlog) == []


def test_held_channel_that_is_owed_a_snapshot_is_not_released() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.hold("chain:A")
    backlog.owe("chain:A")
    assert not backlog.release("chain:A", [update(1)])
    assert kinds(backlog) == ["snapshot"]


def test_lost_updates_are_told_from_the_last_one_that_was_sent() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.offer(update(4))
    backlog.miss("chain:A", 4, 9)
    notice, whole = taken(backlog)
    assert (notice["from"], notice["to"], notice["n"], notice["reason"]) == (3, 9, None, "lost")
    assert whole["type"] == "snapshot"


def test_loss_is_no_news_to_who_knows_nothing_yet() -> None:
    backlog = Backlog(is_msgpack=False)
    backlog.owe("chain:A")
    backlog.miss("chain:A", 4, 9)
    assert kinds(backlog) == ["snapshot"]


def test_client_that_asks_and_does_not_read_is_cut_and_no_more_is_kept() -> None:
    cuts: list[str] = []
    backlog = Backlog(is_msgpack=False, cut=lambda: cuts.append("cut"))
    answer = Pong(id="x" * 100_000, ts="")
    for _ in range(ANSWERS_BYTES // 100_100):
        backlog.tell(answer)
    assert cuts == []
    for _ in range(3):
        backlog.tell(answer)
    assert cuts
    assert sum(map(len, backlog.take(snapshot))) <= ANSWERS_BYTES
    cuts.clear()
    backlog.tell(answer)
    assert cuts == []
    assert kinds(backlog) == ["pong"]
