"""Reports of polls as entries, and what they say of each minute.

Whoever polls says once a minute and chain how many polls were due and why some brought nothing;
nobody calculates anything of it, so a report is passed on as it is. Pure: it opens nothing and
looks at no clock.
"""

from collections import defaultdict

import msgspec

from pipeline.clock import SECOND_NS
from pipeline.entries import NewEntry
from pipeline.errors import DecodeError
from pipeline.models import RAW_POLLS_TYPE, ChainId, PollReport, parse_symbol

MINUTE_NS = 60 * SECOND_NS
REVISION = 1  # of the enriched entry: the same whatever revision calculates the chains
LONGEST_GAP_NS = 8 * 86_400 * SECOND_NS  # a week of an outage in one report, and some
ID_MARK = "polls"  # stands in a message id where that of a chain has the hash of its body

_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder(PollReport)


def encode_report(report: PollReport) -> bytes:
    """The report as msgpack."""
    return _pack.encode(report)


def decode_report(data: bytes) -> PollReport:
    """The report of an entry, raw or enriched. Raises DecodeError."""
    try:
        report = _unpack.decode(data)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a report of polls: {error}") from error
    if not isinstance(parse_symbol(report.chain), ChainId):
        raise DecodeError(f"polls are of a chain, and {report.chain!r} is none")
    if any(gap.ends - gap.starts > LONGEST_GAP_NS for gap in report.gaps):
        raise DecodeError("a gap is longer than whoever polls may speak of")
    return report


def raw_report(report: PollReport, made_ns: int) -> NewEntry:
    """A report as an entry to append; what was reported since the same instant has the same id."""
    return NewEntry(
        id=f"{report.provider}:{report.chain}:{report.since}:{ID_MARK}",
        type=RAW_POLLS_TYPE,
        key=report.chain,
        ts=made_ns,
        data=encode_report(report),
    )


class Due(msgspec.Struct):
    """The polls due in a minute, and how many of them brought no snapshot, by cause."""

    expected: int = 0
    upstream: int = 0
    us: int = 0


def due_by_minute(report: PollReport) -> dict[int, Due]:
    """The polls due in each minute, named by its start, ns UTC.

    Those that a gap missed are spread evenly over it, the first at its start.
    """
    due: defaultdict[int, Due] = defaultdict(Due)
    if report.answered:
        due[_minute(report.since)].expected += report.answered
    for gap in report.gaps:
        for minute in range(_minute(gap.starts), gap.ends, MINUTE_NS):
            until = minute + MINUTE_NS
            inside = missed_between(gap.starts, gap.ends, gap.missed, minute, until)
            if inside:
                due[minute].expected += inside
                due[minute].upstream += inside if gap.cause == "upstream" else 0
                due[minute].us += inside if gap.cause == "us" else 0
    return dict(due)


def missed_between(starts: int, ends: int, missed: int, since: int, until: int) -> int:
    """Of the polls that a gap [starts, ends) missed, those that were due in [since, until)."""
    length = ends - starts

    def before(instant: int) -> int:
        passed = min(max(instant - starts, 0), length)
        return -(-passed * missed // length)  # rounded up: the first was due at the start

    return before(until) - before(since)


def _minute(instant: int) -> int:
    return instant - instant % MINUTE_NS
