"""How many shards the bus has is recorded, and who thinks otherwise does not start."""

import asyncio
from pathlib import Path

import pytest

from pipeline import layout, topics
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.runtime import connect
from pipeline.topics import Topics
from tests.support.bus import until
from tests.support.worker_process import running


async def test_first_to_start_says_how_many_shards_there_are(valkey: str) -> None:
    redis = connect(Settings(redis_url=valkey))
    await layout.agree(redis, Topics(4))
    await layout.agree(redis, Topics(4))
    known = await layout.read(redis)
    assert known is not None
    assert known.current.topics.raw(3) == Topics(4).raw(3)
    for other in (Topics(), Topics(5), Topics(1, tagged=True)):
        with pytest.raises(
            ConfigError, match=f"has 4 shards and STOCKIFY_SHARDS is {other.shards}"
        ):
            await layout.agree(redis, other)
    await redis.aclose()


async def test_streams_from_before_the_record_say_how_many_there_are(valkey: str) -> None:
    redis = connect(Settings(redis_url=valkey))
    await redis.xadd(Topics().raw(), {"a": "b"})
    with pytest.raises(ConfigError, match="has 1 shard and STOCKIFY_SHARDS is 2"):
        await layout.agree(redis, Topics(2))
    await layout.agree(redis, Topics())
    await redis.aclose()


async def test_worker_leaves_when_the_bus_is_cut_anew_and_does_not_start_again(
    valkey: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path), metrics_port=0)
    redis = connect(settings)
    with running("workers.trimmer", settings) as process:
        async with asyncio.timeout(15):
            while not await redis.keys(topics.heartbeat("trimmer@*")):
                await asyncio.sleep(0.05)
        await layout.write(redis, layout.Record(layout.Layout(2, False)))
        await until(lambda: process.poll() is not None)
        assert process.returncode == 1
    assert await redis.keys(topics.HEARTBEATS) == []  # it took its leave
    with running("workers.trimmer", settings) as process:
        await until(lambda: process.poll() is not None)
        assert process.returncode == 1
    assert capfd.readouterr().out.count("the bus has 2 shards and STOCKIFY_SHARDS is 1") == 2
    await redis.aclose()
