"""consume() in a script of one's own: whose settings it has, and how it ends."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.attached import Running
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.layout import Layout, Record
from pipeline.streams import consume
from stockify.instance import StateDirectory, this_process
from tests.support import bus, enriched, servers

DEADLINE_S = 15.0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    """The state directory of nobody, in an environment that says nothing else."""
    for name in [name for name in os.environ if name.startswith("STOCKIFY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STOCKIFY_STATE_DIR", str(tmp_path / "state"))
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


@pytest.fixture
def attached(state: StateDirectory, valkey: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the Redis that the environment names."""
    monkeypatch.setenv("STOCKIFY_REDIS_URL", valkey)
    return valkey


async def taken(group: str, wanted: int) -> list[str]:
    """The underlyings of chains until there are so many."""
    names: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        async with consume(group, start="earliest") as batches:
            async for batch in batches:
                names += [chain.header.underlying for chain in batch]
                if len(names) >= wanted:
                    break
    return names


async def test_addresses_come_from_the_running_instance(state: StateDirectory, valkey: str) -> None:
    async with bus.context(valkey, shards=2) as context:
        await enriched.append_chains(context, 1)
    with state.held(this_process("now")):
        environment = {"STOCKIFY_REDIS_URL": valkey, "STOCKIFY_SHARDS": "2"}
        state.write_running(Running(gateway="", environment=environment))
        assert await taken("by-instance", 1) == ["NIFTY"]
    with pytest.raises(ConfigError, match="no instance is running"):
        await taken("by-nobody", 1)


async def test_number_of_shards_is_that_of_the_bus(
    attached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.context(attached, shards=3) as context:
        await layout.agree(context.redis, context.topics)
        for name in ("NIFTY", "SENSEX"):
            await enriched.append_chains(context, 1, underlying=name)
    assert sorted(await taken("by-bus", 2)) == ["NIFTY", "SENSEX"]
    monkeypatch.setenv("STOCKIFY_SHARDS", "2")
    with pytest.raises(ConfigError, match="has 3 shards and STOCKIFY_SHARDS is 2"):
        await taken("by-mistake", 1)


async def test_script_on_an_empty_bus_does_not_say_how_it_is_cut(attached: str) -> None:
    stopping = asyncio.Event()
    async with consume("early", stopping=stopping) as batches:
        stopping.set()
        assert [batch async for batch in batches] == []
        assert await layout.read(batches.context.redis) is None


async def test_script_leaves_when_the_bus_is_cut_anew(
    attached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.streams.standalone.LAYOUT_S", 0.05)

    async def read_on() -> None:
        async with consume("left-behind") as batches:
            await layout.write(batches.context.redis, Record(Layout(4, False)))
            async for _batch in batches:
                pass

    with pytest.raises(ConfigError, match="has 4 shards"):
        await asyncio.wait_for(read_on(), DEADLINE_S)


async def test_redis_that_is_away_at_the_start_is_told_of(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKIFY_REDIS_URL", f"redis://127.0.0.1:{servers.free_port()}/0")
    with pytest.raises(BusUnavailable, match="away"):
        await taken("alone", 1)


async def test_first_signal_ends_the_loop_and_what_was_there_before_comes_back(
    attached: str,
) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    before = signal.getsignal(signal.SIGINT)
    try:
        async with asyncio.timeout(DEADLINE_S):
            async with consume("asked") as batches:
                os.kill(os.getpid(), signal.SIGTERM)
                assert [batch async for batch in batches] == []
                assert heard == []
                os.kill(os.getpid(), signal.SIGTERM)
                await bus.until(lambda: bool(heard))
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def test_callers_own_event_leaves_the_signals_alone(attached: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopping = asyncio.Event()
    async with consume("asked", stopping=stopping) as batches:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert handlers == before
        stopping.set()
        async with asyncio.timeout(DEADLINE_S):
            assert [batch async for batch in batches] == []


async def test_everything_is_let_go_when_the_block_ends_by_an_error(attached: str) -> None:
    async def fail() -> None:
        async with consume("broken", start="earliest") as batches:
            async for _batch in batches:
                raise ZeroDivisionError

    async with bus.context(attached) as context:
        await enriched.append_chains(context, 1)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fail(), DEADLINE_S)
        left = await context.redis.hgetall("lease:broken")
        assert not [field for field in left if b"owner" in field or b"slot" in field]
        names = [one["name"] for one in await context.redis.client_list()]
        assert not [name for name in names if "broken" in name]
        assert asyncio.all_tasks() == {asyncio.current_task()}
