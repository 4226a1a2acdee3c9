"""What counts as missing, double, in flight or lost by Redis, on counts alone."""

import msgspec
import pytest

from pipeline import audit
from pipeline.audit import Covered, Report, Shard
from pipeline.streams.tallies import Count, Stage, Tally, parse_tally
from pipeline.streams.tally import identity

MINUTE = 29_000_000
LEGS = 10


def total(*ids: str, c: int = 0) -> Count:
    return Count(len(ids), sum(map(identity, ids)), c * len(ids))


def stage(
    *ids: str,
    c: int = 0,
    dead: dict[str, Count] | None = None,
    again: dict[str, Count] | None = None,
    unfinished: tuple[str, ...] = (),
    is_whole: bool = True,
    kind: str = "chain",
    minute: int = MINUTE,
) -> Stage:
    bucket = (minute, kind)
    tally = Tally(
        {bucket: total(*ids, c=c)} if ids else {},
        {bucket: dead} if dead else {},
        {bucket: again} if again else {},
    )
    return Stage(tally, {bucket: total(*unfinished)} if unfinished else {}, is_whole)


def judged(
    raw: Stage, enriched: Stage, *stored: str, after: tuple[Stage, Stage] | None = None
) -> Report:
    held = {(MINUTE, "chain"): total(*stored, c=LEGS)} if stored else {}
    shard = Shard(0, (raw, enriched), after or (raw, enriched), held)
    return audit.judge([shard], 0, MINUTE + 1_000, 0)


def verdict(report: Report) -> tuple[str, str, int]:
    (line,) = report.lines
    return line.verdict, line.where, line.off.n


def earlier(made: Stage) -> Stage:
    """The same, of a tally that began a minute before."""
    counted = {(MINUTE - 1, "chain"): Count(1, 1), **made.tally.counted}
    tally = Tally(counted, made.tally.dead, made.tally.again)
    return Stage(tally, made.unfinished, made.is_whole)


def test_what_went_all_the_way_is_clean() -> None:
    report = judged(stage("a", "b"), stage("a", "b", c=LEGS), "a", "b")
    assert verdict(report) == ("clean", "", 0)
    assert report.faults == ()


def test_lists_of_expiries_are_not_looked_for_in_postgres() -> None:
    made = stage("a", kind="expiries")
    assert verdict(judged(made, made)) == ("clean", "", 0)


@pytest.mark.parametrize(
    ("raw", "enriched", "stored", "found"),
    [
        pytest.param(
            stage("a", "b"), stage("a", c=LEGS), ("a",), ("missing", "enriched", -1), id="enriched"
        ),
        pytest.param(
            stage("a", "b"),
            stage("a", "b", c=LEGS),
            ("a",),
            ("missing", "Postgres", -1),
            id="stored",
        ),
        pytest.param(
            stage("a", "b"),
            stage("a", "x", c=LEGS),
            ("a", "x"),
            ("differs", "enriched", 0),
            id="another entry in its place",
        ),
        pytest.param(
            stage("a", "b"),
            stage("a", "b", c=LEGS),
            ("a", "x"),
            ("differs", "Postgres", 0),
            id="another row in its place",
        ),
        pytest.param(
            stage("a"), stage("a", c=LEGS + 1), ("a",), ("differs", "Postgres", 0), id="contracts"
        ),
        pytest.param(stage(), stage(), ("a",), None, id="nothing counted: nothing judged"),
    ],
)
def test_entry_that_is_missing_is_found_where_it_is(
    raw: Stage, enriched: Stage, stored: tuple[str, ...], found: tuple[str, str, int] | None
) -> None:
    report = judged(raw, enriched, *stored)
    assert [(line.verdict, line.where, line.off.n) for line in report.lines] == (
        [found] if found else []
    )


def test_entry_that_was_enriched_twice_is_double() -> None:
    raw, enriched = earlier(stage("a")), earlier(stage("a", "a", c=LEGS))
    line = judged(raw, enriched, "a").lines[-1]
    assert (line.verdict, line.where, line.off.n) == ("double", "enriched", 1)


def test_entries_lost_at_both_hops_are_added_up() -> None:
    report = judged(stage("a", "b", "c"), stage("a", "b", c=LEGS), "a")
    assert verdict(report) == ("missing", "enriched, Postgres", -2)


def test_first_minute_of_a_tally_may_have_been_counted_by_the_later_stages_alone() -> None:
    assert verdict(judged(stage("b"), stage("a", "b", c=LEGS), "a", "b")) == ("clean", "", 0)


def test_entry_appended_twice_is_double_and_not_missing_in_postgres() -> None:
    twice = stage("a", "b", "b")
    report = judged(twice, stage("a", "b", "b", c=LEGS), "a", "b")
    (line,) = report.lines
    assert (line.verdict, line.where) == ("missing", "Postgres")
    assert audit.is_double(line, {identity("a"), identity("b")})
    assert not audit.is_double(line, {identity("a")})
    told = audit.with_doubles(report, [line])
    assert verdict(told) == ("double", "enriched", 1)
    assert told.entries(audit.DOUBLE) == 1


