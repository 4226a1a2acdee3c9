from pipeline.topics import Topics
from stockify.reshard import Waiting, described, names


def test_streams_are_named_in_the_order_in_which_they_are_worked_off() -> None:
    assert names(Topics()) == ["stream:raw", "stream:enriched", "stream:contracts"]
    assert names(Topics(2))[:3] == ["stream:raw:{0}", "stream:raw:{1}", "stream:enriched:{0}"]


def test_who_is_behind_is_told_by_how_much() -> None:
    waiting = [Waiting("stream:raw", "processor", 1_200, 3), Waiting("stream:raw", "mine", None, 0)]
    assert described(waiting) == (
        "processor of stream:raw: 1,200 unread, 3 in work; "
        "mine of stream:raw: some unread, 0 in work"
    )
