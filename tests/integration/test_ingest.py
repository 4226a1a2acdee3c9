"""The provider's answers into the raw stream: exactly as received, in order, whatever happens."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from pipeline import bodies, models, polls
from pipeline.entries import Entry, decode_entry
from pipeline.models import PollReport
from pipeline.runtime import Context
from tests.support import bus, chains, provider, servers
from tests.support.provider import Provider
from workers.ingest import __main__ as ingest

GOOD = chains.encoded(chains.body(5))


@contextlib.asynccontextmanager
async def polling(
    url: str, source: Provider, state: Path, **settings: object
) -> AsyncIterator[Context]:
    """Ingest against a provider, its seconds a hundred times as short."""
    chosen = {
        "dhan_base_url": source.url,
        "dhan_client_id": "1000000001",
        "dhan_access_token": "token",
        "underlyings": ("NIFTY",),
        "expiries_per_underlying": 1,
        "chain_budget": "chain",
        "clock": "x100",
        "poll_closed_market": True,
        "state_dir": str(state),
    }
    async with (
        bus.context(url, "ingest", **(chosen | settings)) as context,
        bus.working(context, ingest.ingest),
    ):
        yield context


async def chain_entries(context: Context) -> list[Entry]:
    entries = [decode_entry(*item) for item in await context.redis.xrange("stream:raw")]
    return [entry for entry in entries if entry.type == models.RAW_CHAIN_TYPE]


async def test_body_is_kept_byte_for_byte_with_its_request(valkey: str, tmp_path: Path) -> None:
    odd = b' { "data" : {"last_price":1.50 ,\n"oc":{}},\t"status":"success","extra":[1e3,-0]} '
    async with provider.answering((200, odd)) as source, polling(valkey, source, tmp_path) as on:
        appended = on.telemetry.counter("entries_appended", "")
        await bus.until(lambda: appended.value >= 3)
        entry = (await chain_entries(on))[0]
    assert bodies.body_of(entry) == odd
    assert entry.key == "NIFTY-20310128"
    asked = bodies.context_of(entry)
    assert (asked.underlying, asked.expiry) == ("NIFTY", provider.EXPIRY)
    assert (asked.security_id, asked.segment, asked.status) == (13, "IDX_I", 200)
    assert asked.http_date == "Tue, 28 Jan 2025 09:33:32 GMT"
    assert b"token" not in entry.meta
    assert entry.traceparent


async def test_request_is_what_the_provider_wants_over_one_kept_connection(
    valkey: str, tmp_path: Path
) -> None:
    async with provider.answering((200, GOOD)) as source, polling(valkey, source, tmp_path) as on:
        appended = on.telemetry.counter("entries_appended", "")
        await bus.until(lambda: appended.value >= 6)
    chain = {"UnderlyingScrip": 13, "UnderlyingSeg": "IDX_I", "Expiry": "2031-01-28"}
    assert source.asked[0] == {"UnderlyingScrip": 13, "UnderlyingSeg": "IDX_I"}
    assert source.asked[1] == chain
    assert {(h["access-token"], h["client-id"]) for h in source.headers} == {
        ("token", "1000000001")
    }
    assert all(h["user-agent"] for h in source.headers)
    assert source.connections == 1


RECOVERING = {
    "html 502": (502, b"<html>Bad Gateway</html>"),
    "error with 200": (200, b'{"data":{"800":"Internal server error"},"status":"failed"}'),
    "html with 200": (200, b"<html>maintenance</html>"),
    "empty 503": (503, b""),
}


@pytest.mark.parametrize("answer", RECOVERING.values(), ids=RECOVERING.keys())
async def test_answer_without_data_is_asked_for_again_and_not_appended(
    valkey: str, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    async with (
        provider.answering(answer, answer, (200, GOOD)) as source,
        polling(valkey, source, tmp_path) as on,
    ):
        received = on.telemetry.counter("bodies_received", "")
        errors = on.telemetry.counter("provider_errors", "")
        await bus.until(lambda: received.value >= 3)
        entries = await chain_entries(on)
    assert errors.value == 2
    assert {bodies.body_of(entry) for entry in entries} == {GOOD}


async def test_truncated_body_is_kept_for_whoever_decodes_it(valkey: str, tmp_path: Path) -> None:
    cut = GOOD[:-300]
    async with (
        provider.answering((200, cut), (200, GOOD)) as source,
        polling(valkey, source, tmp_path) as on,
    ):
        appended = on.telemetry.counter("entries_appended", "")
        await bus.until(lambda: appended.value >= 4)
        entries = await chain_entries(on)
    assert [bodies.body_of(entry) for entry in entries[:2]] == [cut, GOOD]


async def test_refused_token_is_said_and_mends_when_the_file_has_a_new_one(
    valkey: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    refused = (401, b'{"data":{"809":"Access token is invalid"},"status":"failed"}')
    async with (
        provider.answering(refused, (200, GOOD)) as source,
        polling(valkey, source, tmp_path, dhan_token_file=str(token)) as on,
    ):
        await bus.until(lambda: on.telemetry.state == "degraded")
        assert "AuthenticationFailed" in on.telemetry.reason
        token.write_text("new\n")
        await bus.until(lambda: on.telemetry.state == "ready")
        await bus.until(lambda: source.headers[-1]["access-token"] == "new")


async def test_missing_data_plan_is_degraded_and_not_hammered(valkey: str, tmp_path: Path) -> None:
    refused = (200, b'{"data":{"806":"Data APIs not subscribed"},"status":"failed"}')
    async with provider.answering(refused) as source, polling(valkey, source, tmp_path) as on:
        await bus.until(lambda: on.telemetry.state == "degraded")
        assert "AccessDenied" in on.telemetry.reason
        await asyncio.sleep(0.5)  # some sixteen slots of the shortened budget
        assert source.answered["/v2/optionchain"] == 1


async def test_chain_that_is_polled_no_more_leaves_no_trouble_behind(
    valkey: str, tmp_path: Path
) -> None:
    refused = (400, b'{"data":{"811":"Invalid Expiry Date"},"status":"failed"}')
    async with (
        provider.answering(refused, (200, GOOD)) as source,
        polling(valkey, source, tmp_path, clock="2031-01-28T15:28:00@x100") as on,
    ):
        await bus.until(lambda: on.telemetry.state == "degraded")
        assert "NIFTY-20310128: RequestRejected" in on.telemetry.reason
        await bus.until(lambda: on.telemetry.state == "ready")  # it has settled; the next is polled
        assert {entry.key for entry in await chain_entries(on)} == {"NIFTY-20310204"}


async def test_provider_that_is_away_is_polled_as_soon_as_it_is_back(
    valkey: str, tmp_path: Path
) -> None:
    source = Provider([(200, GOOD)], port=servers.free_port())
    async with polling(valkey, source, tmp_path) as on:
        errors = on.telemetry.counter("provider_errors", "")
        await bus.until(lambda: errors.value >= 2)
        server = await asyncio.start_server(source.serve, "127.0.0.1", source.port)
        received = on.telemetry.counter("bodies_received", "")
        await bus.until(lambda: received.value >= 3)
        assert await chain_entries(on)
        server.close()


async def test_bodies_wait_on_disk_while_redis_is_away_and_follow_in_order(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.5)
    with servers.running(servers.valkey_binary(), tmp_path_factory.mktemp("away")) as server:
        async with (
            provider.answering((200, GOOD)) as source,
            polling(server.url, source, tmp_path) as on,
        ):
            received = on.telemetry.counter("bodies_received", "")
            appended = on.telemetry.counter("entries_appended", "")
            await bus.until(lambda: appended.value >= 4)
            await asyncio.to_thread(server.stop)
            before = received.value
            await bus.until(lambda: received.value >= before + 5)
            assert on.telemetry.report()["gauges"]["spool_entries"] >= 4
            await asyncio.to_thread(server.start)
            await bus.until(lambda: on.telemetry.report()["gauges"]["spool_entries"] == 0)
        with redis.Redis.from_url(server.url) as client:
            entries = [decode_entry(*item) for item in client.xrange("stream:raw")]
    received_ts = [entry.ts for entry in entries if entry.type != models.RAW_POLLS_TYPE]
    assert len(received_ts) == received.value
    assert received_ts == sorted(received_ts)
    assert len({entry.id for entry in entries}) == len(entries) == appended.value
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


async def test_one_budget_spaces_the_requests_of_all_chains(valkey: str, tmp_path: Path) -> None:
    async with (
        provider.answering((200, GOOD)) as source,
        polling(
            valkey,
            source,
            tmp_path,
            chain_budget="account",
            expiries_per_underlying=2,
            underlyings=("NIFTY", "BANKNIFTY"),
            clock="x10",
        ) as on,
    ):
        received = on.telemetry.counter("bodies_received", "")
        loop = asyncio.get_running_loop()
        await bus.until(lambda: received.value >= 1)
        began, first = loop.time(), received.value
        await bus.until(lambda: received.value >= first + 8)
        assert loop.time() - began >= 7 * 0.31
        assert {asked["UnderlyingScrip"] for asked in source.asked} == {13, 25}


async def poll_reports(url: str) -> list[PollReport]:
    async with bus.context(url) as context:
        items = await context.redis.xrange("stream:raw")
    entries = [decode_entry(*item) for item in items]
    told = [entry for entry in entries if entry.type == models.RAW_POLLS_TYPE]
    return [polls.decode_report(entry.data) for entry in told]


async def test_every_answer_is_reported_and_what_no_json_is_as_missed(
    valkey: str, tmp_path: Path
) -> None:
    cut = GOOD[:-300]
    script = [(200, GOOD)] * 3 + [(200, cut)] * 4 + [(200, GOOD)]
    async with provider.answering(*script) as source, polling(valkey, source, tmp_path) as on:
        received = on.telemetry.counter("bodies_received", "")
        await bus.until(lambda: received.value >= 20)
    told = await poll_reports(valkey)
    bodies_whole = received.value - 1 - 4  # the list of expiries, and those that were cut
    assert sum(report.answered for report in told) == bodies_whole
    gaps = [gap for report in told for gap in report.gaps]
    assert {(gap.cause, gap.detail) for gap in gaps} == {("upstream", "undecodable")}
    assert sum(gap.missed for gap in gaps) >= 4


async def test_chains_in_line_behind_a_provider_that_is_away_miss_their_polls_too(
    valkey: str, tmp_path: Path
) -> None:
    source = Provider([(200, GOOD)], port=servers.free_port())
    server = await asyncio.start_server(source.serve, "127.0.0.1", source.port)
    settings = {"chain_budget": "account", "expiries_per_underlying": 2}
    async with polling(valkey, source, tmp_path, **settings) as on:
        received = on.telemetry.counter("bodies_received", "")
        await bus.until(lambda: received.value >= 6)
        server.close()
        source.cut()
        errors = on.telemetry.counter("provider_errors", "")
        await bus.until(lambda: errors.value >= 4)
    found: dict[str, set[str]] = {}
    for report in await poll_reports(valkey):
        found.setdefault(report.chain, set()).update(gap.detail for gap in report.gaps)
    assert found.keys() == {"NIFTY-20310128", "NIFTY-20310204"}
    # A request that was under way fails in its own way.
    causes = {"unreachable", "unavailable"}
    assert all(details and details <= causes for details in found.values()), found