def test_two_entries_appended_twice_are_double() -> None:
    report = judged(stage("a", "b", "a", "b"), stage("a", "b", "a", "b", c=LEGS), "a", "b")
    assert audit.is_double(report.lines[0], {identity("a"), identity("b")})


def test_dead_letters_are_taken_off_what_must_come_next() -> None:
    raw = stage("a", "b", "c", dead={"processor": total("b"), "somebody": total("a", "c")})
    enriched = stage("a", "c", c=LEGS, dead={"storage": total("c", c=LEGS), "other": total("a")})
    report = judged(raw, enriched, "a")
    assert verdict(report) == ("clean", "", 0)
    assert (report.lines[0].raw_dead, report.lines[0].enriched_dead) == (1, 1)


def test_contracts_are_not_compared_where_those_of_a_dead_letter_are_not_known() -> None:
    enriched = stage("a", "c", c=LEGS, dead={"storage": total("c")})
    assert verdict(judged(stage("a", "c"), enriched, "a")) == ("clean", "", 0)


def test_letter_of_another_group_that_went_back_is_no_double() -> None:
    raw = stage("a", again={"archiver": total("a"), "processor": total("a")})
    assert verdict(judged(raw, stage("a", "a", c=LEGS), "a")) == ("clean", "", 0)


def test_replayed_entries_are_no_doubles() -> None:
    raw = stage("a", "b", again={"": total("a", "b")})
    assert verdict(judged(raw, stage("a", "b", "a", "b", c=LEGS), "a", "b")) == ("clean", "", 0)


def test_unfinished_raw_entries_are_in_flight_to_the_entry() -> None:
    raw = stage("a", "b", "c", unfinished=("b", "c"))
    assert verdict(judged(raw, stage("a", c=LEGS), "a")) == ("in flight", "", 0)
    short = stage("a", "b", "c", unfinished=("b",))
    assert verdict(judged(short, stage("a", c=LEGS), "a")) == ("missing", "enriched", -1)
    other = stage("a", "b", "c", unfinished=("b", "x"))
    assert verdict(judged(other, stage("a", c=LEGS), "a")) == ("differs", "enriched", 0)


def test_entries_that_wait_once_more_because_their_results_were_lost_are_in_flight() -> None:
    raw = earlier(stage("a", "b", unfinished=("a", "b")))
    report = judged(raw, earlier(stage("a", "b", c=LEGS)), "a", "b")
    assert report.lines[-1].verdict == "in flight"


def test_minute_that_storage_has_not_finished_is_in_flight() -> None:
    enriched = stage("a", "b", c=LEGS, unfinished=("b",))
    assert verdict(judged(stage("a", "b"), enriched, "a")) == ("in flight", "", 0)
    assert verdict(judged(stage("a", "b"), enriched, "a", "b")) == ("in flight", "", 0)


def test_minute_that_went_on_while_postgres_was_read_is_in_flight() -> None:
    after = (stage("a", "b"), stage("a", "b", c=LEGS))
    report = judged(stage("a"), stage("a", c=LEGS), "a", "b", after=after)
    assert verdict(report) == ("in flight", "", 0)


def test_minute_in_which_the_processor_worked_meanwhile_is_in_flight() -> None:
    """Raw and enriched are read one after the other, so a difference may be of the reading."""
    raw = stage("a", "b")
    report = judged(raw, stage("a", c=LEGS), "a", after=(raw, stage("a", "b", c=LEGS)))
    assert verdict(report) == ("in flight", "", 0)
    waiting = stage("a", "b", unfinished=("b",))
    report = judged(waiting, stage("a", "b", c=LEGS), "a", "b", after=(raw, stage("a", "b")))
    assert verdict(report) == ("in flight", "", 0)


def test_long_backlog_puts_all_that_came_since_in_flight() -> None:
    behind = stage("a", "b", "c", unfinished=("b",), is_whole=False)
    assert verdict(judged(behind, stage("a", c=LEGS), "a")) == ("in flight", "", 0)
    later = stage("a", "b", unfinished=("z",), is_whole=False, minute=MINUTE + 1)
    mixed = Stage(
        Tally({**later.tally.counted, (MINUTE, "chain"): total("a", "b")}, {}, {}),
        later.unfinished,
        False,
    )
    report = judged(mixed, stage("a", c=LEGS), "a")
    assert [line.verdict for line in report.lines] == ["missing", "in flight"]


def test_what_postgres_has_beyond_redis_is_no_fault() -> None:
    report = judged(stage("a"), stage("a", c=LEGS), "a", "b")
    assert verdict(report) == ("beyond", "Postgres", 1)
    assert report.faults == ()
    assert report.entries(audit.BEYOND) == 1


