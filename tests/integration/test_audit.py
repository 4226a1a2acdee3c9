"""The audit on real servers: what went through is clean, and what did not is named."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from pipeline import audit, topics
from pipeline.audit import Report
from pipeline.clock import SECOND_NS, to_rfc3339
from pipeline.models import EnrichedChain, PollGap, PollReport
from pipeline.runtime import Context
from pipeline.streams import glances, letters
from pipeline.streams.letters import Filter
from pipeline.streams.tallies import prune
from stockify import cli
from stockify.auditing import Auditor, interval
from tests.support import bus, flows
from tests.support.postgres import open_database
from workers.storage.__main__ import store
from workers.storage.reports import Reported, add_reports

CLOCK = to_rfc3339(flows.START + 120_000_000_000)
KEEP_S = 3_600


@contextlib.asynccontextmanager
async def instance(redis_url: str, database_url: str, shards: int = 1) -> AsyncIterator[Context]:
    async with bus.context(
        redis_url,
        "storage",
        database_url=database_url,
        storage_max_age_ms=20,
        shards=shards,
        clock=CLOCK,
    ) as context:
        yield context


async def store_all(context: Context, chains: int) -> None:
    """Run the storage worker until that many chains are committed and acknowledged."""
    written = context.telemetry.counter("snapshots_written", "")
    wanted = written.value + chains
    async with bus.working(context, store):
        await bus.until(lambda: written.value >= wanted)
    context.stopping.clear()  # for who comes next


async def audited(context: Context, wait_s: float = 0.0) -> Report:
    settings = context.settings
    async with open_database(settings.database_url) as database:
        minutes = interval(context.clock.now_ns(), KEEP_S, None, None)
        return await Auditor(context.redis, database, context.topics).audit(minutes, wait_s)


def found(report: Report) -> Sequence[tuple[str, str, int]]:
    return [(line.verdict, line.where, line.off.n) for line in report.lines]


CHAINS = [flows.chain_at(number) for number in range(6)]


async def test_what_went_all_the_way_is_clean_also_when_it_was_trimmed(
    valkey: str, database_url: str
) -> None:
    async with instance(valkey, database_url) as context:
        assert found(await audited(context)) == []
        await flows.append_raw(context, CHAINS)
        assert found(await audited(context)) == [("in flight", "", 0)]
        await flows.process(context, CHAINS)
        assert found(await audited(context)) == [("in flight", "", 0)]
        await store_all(context, len(CHAINS))
        await context.redis.xtrim("stream:raw", maxlen=0)
        report = await audited(context)
        (line,) = report.lines
        assert line.verdict == "clean"
        assert (line.raw.n, line.enriched.n) == (6, 6)
        assert line.stored == line.enriched
        assert line.raw.h == line.enriched.h
        assert line.enriched.c == sum(chain.header.n for chain in CHAINS)


async def test_shards_are_told_apart(valkey: str, plain_database_url: str) -> None:
    both = [flows.chain_at(0, "NIFTY"), flows.chain_at(1, "SENSEX")]
    async with instance(valkey, plain_database_url, shards=4) as context:
        places = [flows.shard_of(context, chain) for chain in both]
        await flows.append_raw(context, both)
        for chain, shard in zip(both, places, strict=True):
            await flows.process(context, [chain], shard)
        await store_all(context, 2)
        report = await audited(context)
    assert {line.shard for line in report.lines} == set(places)
    assert {line.verdict for line in report.lines} == {"clean"}


async def test_row_that_postgres_lost_is_missing(valkey: str, plain_database_url: str) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS)
        await flows.process(context, CHAINS)
        await store_all(context, len(CHAINS))
        with psycopg.connect(plain_database_url) as connection:
            lost = flows.enriched(CHAINS[2]).id
            connection.execute("DELETE FROM ledger WHERE id = %s", (lost,))
        report = await audited(context, wait_s=0.1)
    assert found(report) == [("missing", "Postgres", -1)]


async def test_entry_that_was_acknowledged_and_not_enriched_is_missing(
    valkey: str, plain_database_url: str
) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS)
        reader = bus.consumer(context, "stream:raw", "processor")
        await reader.ack(await bus.take(reader, 1))
        await reader.close()
        report = await audited(context)
    assert found(report) == [("missing", "enriched", -1)]


async def test_entry_that_was_appended_twice_is_double(
    valkey: str, plain_database_url: str
) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, [*CHAINS, CHAINS[3]])
        await flows.process(context, [*CHAINS, CHAINS[3]])
        await store_all(context, len(CHAINS))
        report = await audited(context)
    assert found(report) == [("double", "enriched", 1)]


async def test_dead_letter_is_accounted_for(valkey: str, plain_database_url: str) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS)
        reader = bus.consumer(context, "stream:raw", "processor")
        (entry,) = await bus.take(reader, 1)
        await reader.dead_letter(entry, "undecodable", "no JSON")
        await reader.close()
        await flows.process(context, CHAINS[1:])
        await store_all(context, len(CHAINS) - 1)
        (line,) = (await audited(context)).lines
    assert (line.verdict, line.raw_dead) == ("clean", 1)


async def test_letters_that_went_back_are_no_doubles(valkey: str, plain_database_url: str) -> None:
    """One of the processor, which then enriches it, and one of a group that has no say in it."""
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS[:3])
        reader = bus.consumer(context, "stream:raw", "processor")
        entries = await bus.take(reader, 1)
        await reader.dead_letter(entries[0], "attempts", "delivered 6 times")
        await reader.close()
        other = bus.consumer(context, "stream:raw", "own")
        (entry, *_) = await bus.take(other, 3)
        await other.dead_letter(entry, "odd", "mine alone")
        await other.close()
        await flows.process(context, CHAINS[1:3])
        found_letters = letters.read_letters(context.redis, "stream:raw:dead", Filter())
        for letter in [letter async for letter in found_letters]:
            assert await letters.redrive(context.redis, letter)
        assert found(await audited(context)) == [("in flight", "", 0)]
        await flows.process(context, [CHAINS[0], CHAINS[0]])
        await store_all(context, 3)
        (line,) = (await audited(context)).lines
    assert (line.verdict, line.again, line.raw.n, line.enriched.n) == ("clean", 1, 3, 4)


async def test_entries_that_were_replayed_are_no_doubles(
    valkey: str, plain_database_url: str
) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS[:2])
        await flows.process(context, CHAINS[:2])
        await store_all(context, 2)
        pages = [page async for page in glances.glance(context.redis, "stream:raw")]
        for entry in pages[0]:
            assert await glances.copy(context.redis, entry, "stream:raw", counts=True)
        await flows.process(context, CHAINS[:2])
        known = context.telemetry.counter("entries_known", "")
        async with bus.working(context, store):
            await bus.until(lambda: known.value >= 2)
        (line,) = (await audited(context)).lines
    assert (line.verdict, line.again, line.raw.n, line.enriched.n) == ("clean", 2, 2, 4)


async def test_chain_that_was_made_again_by_another_revision_is_one(
    valkey: str, plain_database_url: str
) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS[:1])
        await flows.process(context, CHAINS[:1])
        await store_all(context, 1)
        with psycopg.connect(plain_database_url) as connection:
            connection.execute(
                "INSERT INTO ledger SELECT replace(id, ':r1', ':r2'), '9-9', ts, n FROM ledger"
            )
        assert found(await audited(context)) == [("clean", "", 0)]


async def test_what_redis_lost_after_it_was_stored_is_beyond(
    valkey: str, plain_database_url: str
) -> None:
    async with instance(valkey, plain_database_url) as context:
        await flows.append_raw(context, CHAINS)
        await flows.process(context, CHAINS)
        await store_all(context, len(CHAINS))
        await context.redis.flushall()
        later = [flows.chain_at(90)]
        await flows.append_raw(context, [CHAINS[0], *later])
        await flows.process(context, [CHAINS[0], *later])
        await store_all(context, 1)
        report = await audited(context)
    assert [line.verdict for line in report.lines] == ["beyond", "clean"]
    assert report.entries(audit.BEYOND) == 5
    assert report.faults == ()


async def test_pruned_minutes_are_forgotten(valkey: str) -> None:
    async with bus.context(valkey) as context:
        await flows.append_raw(context, [flows.chain_at(0), flows.chain_at(60)])
        minute = flows.START // 60_000_000_000
        assert await prune(context.redis, "stream:raw", minute + 1) == 2
        names = await context.redis.hkeys(topics.tally("stream:raw"))
        assert {name.split(b":")[0] for name in names} == {b"%d" % (minute + 1)}


@pytest.fixture
def environment(
    valkey: str,
    plain_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, str]:
    values = {
        "STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "REDIS_URL": valkey,
        "DATABASE_URL": plain_database_url,
        "CLOCK": CLOCK,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"STOCKIFY_{name}", value)
    return valkey, plain_database_url


async def test_command_exits_1_with_a_table_and_0_with_a_line(
    environment: tuple[str, str],
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.commands, ("audit", *arguments))
        return result.exit_code, result.output

    chains: list[EnrichedChain] = CHAINS[:3]
    async with instance(*environment) as context:
        await flows.append_raw(context, chains)
        await flows.process(context, chains)
        await store_all(context, 3)
        code, said = await asyncio.to_thread(run)
        assert (code, said.count("\n")) == (0, 1), said
        assert said.startswith(
            "clean: 3 entries received in 1 minute, 30 contracts, 3 chains in Postgres"
        )
        code, said = await asyncio.to_thread(run, "--to", "2026-01-01T00:00:00Z")
        assert (code, said.startswith("nothing to judge")) == (0, True)
        with psycopg.connect(environment[1]) as connection:
            connection.execute("DELETE FROM ledger WHERE id = %s", (flows.enriched(chains[0]).id,))
        code, said = await asyncio.to_thread(run, "--wait", "0")
        assert code == 1
        assert "missing 1 in Postgres" in said
        assert "NOT CLEAN, 1 missing, 0 double" in said
        code, said = await asyncio.to_thread(run, "--wait", "0", "--json")
        told = msgspec.json.decode(said)
        assert (code, told["clean"], told["missing"], told["double"]) == (1, False, 1, 0)
        assert told["lines"][0]["off"] == {"n": -1, "h": told["lines"][0]["off"]["h"], "c": -10}


async def test_command_tells_what_was_expected_and_why_some_of_it_is_missing(
    environment: tuple[str, str],
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.commands, ("audit", "--wait", "0", *arguments))
        return result.exit_code, result.output

    chains: list[EnrichedChain] = CHAINS[:3]
    symbol, since = chains[0].header.chain, flows.START
    gap = PollGap(since + 9 * SECOND_NS, since + 30 * SECOND_NS, 7, "upstream", "unreachable")
    report = PollReport(
        chain=symbol, provider="dhan", since=since, until=gap.ends, answered=3, gaps=(gap,)
    )
    async with instance(*environment) as context:
        await flows.append_raw(context, chains)
        await flows.process(context, chains)
        await store_all(context, 3)
        async with open_database(environment[1]) as database:
            assert await add_reports(database, [Reported("a:b:1:polls:r1", "1-0", since, report)])
        code, said = await asyncio.to_thread(run)
        assert code == 0
        assert f"{symbol}: upstream (unreachable), 7 missed" in said
        assert "3 snapshots present of 10 expected: 7 missed upstream in 1 gap\n" in said
        with psycopg.connect(environment[1]) as connection:
            connection.execute("UPDATE coverage SET expected = expected + 2")
        code, said = await asyncio.to_thread(run)
        assert (code, "2 UNACCOUNTED for" in said) == (1, True)
        with psycopg.connect(environment[1]) as connection:
            connection.execute("UPDATE coverage SET present = 4")
        code, said = await asyncio.to_thread(run)
        assert (code, f"{symbol}: coverage 4, stored 3" in said) == (1, True)
        code, said = await asyncio.to_thread(run, "--json")
        told = msgspec.json.decode(said)
        assert (code, told["expected"], told["present"], told["missed_upstream"]) == (1, 12, 4, 7)
        assert [one["stored"] for one in told["miscounted"]] == [3]
        assert [one["missed"] for one in told["gaps"]] == [7]
