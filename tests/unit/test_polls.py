"""Reports of polls: what decodes, and which minutes the polls were due in."""

from collections import Counter

import msgspec
import pytest

from pipeline import polls
from pipeline.clock import SECOND_NS
from pipeline.errors import DecodeError
from pipeline.models import PollGap, PollReport
from pipeline.polls import MINUTE_NS, Due

START = 1_769_485_500 * SECOND_NS  # a whole minute


def report(*gaps: PollGap, answered: int = 0, since: int = START) -> PollReport:
    return PollReport(
        chain="NIFTY-20260127",
        provider="dhan",
        since=since,
        until=START + MINUTE_NS,
        answered=answered,
        gaps=gaps,
    )


def gap(starts_s: float, ends_s: float, missed: int) -> PollGap:
    return PollGap(
        START + int(starts_s * SECOND_NS), START + int(ends_s * SECOND_NS), missed, "us", "token"
    )


def test_due_are_those_answered_and_those_missed() -> None:
    assert report(gap(10, 20, 3), gap(40, 50, 2), answered=13).due == 18


def test_answered_polls_belong_to_the_minute_in_which_the_report_begins() -> None:
    told = report(gap(30, 90, 20), answered=9, since=START + 5 * SECOND_NS)
    assert polls.due_by_minute(told) == {
        START: Due(expected=9 + 10, us=10),
        START + MINUTE_NS: Due(expected=10, us=10),
    }


def test_missed_polls_are_told_apart_by_cause() -> None:
    theirs = msgspec.structs.replace(gap(30, 36, 2), cause="upstream")
    (due,) = polls.due_by_minute(report(gap(10, 20, 3), theirs, answered=13)).values()
    assert due == Due(expected=18, upstream=2, us=3)


def test_poll_due_on_the_minute_belongs_to_the_minute_that_begins() -> None:
    assert polls.due_by_minute(report(gap(60, 61, 1))) == {START + MINUTE_NS: Due(1, 0, 1)}


@pytest.mark.parametrize("missed", [1, 2, 7, 359, 7_258])
def test_missed_polls_are_spread_over_a_gap_and_none_gets_lost(missed: int) -> None:
    told = gap(12.5, 22_512.7, missed)
    slow = [
        (told.starts + number * (told.ends - told.starts) // missed) // MINUTE_NS * MINUTE_NS
        for number in range(missed)
    ]
    expected = {minute: Due(count, 0, count) for minute, count in Counter(slow).items()}
    assert polls.due_by_minute(report(told)) == expected


def test_same_beginning_gives_the_same_message_id() -> None:
    first, again = polls.raw_report(report(answered=2), 7), polls.raw_report(report(), 9)
    assert first.id == again.id == f"dhan:NIFTY-20260127:{START}:polls"


@pytest.mark.parametrize(
    "change",
    [
        {"chain": "NIFTY"},
        {"answered": -1},
        {"gaps": [{"starts": 5, "ends": 5, "missed": 1, "cause": "us", "detail": ""}]},
        {"gaps": [{"starts": 5, "ends": 6, "missed": 1, "cause": "them", "detail": ""}]},
        {"gaps": [{"starts": 5, "ends": 2**63 - 1, "missed": 1, "cause": "us", "detail": ""}]},
        {"until": 2**63},
    ],
    ids=["no chain", "below zero", "no length", "no such cause", "without end", "out of range"],
)
def test_what_no_report_may_say_does_not_decode(change: dict[str, object]) -> None:
    said = msgspec.to_builtins(report(gap(1, 2, 1), answered=1)) | change
    with pytest.raises(DecodeError):
        polls.decode_report(msgspec.msgpack.encode(said))
