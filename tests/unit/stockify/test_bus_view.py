"""What people are shown of the bus and of its entries."""

import io
from typing import Any

import pytest
from rich.console import Console

from pipeline.streams.groups import Card
from pipeline.streams.overview import View, plain
from pipeline.streams.state import Bookmark, GroupState, Memory, StreamState
from pipeline.streams.trimming import Behind, Trimmed
from stockify import entry_lines
from stockify.bus_view import size, tables
from stockify.commands.bus_trim import lines


def group(**changes: Any) -> GroupState:
    fields: dict[str, Any] = {
        **{"name": "storage", "is_there": True, "card": Card(), "consumers": 1, "pending": 0},
        **{"oldest_pending": "", "oldest_pending_age_s": 0.0, "position": "5-0"},
        **{"delivered_seq": 5, "lag": 0, "lag_is_exact": True, "missed": 0, "owner": ""},
        **{"owner_for_s": 0.0, "cursor": "", "cursor_seq": 0, "bookmark": None},
    }
    return GroupState(**(fields | changes))


def stream(*groups: GroupState, **changes: Any) -> StreamState:
    fields: dict[str, Any] = {
        **{"name": "own", "is_there": True, "epoch": "e", "head_seq": 9, "length": 4},
        **{"bytes": 3_000, "oldest": "1-0", "oldest_age_s": 61.0, "newest": "9-0"},
    }
    return StreamState(groups=groups, **(fields | changes))


def shown(*streams: StreamState, keep_bytes: int = 10_000, limit: int = 0) -> str:
    view = View(streams, (Memory(2_000, limit),), keep_bytes, frozenset({"own"}))
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(tables(view))
    return captured.get()


def test_headroom_is_what_is_left_of_the_budget_or_missing() -> None:
    assert " ".join(shown(stream()).splitlines()[1].split()) == "own 4 9 3 kB 7 kB 1 m 1 s"
    assert "-2 kB" in shown(stream(), keep_bytes=1_000)
    assert shown(stream(name="other")).splitlines()[1].split()[5] == "-"


def test_lag_says_when_it_is_not_exact_or_not_known() -> None:
    assert " ~7 " in shown(stream(group(lag=7, lag_is_exact=False)))
    assert " ? " in shown(stream(group(lag=None, lag_is_exact=False)))


def test_group_that_is_lost_or_was_passed_says_so() -> None:
    assert "lost: it comes back at its cursor" in shown(stream(group(is_there=False)))
    mark = Bookmark(id="3-0", seq=3, at_ms=1, reason="passed", skipped=1_200)
    assert "passed at 3-0, 1,200 skipped" in shown(stream(group(bookmark=mark)))
    owned = group(owner="storage@here", owner_for_s=2.25, card=Card(kind="best_effort"))
    assert "best effort" in shown(stream(owned))
    assert "storage@here (2.2 s)" in shown(stream(owned))


def test_stream_that_was_lost_says_so() -> None:
    assert "lost" in shown(stream(is_there=False, length=0, oldest="", bytes=0)).splitlines()[1]


def test_memory_is_told_with_and_without_a_limit() -> None:
    assert "server: 2 kB used, no limit of its own" in shown(stream())
    assert "server: 2 kB used, 8 kB until it refuses to write" in shown(stream(), limit=10_000)


def test_program_reads_headroom_beside_each_stream() -> None:
    view = View((stream(group(lag=3)),), (Memory(2_000, 0),), 10_000, frozenset({"own"}))
    told: Any = plain(view)
    assert told["streams"][0]["headroom"] == 7_000
    assert told["streams"][0]["groups"][0]["lag"] == 3
    assert told["servers"] == [{"used": 2_000, "limit": 0, "headroom": None}]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (3_140, "3.14 kB"),
        (-2_000_000, "-2 MB"),
        (268_435_456, "268 MB"),
        (12_345_678_901, "12,346 MB"),
    ],
)
def test_bytes_are_said_with_three_digits(count: int, text: str) -> None:
    assert size(count) == text


def test_trim_names_who_holds_it_back_and_who_is_late() -> None:
    late = Behind("algo", False, "5-0", 90_000, 12)
    said = lines("own", 3_000, 60_000, Trimmed(7, "storage", "9-0", "9-0", (late,)), plan=True)
    assert said == [
        "own: would remove 7 entries, all before 9-0; 3 kB, keeps 1 m 0 s; held back by storage",
        "  algo (best effort) is past its promise: first unfinished 5-0, 1 m 30 s old, "
        "misses 12 entries",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param(
            {b"seq": b"4", b"symbol": b"NIFTY-20260127-25000-CE", b"last": b"12.5"},
            "1-0  #4  symbol=NIFTY-20260127-25000-CE last=12.5",
            id="plain fields",
        ),
        pytest.param(
            {b"seq": b"4", b"type": b"signal.v1", b"key": b"NIFTY", b"data": b"xyz"},
            "1-0  #4  signal.v1  NIFTY  -  3 B",
            id="a type of somebody else",
        ),
        pytest.param(
            {b"type": b"chain.enriched.v1", b"ts": b"0", b"data": b"\xc1"},
            "not decoded: not a chain frame",
            id="a frame that is none",
        ),
        pytest.param({b"\xff": b"\x00\x1b["}, "\\x00\\x1b[", id="nothing that is text"),
        pytest.param({}, "1-0  #0", id="nothing at all"),
    ],
)
def test_any_entry_has_a_line(fields: dict[bytes, bytes], said: str) -> None:
    text = entry_lines.line("1-0", fields)
    assert said in text
    assert text.isprintable()


def test_whole_entry_shows_what_cannot_be_decoded_too() -> None:
    fields = {b"type": b"chain.raw.v1", b"enc": b"zstd", b"meta": b"\xc1", b"data": b"\x00junk"}
    said = "\n".join(entry_lines.full("1-0", fields))
    assert "not msgpack" in said
    assert "not decoded: not zstd" in said
