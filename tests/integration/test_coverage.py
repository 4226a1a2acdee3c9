"""What reports of polls come to in Postgres, and what is read of them again."""

import itertools

import psycopg

from pipeline import coverage
from pipeline.clock import SECOND_NS, to_datetime, to_ns
from pipeline.coverage import Counts, Gap
from pipeline.models import Cause, PollGap, PollReport
from pipeline.polls import MINUTE_NS, raw_report
from tests.support.postgres import open_database
from workers.storage.reports import Reported, write_reports

START = 1_769_485_500 * SECOND_NS  # 27 January 2026, 09:15 IST, an expiry of NIFTY
CHAIN = "NIFTY-20260127"


def gap(
    starts_s: float, ends_s: float, missed: int, cause: Cause = "upstream", detail: str = "a"
) -> PollGap:
    return PollGap(
        START + int(starts_s * SECOND_NS), START + int(ends_s * SECOND_NS), missed, cause, detail
    )


def reported(
    minute: int, answered: int, *gaps: PollGap, chain: str = CHAIN, since_s: float = 0
) -> Reported:
    since = START + minute * MINUTE_NS + int(since_s * SECOND_NS)
    until = START + (minute + 1) * MINUTE_NS
    report = PollReport(
        chain=chain, provider="dhan", since=since, until=until, answered=answered, gaps=gaps
    )
    return Reported(f"{raw_report(report, until).id}:r1", f"{minute}-0", until, report)


async def write(url: str, *reports: Reported) -> int:
    async with (
        open_database(url) as database,
        database.session() as session,
        session.transaction(),
    ):
        return await write_reports(session, reports)


def expected(url: str) -> list[tuple[int, int, int, int]]:
    """Minute since START, expected, and missed upstream and by us, of every line."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT minute, expected, missed_upstream, missed_us FROM coverage ORDER BY minute"
        ).fetchall()
    return [((to_ns(minute) - START) // MINUTE_NS, *counts) for minute, *counts in rows]


def gaps(url: str) -> list[tuple[float, float, int, str, str]]:
    """Start and end in seconds since START, missed, cause, detail."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT starts, ends, missed, cause, detail FROM gaps ORDER BY symbol, starts"
        ).fetchall()
    return [
        ((to_ns(starts) - START) / SECOND_NS, (to_ns(ends) - START) / SECOND_NS, *said)
        for starts, ends, *said in rows
    ]


async def test_report_counts_once_however_often_it_comes(database_url: str) -> None:
    told = reported(0, 14, gap(20, 38.6, 6))
    assert await write(database_url, told, told) == 1
    assert await write(database_url, told, reported(1, 20)) == 1
    assert expected(database_url) == [(0, 20, 6, 0), (1, 20, 0, 0)]
    assert gaps(database_url) == [(20, 38.6, 6, "upstream", "a")]
    with psycopg.connect(database_url) as connection:
        lines = connection.execute("SELECT id, n, rejected FROM ledger ORDER BY id").fetchall()
    assert lines == [(told.id, 0, 0), (reported(1, 20).id, 0, 0)]


async def test_report_that_is_rolled_back_counts_when_it_comes_again(
    plain_database_url: str,
) -> None:
    told = reported(0, 14, gap(20, 38.6, 6))
    async with (
        open_database(plain_database_url) as database,
        database.session() as session,
        session.transaction(is_trial=True),
    ):
        assert await write_reports(session, [told]) == 1
    assert expected(plain_database_url) == []
    assert await write(plain_database_url, told) == 1
    assert gaps(plain_database_url) == [(20, 38.6, 6, "upstream", "a")]


def pieces(chain: str) -> list[Reported]:
    """An outage over three minutes, as it is reported."""
    return [
        reported(0, 10, gap(30, 60, 10), chain=chain),
        reported(1, 0, gap(60, 120, 19, detail="b"), chain=chain),
        reported(2, 15, gap(120, 133.3, 5), chain=chain),
    ]


async def test_failures_that_touch_are_one_gap_in_whatever_order_they_come(
    plain_database_url: str,
) -> None:
    for number, order in enumerate(itertools.permutations(range(3))):
        chain = f"NIFTY-2026020{number + 1}"
        for told in (pieces(chain)[place] for place in order):
            await write(plain_database_url, told)
    assert gaps(plain_database_url) == 6 * [(30, 133.3, 34, "upstream", "a")]
    lines = expected(plain_database_url)
    assert lines == 6 * [(0, 20, 10, 0)] + 6 * [(1, 19, 19, 0)] + 6 * [(2, 20, 5, 0)]


