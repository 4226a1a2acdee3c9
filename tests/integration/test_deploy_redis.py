"""The deployment's Redis configuration and user, on the Redis that it is written for."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from pipeline.streams import Consumer, Producer, stream_bytes, trim
from tests.support import bus, servers
from tests.support.rooms import CHECKOUT

PASSWORD = "0123456789abcdef"
DEADLINE_S = 10.0


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A Redis 8 with deploy/redis.conf and the users of compose.yaml."""
    compose = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
    variable = "${STOCKIFY_REDIS_PASSWORD:?run deploy/make-env.sh first}"
    users = compose["configs"]["redis-acl"]["content"]
    assert variable in users
    (tmp_path / "redis.acl").write_text(users.replace(variable, PASSWORD))
    chosen = servers.free_port()
    process = subprocess.Popen(
        [
            *(servers.redis8_binary(), CHECKOUT / "deploy/redis.conf"),
            *("--aclfile", tmp_path / "redis.acl", "--dir", tmp_path),
            *("--port", str(chosen), "--bind", "127.0.0.1"),
        ]
    )
    try:
        wait_until_it_answers(chosen, process)
        yield chosen
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with client(port) as connection:
                connection.ping()
                return
        except redis.ConnectionError:
            assert process.poll() is None, "it stopped; see what it printed"
            assert time.monotonic() < deadline
        time.sleep(0.02)


def client(
    port: int, username: str | None = "stockify", password: str | None = PASSWORD
) -> redis.Redis:
    once = Retry(NoBackoff(), 0)
    return redis.Redis(port=port, username=username, password=password, retry=once)


def test_server_is_durable_and_never_evicts(port: int) -> None:
    with client(port) as connection:
        for name, value in (
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory-policy", "noeviction"),
        ):
            assert connection.config_get(name) == {name: value}
        events = connection.config_get("notify-keyspace-events")["notify-keyspace-events"]
        assert {"K", "$", "g", "x"} <= set(events)


def test_nobody_enters_without_the_password(port: int) -> None:
    with client(port, None, None) as stranger, pytest.raises(redis.RedisError):
        stranger.ping()
    with client(port, password="guess") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "SHUTDOWN", "CONFIG SET maxmemory 1", "ACL LIST", "REPLICAOF NO ONE"]
)
def test_workers_may_not_administer_the_server(port: int, command: str) -> None:
    with client(port) as connection, pytest.raises(NoPermissionError):
        connection.execute_command(*command.split())


async def test_workers_may_do_what_the_bus_needs(port: int) -> None:
    url = f"redis://stockify:{PASSWORD}@127.0.0.1:{port}/0"
    async with bus.context(url) as context:
        stream, target = context.topics.raw(), context.topics.enriched()
        producer = Producer(context.settings, "test")
        await producer.append(stream, bus.entry(1))
        await producer.close()
        await producer.settle(stream, [bus.entry(1)])  # kills the old connection at the server
        assert await producer.confirm(stream, 3_000)
        assert (await producer.standing(stream)).newest.seq == 1
        await producer.close()
        consumer = Consumer(
            context, stream, "group", dead_stream=context.topics.dead(), start="earliest"
        )
        (read,) = await bus.take(consumer, 1)
        (appended,) = await consumer.finish(target, [(read, bus.entry(2))])
        await consumer.close()
        assert appended is not None
        assert await context.redis.xlen(target) == 1
        assert await stream_bytes(context.redis, stream) > 0
        await trim(context.redis, stream, 0)
        await context.redis.set(context.topics.latest("NIFTY"), b"{}", ex=60)
        async with context.redis.pubsub() as listener:
            await listener.psubscribe(context.topics.keyspace_event(context.topics.latest("*")))