def test_minutes_from_before_the_tally_began_are_not_judged() -> None:
    made = (stage("a"), stage("a", c=LEGS))
    held = {(MINUTE - 1, "chain"): Count(5, 5, 5), (MINUTE, "chain"): total("a", c=LEGS)}
    report = audit.judge([Shard(0, made, made, held)], 0, MINUTE + 9, 0)
    assert [line.minute for line in report.lines] == [MINUTE]
    assert audit.judge([Shard(0, made, made, held)], 0, MINUTE + 9, MINUTE + 1).lines == ()


def test_shards_are_judged_each_for_itself() -> None:
    whole = (stage("a"), stage("a", c=LEGS))
    torn = (stage("b"), stage())
    held = {(MINUTE, "chain"): total("a", c=LEGS)}
    report = audit.judge([Shard(0, whole, whole, held), Shard(1, torn, torn, {})], 0, MINUTE, 0)
    assert [(line.shard, line.verdict) for line in report.lines] == [(0, "clean"), (1, "missing")]


def test_minute_of_an_earlier_cut_is_judged_as_a_whole() -> None:
    """Before, shard 0 had both; by the cut of today Postgres's second entry is shard 1's."""
    old = (stage("a", "b"), stage("a", "b", c=LEGS))
    new = (stage(minute=MINUTE + 1), stage())
    first = Shard(0, old, old, {(MINUTE, "chain"): total("a", c=LEGS)})
    second = Shard(1, new, new, {(MINUTE, "chain"): total("b", c=LEGS)})
    apart = audit.judge([first, second], 0, MINUTE + 9, 0)
    assert [line.verdict for line in apart.faults] == ["missing"]
    whole = audit.judge([first, second], 0, MINUTE + 9, 0, [])
    assert [(line.shard, line.verdict) for line in whole.lines] == [(audit.ALL_SHARDS, "clean")]


def test_shards_that_are_no_more_count_too() -> None:
    gone = Shard(1, (stage("b"), stage("b", c=LEGS)), (stage("b"), stage("b", c=LEGS)), {})
    held = {(MINUTE, "chain"): total("a", "b", c=LEGS)}
    kept = Shard(0, (stage("a"), stage("a", c=LEGS)), (stage("a"), stage("a", c=LEGS)), held)
    (line,) = audit.judge([kept], 0, MINUTE, 0, [gone]).lines
    assert (line.verdict, line.raw.n) == ("clean", 2)
    lost = Shard(0, kept.before, kept.after, {(MINUTE, "chain"): total("a", c=LEGS)})
    (line,) = audit.judge([lost], 0, MINUTE, 0, [gone]).lines
    assert (line.shard, line.verdict) == (audit.ALL_SHARDS, "missing")


def test_tally_is_read_from_its_hash() -> None:
    tally = parse_tally(
        {
            **{b"5:chain:n": b"3", b"5:chain:h": b"99", b"5:chain:c": b"7"},
            **{b"5:chain:dead:a:n": b"1", b"5:chain:dead:n": b"4"},
            **{b"6:expiries:again::n": b"2", b"6:expiries:again::h": b"4"},
        }
    )
    assert tally.counted == {(5, "chain"): Count(3, 99, 7)}
    assert tally.dead == {(5, "chain"): {"a": Count(1), "": Count(4)}}
    assert tally.again == {(6, "expiries"): {"": Count(2, 4)}}


# --- coverage ------------------------------------------------------------------------------------


def covered(**counts: int) -> Covered:
    plain = {"expected": 20, "present": 20, "upstream": 0, "us": 0, "stored": 20}
    return Covered(minute=MINUTE, symbol="NIFTY-20260127", **(plain | counts))


def with_coverage(*lines: Covered, unfinished: tuple[str, ...] = ()) -> Report:
    found = stage(*"ab", c=LEGS, unfinished=unfinished)
    return msgspec.structs.replace(judged(found, found, "a", "b"), covered=lines)


def test_polls_that_brought_nothing_are_no_fault_where_it_is_known_why() -> None:
    report = with_coverage(covered(present=11, stored=11, upstream=6, us=3))
    assert (report.is_clean, report.unaccounted) == (True, 0)


@pytest.mark.parametrize("present", [19, 21], ids=["too few", "too many"])
def test_coverage_that_counts_other_snapshots_than_are_there_is_a_fault(present: int) -> None:
    report = with_coverage(covered(present=present, expected=present), covered())
    assert not report.is_clean
    assert [one.present for one in report.miscounted] == [present]


def test_snapshot_that_was_received_and_is_nowhere_is_a_fault() -> None:
    report = with_coverage(covered(present=17, stored=17, upstream=1), covered())
    assert (report.is_clean, report.unaccounted, report.miscounted) == (False, 2, ())


def test_snapshots_on_their_way_are_no_fault_yet() -> None:
    report = with_coverage(covered(present=18, stored=18), unfinished=("a",))
    assert (report.is_clean, report.unaccounted) == (True, 0)


def test_snapshots_beyond_those_expected_make_up_for_no_others() -> None:
    report = with_coverage(covered(present=25, stored=25), covered(present=19, stored=19))
    assert report.unaccounted == 1
