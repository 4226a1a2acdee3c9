"""A client of a real cluster: commands reach the owner of their key, through a failover too."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pipeline import schemas
from pipeline.clock import SECOND_NS
from pipeline.cluster import ClusterRedis, Nodes, owner_of, primaries
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.latest import Latest
from pipeline.limits import Allowance, Bucket, Budget, Rate, Sessions
from pipeline.live import Live
from pipeline.models import EnrichedChain
from pipeline.runtime import Redis, cancel, connect, connect_to
from pipeline.schemas import SCHEMAS
from pipeline.streams import consume
from pipeline.streams.links import Link
from pipeline.topics import Topics, heartbeat
from pipeline.watch import Watch
from stockify.engines import servers
from stockify.engines.cluster import ValkeyCluster
from tests.support import bus, chains, enriched, worker_process
from tests.support import cluster as clusters
from tests.support.gateway import moved, publish, until_true

TOPICS = Topics(shards=clusters.SHARDS, tagged=True)
UNDERLYINGS = ("NIFTY", "BANKNIFTY", "FINNIFTY", "SENSEX", "MIDCPNIFTY", "BANKEX")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with clusters.running(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest_asyncio.fixture
async def redis(cluster: ValkeyCluster) -> AsyncIterator[ClusterRedis]:
    for node in cluster.primaries():
        node.client.flushall()
    client = connect(clusters.settings(cluster), name="tester")
    assert isinstance(client, ClusterRedis)
    yield client
    await client.aclose()


async def test_each_shard_is_asked_of_its_owner(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    ports = set()
    for shard in range(clusters.SHARDS):
        key = TOPICS.latest("X", shard)
        await redis.set(key, b"%d" % shard)
        owner = cluster.owner_of(key)
        assert owner.client.get(key) == str(shard)
        served = (await redis.owner_of(key)).connection_pool.connection_kwargs["port"]
        assert served == owner.port
        ports.add(served)
    assert len(ports) == 3


async def test_any_two_buckets_are_asked_of_one_node_in_one_call(cluster: ValkeyCluster) -> None:
    link = Link(clusters.settings(cluster), TOPICS.client_limit("", ""), "tester")
    allowance = Allowance(link, TOPICS)
    rate = Rate(0.1, 50)
    try:
        asked = [
            (Bucket("subject", f"s{number}", rate), Bucket("address", "192.0.2.1", rate))
            for number in range(60)
        ]
        verdicts = await asyncio.gather(*(allowance.take(both, 1) for both in asked))
        assert sum(verdict.wait_s == 0 for verdict in verdicts) == rate.burst
        assert not allowance.is_local
    finally:
        await allowance.close()


async def test_every_room_that_asks_redis_works_on_a_cluster(redis: ClusterRedis) -> None:
    chains_of_all = [chains.enriched(3, underlying=name) for name in UNDERLYINGS]
    for number, chain in enumerate(chains_of_all):
        assert await publish(redis, TOPICS, chain, number) == 8
        assert await publish(redis, TOPICS, chain, number) == 0
    reader = Latest(redis, TOPICS)
    assert None not in await reader.texts(UNDERLYINGS)
    assert (await reader.catalog()).underlyings() == sorted(UNDERLYINGS)
    assert await reader.is_notifying() is True
    budget = Budget(redis, TOPICS, "account", 5.0)
    assert await budget.take() == 0
    assert await budget.take(longest_wait_s=1.0) is None
    assert await Sessions(redis, TOPICS, 1).enter("asha")
    assert not await Sessions(redis, TOPICS, 1).enter("asha")
    await schemas.register(redis, list(SCHEMAS.values()))
    await schemas.register(redis, list(SCHEMAS.values()))
    registry = schemas.Registry(redis)
    assert await registry.subjects() == sorted(schema.subject for schema in SCHEMAS.values())
    for name in await registry.subjects():
        subject = await registry.subject(name)
        assert subject is not None
        assert await registry.revision(subject.newest(1).id) == (name, subject.revisions[0])
    await redis.set(heartbeat("tester"), b"{}", ex=15)
    found = [
        key for server in await primaries(redis) async for key in server.scan_iter(heartbeat("*"))
    ]
    assert found == [heartbeat("tester").encode()]


async def test_live_text_is_heard_at_every_node(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    chain = chains.enriched(3)
    async with contextlib.AsyncExitStack() as stack:
        listeners = []
        for node in cluster.nodes:
            client = await stack.enter_async_context(connect_to(node.url, retries=0))
            listeners.append(await stack.enter_async_context(client.pubsub()))
            await listeners[-1].subscribe(TOPICS.live("NIFTY"))
            await listeners[-1].get_message(timeout=5.0)
        await publish(redis, TOPICS, chain, 1)
        text = (await Latest(redis, TOPICS).texts(["NIFTY"]))[0]
        for listener in listeners:
            # From another node, what a test before has written may come late.
            async with asyncio.timeout(5):
                while (message := await listener.get_message(timeout=1.0)) is None or (
                    message["data"] != text
                ):
                    continue


async def test_live_texts_are_heard_at_the_owner_of_each_shard(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    heard: dict[str, bytes | None] = {}
    client = connect(clusters.settings(cluster), retries=0)
    live = Live(client, TOPICS)
    running = asyncio.create_task(live.run(heard.__setitem__, lambda why, attempt: None))
    try:
        await until_true(lambda: live.is_connected)
        await live.add(UNDERLYINGS)
        await until_true(lambda: set(heard) == set(UNDERLYINGS))
        assert set(heard.values()) == {None}
        for name in UNDERLYINGS:
            await publish(redis, TOPICS, chains.enriched(3, underlying=name), 1_000)
        await until_true(lambda: all(heard.values()))
        texts = await Latest(redis, TOPICS).texts(UNDERLYINGS)
        assert texts == [heard[name] for name in UNDERLYINGS]
    finally:
        await cancel(running)
        await client.aclose()


async def test_moved_slot_is_followed(cluster: ValkeyCluster, redis: ClusterRedis) -> None:
    key = TOPICS.latest("NIFTY", 0)
    await redis.set(key, b"1")
    wrong = [(first, last, cluster.nodes[5].url) for first, last, _ in redis.nodes._ranges]
    redis.nodes._ranges = tuple(wrong)  # as if everything had moved since we asked
    assert await redis.get(key) == b"1"
    assert await redis.nodes.owner(key) != cluster.nodes[5].url


async def test_what_belongs_to_no_one_node_is_refused(redis: ClusterRedis) -> None:
    with pytest.raises(TypeError):
        redis.pipeline()
    with pytest.raises(TypeError):
        redis.pubsub()
    with pytest.raises(ValueError, match="SCAN"):
        await redis.scan()


async def test_one_server_is_its_own_owner(valkey: str) -> None:
    client: Redis = connect(Settings(redis_url=valkey))
    assert await owner_of(client, "any") is client
    assert await primaries(client) == [client]
    with pytest.raises(ConfigError, match="no cluster"):
        await Nodes([valkey]).owner("any")
    await client.aclose()


async def test_cluster_is_examined_node_by_node(cluster: ValkeyCluster, valkey: str) -> None:
    settings = clusters.settings(cluster)
    assert await servers.findings(settings) == []
    node = cluster.nodes[4]
    node.client.config_set("maxmemory-policy", "allkeys-lru")
    node.client.config_set("cluster-require-full-coverage", "yes")
    try:
        found = await servers.findings(settings)
        assert [one.is_fatal for one in found] == [True, False]
        assert all(one.text.startswith(f"127.0.0.1:{node.port}: ") for one in found)
    finally:
        node.client.config_set("maxmemory-policy", "noeviction")
        node.client.config_set("cluster-require-full-coverage", "no")
    with pytest.raises(ConfigError, match="is a cluster: set STOCKIFY_REDIS_CLUSTER"):
        await servers.check_kind(Settings(redis_url=cluster.nodes[0].url))
    with pytest.raises(ConfigError, match="is no cluster: unset STOCKIFY_REDIS_CLUSTER"):
        await servers.check_kind(Settings(redis_url=valkey, redis_cluster=True))


async def test_worker_with_the_wrong_setting_says_so_and_ends(
    cluster: ValkeyCluster, valkey: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"state_dir": str(tmp_path), "metrics_port": 0}
    for settings in (
        Settings(redis_url=cluster.nodes[0].url, **given),
        Settings(redis_url=valkey, redis_cluster=True, **given),
    ):
        with worker_process.running("workers.trimmer", settings) as process:
            assert await asyncio.to_thread(process.wait, 20) == 1
    said = capfd.readouterr().out
    assert "Redis is a cluster: set STOCKIFY_REDIS_CLUSTER=true" in said
    assert "Redis is no cluster: unset STOCKIFY_REDIS_CLUSTER" in said


async def test_watch_and_reads_survive_a_failover(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    told: list[tuple[str, int]] = []
    lost: list[str] = []
    client = connect(clusters.settings(cluster), retries=0)
    watch = Watch(client, TOPICS)
    running = asyncio.create_task(
        watch.run(
            lambda symbol, times: told.append((symbol, times)), lambda why, _: lost.append(why)
        )
    )
    await until_true(lambda: watch.is_connected)
    await watch.add(UNDERLYINGS)
    await until_true(lambda: {symbol for symbol, _ in told} == set(UNDERLYINGS))
    first = [chains.enriched(3, underlying=name) for name in UNDERLYINGS]
    for number, chain in enumerate(first):
        await publish(redis, TOPICS, chain, number)
    await until_true(lambda: {symbol for symbol, times in told if times} == set(UNDERLYINGS))
    told.clear()
    key = TOPICS.catalog(TOPICS.shard_of("NIFTY"))
    killed = await asyncio.to_thread(clusters.fail_over, cluster, key)
    await until_true(lambda: watch.is_connected and ("NIFTY", 0) in told)
    for number, chain in enumerate(first):
        later = moved(chain, seconds=1)
        while not await _published(redis, later, number):
            await asyncio.sleep(0.05)
    await until_true(lambda: {symbol for symbol, times in told if times} == set(UNDERLYINGS))
    assert lost
    texts = await Latest(redis, TOPICS).texts(UNDERLYINGS)
    assert all(
        str(first[0].header.ts_ingest + SECOND_NS).encode() in text for text in texts if text
    )
    await cancel(running)
    await client.aclose()
    await asyncio.to_thread(clusters.bring_back, cluster, killed)


async def test_subscription_leaves_an_owner_that_was_demoted_alive(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    lost: list[str] = []
    told: list[tuple[str, int]] = []
    client = connect(clusters.settings(cluster), retries=0)
    watch = Watch(client, TOPICS)
    running = asyncio.create_task(
        watch.run(
            lambda symbol, times: told.append((symbol, times)), lambda why, _: lost.append(why)
        )
    )
    await until_true(lambda: watch.is_connected)
    await watch.add(["NIFTY"])
    shard = TOPICS.shard_of("NIFTY")
    before = await asyncio.to_thread(cluster.owner_of, TOPICS.catalog(shard))
    await asyncio.to_thread(clusters.hand_over, cluster, TOPICS.catalog(shard))
    await until_true(lambda: any("another node" in why for why in lost))
    await until_true(lambda: watch.is_connected)
    told.clear()
    await publish(redis, TOPICS, chains.enriched(3), 1)
    await until_true(lambda: ("NIFTY", 1) in told)
    assert cluster.owner_of(TOPICS.catalog(shard)) is not before
    await cancel(running)
    await client.aclose()


async def _published(redis: ClusterRedis, chain: EnrichedChain, number: int) -> bool:
    try:
        await publish(redis, TOPICS, chain, number + 100)
    except BusUnavailable:
        return False
    return True


async def test_kit_reads_every_node_and_writes_beside_what_it_read(
    cluster: ValkeyCluster, redis: ClusterRedis
) -> None:
    chosen = clusters.settings(cluster)
    async with bus.context(chosen.redis_url, shards=clusters.SHARDS) as context:
        for name in UNDERLYINGS:
            await enriched.append_chains(context, 0, 1, underlying=name)
        written: dict[str, str] = {}
        async with asyncio.timeout(20):
            async with consume("engine", context=context, start="earliest") as batches:
                async for batch in batches:
                    made = [
                        (chain, NewEntry(id=chain.entry.id, type="x.v1", key="K", ts=1))
                        for chain in batch
                    ]
                    stream = context.topics.stream("signals", batch.shard)
                    await batch.finish("signals", made)
                    written |= {new.id: stream for _chain, new in made}
                    if len(written) == 2 * len(UNDERLYINGS):
                        break
        assert len(set(written.values())) > 2
        for stream in set(written.values()):
            found = [fields[b"id"].decode() for _id, fields in await redis.xrange(stream)]
            assert sorted(found) == sorted(one for one in written if written[one] == stream)
