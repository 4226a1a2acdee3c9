"""`stockify bus` and `stockify dead` against a real server."""

import asyncio
import time

import msgspec
import pytest
from click.testing import CliRunner, Result

from pipeline import bodies, dhan, layout, topics
from pipeline.clock import to_rfc3339
from pipeline.layout import Layout, Record
from pipeline.models import RAW_CHAIN_TYPE
from pipeline.streams import Consumer
from stockify import cli
from tests.support import bus, chains, flows

CHAINS = [flows.chain_at(number) for number in range(4)]


@pytest.fixture
def url(valkey: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "STATE_DIR": str(tmp_path),
        "REDIS_URL": valkey,
        "CLOCK": to_rfc3339(flows.START),
    }.items():
        monkeypatch.setenv(f"STOCKIFY_{name}", value)
    return valkey


async def run(*arguments: str, code: int = 0) -> str:
    def invoke() -> Result:
        return CliRunner().invoke(cli.commands, arguments)

    result = await asyncio.to_thread(invoke)
    assert result.exit_code == code, f"{result.output} {result.exception!r}"
    return result.output


async def refused(*arguments: str) -> str:
    def invoke() -> Result:
        return CliRunner().invoke(cli.commands, arguments)

    result = await asyncio.to_thread(invoke)
    assert result.exit_code == 1
    return str(result.exception)


async def fill(context: bus.Context) -> None:
    """Four raw chains, enriched; one more set aside by a group of its own."""
    await flows.append_raw(context, CHAINS)
    await flows.process(context, CHAINS)


async def test_bus_shows_streams_and_groups(url: str) -> None:
    async with bus.context(url) as context:
        await fill(context)
        await context.redis.xgroup_create("stream:enriched", "mine", "0")
        said = await run("bus")
        told = msgspec.json.decode(await run("bus", "--json"))
    lines = said.splitlines()
    (raw,) = (line for line in lines if line.startswith("stream:raw") and "MB" in line)
    assert raw.split()[1:3] == ["4", "4"]
    (mine,) = (line for line in lines if "mine" in line)
    assert mine.split()[2] == "4"  # lag
    assert any(line.startswith("server: ") for line in lines)
    streams = {stream["name"]: stream for stream in told["streams"]}
    assert streams["stream:raw"]["headroom"] < told["keep_bytes"]
    assert streams["stream:raw"]["groups"][0]["lag"] == 0
    assert streams["stream:enriched"]["groups"][0]["name"] == "mine"


