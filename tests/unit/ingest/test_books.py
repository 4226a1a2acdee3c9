"""How many polls were due and why some brought nothing, on times alone."""

import itertools
from collections import Counter
from datetime import date, datetime

import msgspec
import pytest

from pipeline import errors, polls
from pipeline.clock import IST, SECOND_NS, to_ns
from pipeline.models import PollReport, chain_symbol
from workers.ingest.books import Books, Terms, Why, why

OPEN = to_ns(datetime(2026, 1, 20, 9, 15, tzinfo=IST))  # a Tuesday
CHAIN = chain_symbol("NIFTY", date(2026, 1, 27))
NEXT = chain_symbol("NIFTY", date(2026, 2, 3))
UNREACHABLE: Why = ("upstream", "unreachable")
TOKEN: Why = ("us", "token")


def terms(**changes: object) -> Terms:
    plain = Terms(
        provider="dhan",
        clock="real",
        spacing_ns=3 * SECOND_NS,
        turn_ns=14 * SECOND_NS,
        is_shared=False,
        is_always_open=False,
    )
    return msgspec.structs.replace(plain, **changes)


def at(seconds: float) -> int:
    return OPEN + int(seconds * SECOND_NS)


def following(*chains: str, seconds: float = 0, **changes: object) -> Books:
    books = Books(terms(**changes))
    for chain in chains or (CHAIN,):
        books.follow(chain, "NSE", at(seconds))
    return books


def answer(books: Books, first_s: int, last_s: int, chain: str = CHAIN) -> None:
    """An answer every three seconds, both ends included."""
    for second in range(first_s, last_s + 1, 3):
        books.answered(chain, at(second))


def told(books: Books) -> list[PollReport]:
    found = [told.report for told in books.told]
    books.told.clear()
    return found


def gaps(reports: list[PollReport]) -> list[tuple[float, float, int, str, str]]:
    return [
        (
            (gap.starts - OPEN) / SECOND_NS,
            (gap.ends - OPEN) / SECOND_NS,
            gap.missed,
            gap.cause,
            gap.detail,
        )
        for report in reports
        for gap in report.gaps
    ]