async def test_other_causes_chains_and_later_failures_are_gaps_of_their_own(
    plain_database_url: str,
) -> None:
    other = "NIFTY-20260203"
    await write(
        plain_database_url,
        reported(0, 10, gap(0, 9.3, 3), gap(9.3, 12.4, 1, "us", "token"), gap(20, 24, 1)),
        reported(0, 10, gap(0, 9.3, 3), chain=other),
    )
    assert gaps(plain_database_url) == [
        (0, 9.3, 3, "upstream", "a"),
        (9.3, 12.4, 1, "us", "token"),
        (20, 24, 1, "upstream", "a"),
        (0, 9.3, 3, "upstream", "a"),
    ]


async def test_end_of_a_gap_in_which_nothing_was_due_makes_it_longer(
    plain_database_url: str,
) -> None:
    await write(plain_database_url, reported(0, 10, gap(30, 60, 10)))
    await write(plain_database_url, reported(1, 19, gap(60, 60.9, 0)))
    await write(plain_database_url, reported(3, 19, gap(180, 180.9, 0)))
    assert gaps(plain_database_url) == [(30, 60.9, 10, "upstream", "a")]


async def test_outage_of_hours_is_one_gap_and_is_expected_by_the_minute(
    plain_database_url: str,
) -> None:
    await write(plain_database_url, reported(0, 0, gap(0, 7_200, 2_323, "us", "not_running")))
    lines = expected(plain_database_url)
    assert [line[0] for line in lines] == list(range(120))
    assert {line[1] for line in lines} <= {19, 20}
    assert sum(line[3] for line in lines) == 2_323
    assert gaps(plain_database_url) == [(0, 7_200, 2_323, "us", "not_running")]


# --- reading -------------------------------------------------------------------------------------


def at(seconds: float) -> int:
    return START + int(seconds * SECOND_NS)


async def count_present(url: str, chain: str, *counts: int) -> None:
    with psycopg.connect(url) as connection:
        for minute, count in enumerate(counts):
            connection.execute(
                "INSERT INTO coverage (minute, symbol, provider, present) VALUES (%s, %s, %s, %s)",
                (to_datetime(START + minute * MINUTE_NS), chain, "dhan", count),
            )


async def test_coverage_of_a_chain_says_what_is_missing_and_why(database_url: str) -> None:
    await count_present(database_url, CHAIN, 14, 20, 0)
    await write(
        database_url,
        reported(0, 14, gap(20, 38.6, 6)),
        reported(1, 20),
        reported(2, 0, gap(120, 180, 20, "us", "token")),
    )
    async with open_database(database_url) as database:
        found = await coverage.coverage(database, CHAIN, at(-60), at(150))
        assert found.counts == Counts(expected=60, present=34, upstream=6, us=20)
        assert found.gaps == (
            Gap(at(-60), at(0), "closed"),
            Gap(at(20), at(38.6), "upstream", CHAIN, "a", 6),
            Gap(at(120), at(150), "us", CHAIN, "token", 10),
        )
        contract = await coverage.coverage(database, f"{CHAIN}-25000-CE", at(0), at(60))
        assert contract.chains == {CHAIN: contract.counts} == {CHAIN: Counts(20, 14, 6, 0)}
        assert await coverage.minutes_of(database, CHAIN, at(61), at(119)) == [
            (at(60), Counts(20, 20, 0, 0))
        ]


async def test_coverage_of_an_underlying_has_all_of_its_chains_and_no_others(
    plain_database_url: str,
) -> None:
    others = ("NIFTY-20260203", "BANKNIFTY-20260127", "NIFTYNXT50-20260127")
    for chain in (CHAIN, *others):
        await write(plain_database_url, reported(0, 14, gap(20, 38.6, 6), chain=chain))
    async with open_database(plain_database_url) as database:
        found = await coverage.coverage(database, "NIFTY", at(0), at(60))
        nothing = await coverage.coverage(database, "FINNIFTY", at(0), at(60))
    assert set(found.chains) == {CHAIN, "NIFTY-20260203"}
    assert found.counts == Counts(expected=40, upstream=12)
    assert [gap.symbol for gap in found.gaps] == [CHAIN, "NIFTY-20260203"]
    assert (nothing.counts, nothing.chains, nothing.gaps) == (Counts(), {}, ())