async def test_bus_shows_every_shard_and_streams_of_users(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKIFY_SHARDS", "4")
    async with bus.context(url, shards=4) as context:
        await flows.append_raw(context, [CHAINS[0], flows.chain_at(1, "SENSEX")])
        await context.redis.xadd("stream:signals", {"side": "buy", "n": 3})
        said = await run("bus", "--once")
        assert {"stream:raw:{0}", "stream:raw:{2}", "stream:signals"} <= set(said.split())
        peeked = await run("bus", "peek", "raw")
        assert [line.split()[3].split("-")[0] for line in peeked.splitlines()] == [
            "NIFTY",
            "SENSEX",
        ]
        assert "side=buy n=3" in await run("bus", "peek", "signals")
        assert "no stream 'nosuch'; there are: stream:raw:{0}" in await refused(
            "bus", "peek", "nosuch"
        )


async def test_peek_tells_raw_and_enriched_entries(url: str) -> None:
    body = chains.encoded(chains.body(5))
    asked = dhan.request_context(dhan.UNDERLYINGS["NIFTY"], chains.EXPIRY, provider="dhan")
    async with bus.context(url) as context:
        await fill(context)
        entry = bodies.raw_entry(RAW_CHAIN_TYPE, asked, body, flows.START + 10**10)
        await bus.append(context, "stream:raw", entry)
        raw = (await run("bus", "peek", "raw", "-n", "1")).strip()
        assert raw.count("\n") == 0
        assert "chain.raw.v1  NIFTY-20260127" in raw
        assert "dhan /optionchain 200" in raw
        full = await run("bus", "peek", "raw", "-n", "1", "--full")
        assert "underlying: NIFTY" in full
        assert '"last_price"' in full
        enriched = (await run("bus", "peek")).splitlines()
        assert len(enriched) == 4
        assert "10 contracts, spot 25000, forward" in enriched[0]
        shown = await run("bus", "peek", "enriched", "-n", "1", "--full")
        assert "underlying: NIFTY" in shown
        assert "… 4 more legs" in shown
        at = to_rfc3339(CHAINS[2].header.ts_ingest)
        assert await run("bus", "peek", "--from", at) == "\n".join([*enriched[2:], ""])
        first = enriched[1].split()[0]
        assert await run("bus", "peek", "--from", first, "-n", "1") == f"{enriched[1]}\n"


async def test_replay_goes_to_a_stream_of_its_own_at_its_pace(url: str) -> None:
    start, end = (to_rfc3339(CHAINS[number].header.ts_ingest) for number in (1, 3))
    async with bus.context(url) as context:
        await fill(context)
        began = time.monotonic()
        said = await run("bus", "replay", "--from", start, "--to", end, "--speed", "4")
        assert time.monotonic() - began > 0.24  # a second of the market
        assert "stream:raw: 2 entries into stream:replay:raw" in said
        found = await context.redis.xrange("stream:replay:raw")
        assert [fields[b"id"].decode() for _id, fields in found] == [
            flows.raw(chain).id for chain in CHAINS[1:3]
        ]
        assert [fields[b"seq"] for _id, fields in found] == [b"1", b"2"]
        assert 86_000 < await context.redis.ttl("stream:replay:raw") <= 86_400
        assert await context.redis.xlen("stream:raw") == 4
        into = ("--speed", "0", "--stream", "enriched", "--to-stream", "again")
        await run("bus", "replay", "--from", start, "--to", end, *into)
        again = await context.redis.xrange("stream:again")
        assert [fields[b"data"] for _id, fields in again] == [
            flows.enriched(chain).data for chain in CHAINS[1:3]
        ]
        assert await context.redis.ttl("stream:again") == -1
        taken = ("--to-stream", "stream:enriched")
        assert "is live" in await refused("bus", "replay", "--from", start, "--to", end, *taken)
        nothing = ("--from", "2025-01-01", "--to", "2025-01-02")
        assert "nothing is kept" in await run("bus", "replay", *nothing)


async def test_replay_into_the_live_stream_is_counted_apart(url: str) -> None:
    async with bus.context(url) as context:
        await fill(context)
        first = (await context.redis.xrange("stream:raw"))[0][0].decode()
        interval = ("--from", first, "--to", "23:59", "--speed", "0")
        said = await run("bus", "replay", *interval, "--into", "raw")
        assert "stream:raw: 4 entries into stream:raw" in said
        assert await context.redis.xlen("stream:raw") == 8
        held = await context.redis.hgetall(topics.tally("stream:raw"))
        counts = {
            name.split(b":", 1)[1]: value for name, value in held.items() if name.endswith(b"n")
        }
        assert counts == {b"chain:n": b"4", b"chain:again::n": b"4"}


async def test_trim_plan_removes_nothing_and_trim_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKIFY_KEEP_S", "0")
    async with bus.context(url) as context:
        await fill(context)
        await context.redis.xgroup_create("stream:enriched", "mine", "0")
        await asyncio.sleep(0.002)  # younger than nothing is kept: a millisecond must pass
        said = await run("bus", "trim", "--plan")
        assert "stream:raw: would remove 4 entries" in said
        assert "stream:enriched: would remove 0 entries" in said
        assert "held back by mine" in said
        assert await context.redis.xlen("stream:raw") == 4
        assert "stream:raw: removed 4 entries" in await run("bus", "trim")
        assert await context.redis.xlen("stream:raw") == 0
        assert await context.redis.xlen("stream:enriched") == 4


async def test_group_is_forgotten_with_all_that_is_known_of_it(url: str) -> None:
    async with bus.context(url) as context:
        await fill(context)
        assert "no group 'other'; there are: processor" in await refused(
            "bus", "forget", "raw", "other"
        )
        await run("bus", "forget", "raw", "processor", code=1)  # asked, and no answer
        assert await context.redis.hexists(topics.cursors("stream:raw"), "processor")
        said = await run("bus", "forget", "raw", "processor", "--yes")
        assert "stream:raw: processor is removed" in said
        assert await context.redis.xinfo_groups("stream:raw") == []
        for key in (topics.cursors("stream:raw"), topics.group_cards("stream:raw")):
            assert not await context.redis.hexists(key, "processor")


async def set_aside(context: bus.Context) -> None:
    await flows.append_raw(context, CHAINS)
    reader = Consumer(
        context, "stream:raw", "processor", dead_stream="stream:dead", start="earliest"
    )
    for number, entry in enumerate(await bus.take(reader, 4)):
        await reader.dead_letter(entry, "undecodable" if number else "internal", "no JSON at 1")
    await reader.close()


async def test_dead_letters_are_listed_shown_sent_back_and_dropped(url: str) -> None:
    async with bus.context(url) as context:
        assert await run("dead", "list") == "no dead letters\n"
        await set_aside(context)
        said = (await run("dead", "list")).splitlines()
        assert said[0] == "4 dead letters: 3 undecodable, 1 internal"
        assert len(said) == 2 + 4
        newest, oldest = said[2].split()[0], said[5].split()[0]
        told = msgspec.json.decode(await run("dead", "list", "--reason", "internal", "--json"))
        assert [letter["stream_id"] for letter in told["newest"]] == [oldest]
        shown = await run("dead", "show", oldest)
        assert "reason     internal" in shown
        assert "not decoded" not in shown
        assert "a body" in shown
        peeked = (await run("bus", "peek", "dead", "-n", "1")).strip()
        assert peeked.endswith("undecodable in processor after 1: no JSON at 1")
        assert f"{newest}: there is no such letter" not in await run("dead", "redrive", newest)
        assert await context.redis.xlen("stream:raw") == 5
        await run("dead", "redrive", newest, code=1)
        await run("dead", "redrive", code=1)  # which ones?
        assert "1 of 1 letter dropped" in await run("dead", "drop", oldest)
        said = await run("dead", "redrive", "--reason", "undecodable", "--yes")
        assert said.endswith("2 of 2 letters sent back\n")
        assert await run("dead", "list") == "no dead letters\n"
        entries = await context.redis.xrange("stream:raw")
        assert [fields[b"id"].decode() for _id, fields in entries[4:]] == [
            flows.raw(CHAINS[number]).id for number in (3, 1, 2)
        ]


async def test_letter_of_an_earlier_cut_goes_to_the_stream_in_its_place(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.context(url) as context:
        await set_aside(context)
        await context.redis.hset(topics.sequence("stream:raw"), "retired", "1")
        record = Record(current=Layout(4, False, 2), past=(Layout(1, False, 1),))
        await layout.write(context.redis, record)
        monkeypatch.setenv("STOCKIFY_SHARDS", "4")
        assert (await run("dead", "list")).startswith("4 dead letters")
        said = await run("dead", "redrive", "--all", "--yes")
        assert said.endswith("4 of 4 letters sent back\n")
        assert await run("dead", "list") == "no dead letters\n"
        entries = await context.redis.xrange("stream:raw:{0}")
        assert [fields[b"id"].decode() for _id, fields in entries] == [
            flows.raw(chain).id for chain in CHAINS
        ]
        assert {fields[b"data"] for _id, fields in entries} == {b"a body"}
        assert await context.redis.xlen("stream:raw") == 4  # it takes nothing more