def sums(reports: list[PollReport]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for report in reports:
        counted["answered"] += report.answered
        counted["due"] += report.due
        counted.update({gap.cause: gap.missed for gap in report.gaps})
    return counted


def test_minute_in_which_all_was_answered_has_as_many_due() -> None:
    books = following()
    answer(books, 0, 57)
    assert books.told == []
    books.close(at(60))
    (report,) = told(books)
    assert (report.answered, report.due, report.gaps) == (20, 20, ())
    assert (report.since, report.until) == (at(0), at(60))
    assert (report.chain, report.provider) == (CHAIN, "dhan")


def test_minute_is_closed_by_whatever_comes_first_after_it() -> None:
    books = following()
    answer(books, 0, 60)
    (report,) = told(books)
    assert (report.answered, report.until) == (20, at(60))
    books.finish(at(61))
    (report,) = told(books)
    assert (report.since, report.until, report.answered) == (at(60), at(61), 1)


def test_answer_that_was_put_away_after_its_minute_closed_still_belongs_to_it() -> None:
    books = following()
    answer(books, 0, 57)
    books.close(at(60))
    books.answered(CHAIN, at(59.9))
    books.finish(at(62))
    reports = told(books)
    assert sum(sum(d.expected for d in polls.due_by_minute(r).values()) for r in reports) == 21
    assert {m for r in reports for m in polls.due_by_minute(r)} == {at(0)}


def test_failure_that_is_made_good_within_its_cadence_misses_nothing() -> None:
    books = following()
    answer(books, 0, 9)
    books.failed({CHAIN}, at(12), UNREACHABLE)
    books.answered(CHAIN, at(13.2))
    books.finish(at(20))
    assert gaps(told(books)) == []


def test_failures_are_one_gap_from_the_first_poll_due_to_the_next_answer() -> None:
    books = following()
    answer(books, 0, 9)
    for second in (12.1, 15.1, 19, 27):
        books.failed({CHAIN}, at(second), UNREACHABLE)
    books.answered(CHAIN, at(33))
    books.close(at(60))
    reports = told(books)
    assert gaps(reports) == [(12, 33, 7, "upstream", "unreachable")]
    assert sums(reports)["due"] == 5 + 7


def test_outage_over_minutes_is_told_in_parts_that_touch_and_add_up() -> None:
    books = following()
    answer(books, 0, 57)
    books.failed({CHAIN}, at(60.2), UNREACHABLE)
    for minute in (120, 180, 240):
        books.close(at(minute))
    books.answered(CHAIN, at(250))
    books.finish(at(251))
    found = gaps(told(books))
    assert (found[0][0], found[-1][1]) == (60, 250)
    assert all(one[1] == after[0] for one, after in itertools.pairwise(found))
    assert sum(one[2] for one in found) == round(190 / 3)


def test_trouble_that_begins_at_the_end_of_a_minute_waits_for_its_first_missed_poll() -> None:
    books = following()
    answer(books, 2, 56)
    books.failed({CHAIN}, at(59.1), UNREACHABLE)
    books.close(at(60))
    assert gaps(told(books)) == []
    books.close(at(120))
    assert gaps(told(books)) == [(59, 120, 20, "upstream", "unreachable")]
    books.answered(CHAIN, at(120.3))
    books.finish(at(121))
    assert gaps(told(books)) == [(120, 120.3, 0, "upstream", "unreachable")]


def test_cause_that_changes_makes_another_gap_and_no_poll_more() -> None:
    books = following()
    answer(books, 0, 0)
    books.failed({CHAIN}, at(3), UNREACHABLE)
    books.failed({CHAIN}, at(13), TOKEN)
    books.answered(CHAIN, at(33))
    books.close(at(60))
    found = gaps(told(books))
    assert found == [(3, 13, 3, "upstream", "unreachable"), (13, 33, 7, "us", "token")]


def test_slow_answers_stretch_the_cadence_and_miss_nothing() -> None:
    books = following()
    for second in (0, 9, 20, 30, 41):
        books.answered(CHAIN, at(second))
    books.close(at(60))
    reports = told(books)
    assert gaps(reports) == []
    assert sums(reports)["due"] == 5


def test_chains_that_share_a_budget_are_due_in_turn() -> None:
    books = following(CHAIN, NEXT, is_shared=True)
    for second in range(0, 30, 6):
        books.answered(CHAIN, at(second))
        books.answered(NEXT, at(second + 3))
    books.failed({CHAIN, NEXT}, at(33), UNREACHABLE)
    books.answered(CHAIN, at(54))
    books.answered(NEXT, at(57))
    books.finish(at(60))
    found = {report.chain: gaps([report]) for report in told(books)}
    assert found == {
        CHAIN: [(30, 54, 4, "upstream", "unreachable")],
        NEXT: [(33, 57, 4, "upstream", "unreachable")],
    }


def test_slot_that_the_budget_promises_later_is_when_a_poll_is_due() -> None:
    books = following()
    books.answered(CHAIN, at(0))
    books.promised(CHAIN, at(100))
    books.answered(CHAIN, at(101))
    books.close(at(120))
    assert gaps(told(books)) == []


def test_time_in_which_nobody_asked_is_missed_by_us() -> None:
    books = following()
    answer(books, 0, 9)
    books.answered(CHAIN, at(312))
    books.finish(at(313))
    reports = told(books)
    assert sum(gap[2] for gap in gaps(reports)) == 100
    assert {gap[3:] for gap in gaps(reports)} == {("us", "stalled")}
    assert (gaps(reports)[0][0], gaps(reports)[-1][1]) == (12, 312)


def test_nothing_is_missed_while_the_exchange_is_closed() -> None:
    close_s = 375 * 60
    books = following(seconds=close_s - 60)
    answer(books, close_s - 60, close_s - 12)
    books.failed({CHAIN}, at(close_s - 9), UNREACHABLE)
    for minute in range(close_s, close_s + 7_200, 60):
        books.close(at(minute))
    next_open_s = 24 * 3_600
    books.answered(CHAIN, at(next_open_s + 6))
    books.finish(at(next_open_s + 7))
    assert [gap[:3] for gap in gaps(told(books))] == [
        (close_s - 9, close_s, 3),
        (next_open_s, next_open_s + 6, 2),
    ]


def test_answer_while_closed_counts_to_both() -> None:
    books = following(seconds=-3_600)
    books.answered(CHAIN, at(-3_600))
    books.answered(CHAIN, at(-3_300))
    books.answered(CHAIN, at(0.2))
    books.finish(at(1))
    assert sums(told(books)) == {"answered": 3, "due": 3}


def test_nothing_is_missed_after_the_expiry() -> None:
    settled = to_ns(datetime(2026, 1, 27, 15, 30, tzinfo=IST))
    books = Books(terms(is_always_open=True))
    books.follow(CHAIN, "NSE", settled - 30 * SECOND_NS)
    books.failed({CHAIN}, settled - 30 * SECOND_NS, UNREACHABLE)
    books.leave("NIFTY", {NEXT}, settled + 60 * SECOND_NS)
    (gap,) = [gap for report in told(books) for gap in report.gaps]
    assert (gap.ends, gap.missed) == (settled, 10)


# --- what a later run takes up -------------------------------------------------------------------


def test_crash_is_missed_by_us_from_the_poll_that_was_due_to_the_next_answer() -> None:
    books = following()
    answer(books, 0, 30)
    later = Books.taken_up(terms(), books.kept(at(30)), at(90))
    later.close(at(90))
    later.follow(CHAIN, "NSE", at(91))
    later.answered(CHAIN, at(93))
    later.close(at(120))
    reports = told(later)
    assert sums(reports) == {"answered": 12, "due": 32, "us": 20}
    assert (gaps(reports)[0][0], gaps(reports)[-1][1]) == (33, 93)
    assert {gap[4] for gap in gaps(reports)} == {"not_running"}


def test_orderly_stop_is_reported_at_once_and_the_rest_by_the_next_run() -> None:
    books = following()
    answer(books, 0, 30)
    books.finish(at(31))
    (report,) = told(books)
    assert (report.answered, report.until) == (11, at(31))
    later = Books.taken_up(terms(), books.kept(at(31)), at(40))
    later.follow(CHAIN, "NSE", at(40))
    later.answered(CHAIN, at(42))
    later.close(at(60))
    assert gaps(told(later)) == [(33, 42, 3, "us", "not_running")]


def test_restart_within_a_cadence_misses_nothing() -> None:
    books = following()
    answer(books, 0, 30)
    books.finish(at(30.5))
    later = Books.taken_up(terms(), books.kept(at(30.5)), at(31.5))
    later.follow(CHAIN, "NSE", at(31.6))
    later.answered(CHAIN, at(33.4))
    later.finish(at(40))
    assert gaps(told(later)) == []


def test_night_and_weekend_of_a_machine_that_was_off_are_no_gap() -> None:
    close_s = 375 * 60
    books = following(seconds=close_s - 60)
    answer(books, close_s - 60, close_s - 3)
    week_s = 7 * 86_400 - 60
    later = Books.taken_up(terms(), books.kept(at(close_s - 2)), at(week_s))
    later.follow(CHAIN, "NSE", at(week_s))
    later.answered(CHAIN, at(week_s + 61.5))
    later.finish(at(week_s + 62))
    found = gaps(told(later))
    days = sorted({int(gap[0] // 86_400) for gap in found})
    assert days == [1, 2, 3, 7]  # Wednesday to Friday; Monday was Republic Day
    assert sum(gap[2] for gap in found) == 3 * 7_500 + 1


def test_provider_that_was_away_at_a_crash_is_blamed_up_to_it() -> None:
    books = following()
    answer(books, 0, 9)
    books.failed({CHAIN}, at(12), UNREACHABLE)
    later = Books.taken_up(terms(), books.kept(at(42)), at(72))
    later.failed({"NIFTY"}, at(72), UNREACHABLE)  # the list of expiries could not be asked for
    later.follow(CHAIN, "NSE", at(102))
    later.answered(CHAIN, at(102))
    later.finish(at(103))
    reports = told(later)
    assert sums(reports) == {"answered": 5, "due": 35, "upstream": 20, "us": 10}


def test_what_was_told_and_not_appended_is_kept_too() -> None:
    books = following()
    answer(books, 0, 60)
    later = Books.taken_up(terms(), books.kept(at(60)), at(61))
    assert [told.report.answered for told in later.told] == [20]


@pytest.mark.parametrize(
    ("changes", "now_s"),
    [({"clock": "x60"}, 90), ({"provider": "simulator"}, 90), ({}, 20)],
    ids=["another clock", "another provider", "a clock put back"],
)
def test_books_of_another_time_or_provider_are_not_taken_up(
    changes: dict[str, str], now_s: int
) -> None:
    books = following()
    answer(books, 0, 30)
    later = Books.taken_up(terms(**changes), books.kept(at(30)), at(now_s))
    later.finish(at(now_s))
    assert later.told == []


def test_bytes_that_are_no_books_are_not_taken_up() -> None:
    assert Books.taken_up(terms(), b"", at(0)).told == []
    assert Books.taken_up(terms(), b"torn", at(0)).told == []


def test_outage_is_told_a_week_back() -> None:
    far = chain_symbol("NIFTY", date(2026, 6, 30))
    books = following(far, is_always_open=True)
    answer(books, 0, 30, far)
    later = Books.taken_up(terms(is_always_open=True), books.kept(at(30)), at(30 * 86_400))
    later.finish(at(30 * 86_400))
    assert gaps(told(later)) == [(23 * 86_400, 30 * 86_400, 201_600, "us", "not_running")]


ERRORS = {
    errors.ProviderUnreachable("x"): ("upstream", "unreachable"),
    errors.ProviderUnavailable("x"): ("upstream", "unavailable"),
    errors.RateLimited("x"): ("upstream", "rate_limited"),
    errors.DecodeError("x"): ("upstream", "undecodable"),
    errors.AuthenticationFailed("x"): ("us", "token"),
    errors.AccessDenied("x"): ("us", "no_data_plan"),
    errors.RequestRejected("x"): ("us", "rejected"),
}


@pytest.mark.parametrize(("error", "said"), ERRORS.items(), ids=lambda one: type(one).__name__)
def test_every_error_has_somebody_to_blame(error: errors.StockifyError, said: Why) -> None:
    assert why(error) == said
