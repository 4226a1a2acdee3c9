"""What operators do over REST: dead letters and the standing of the pipeline, on a real Valkey."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.entries import NewEntry
from pipeline.streams import Consumer
from pipeline.streams.overview import trimmed_streams
from pipeline.topics import heartbeat
from tests.support import bus, gateway, servers
from tests.support.gateway import Gateway

LETTERS = "/v1/admin/dead-letters"


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey, shards=3, log_level="info") as running:
        yield running


async def ask(
    served: Gateway, method: str, path: str, *, status: int = 200, **options: Any
) -> dict[str, Any]:
    token = served.token("admin", subject="operator")
    headers = {"Authorization": f"Bearer {token}"}
    response: httpx.Response = await served.http.request(method, path, headers=headers, **options)
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    return body


async def set_aside(served: Gateway, count: int, *, reason: str = "undecodable") -> None:
    """Entries of the raw streams that a group sets aside, each of another underlying."""
    topics = served.topics
    keys = [f"STOCK{number}" for number in range(count)]
    async with bus.context(served.settings.redis_url, shards=topics.shards) as context:
        for number, key in enumerate(keys):
            entry = NewEntry(id=f"m{number}", type="x.v1", key=key, ts=number + 1, data=b"\xff\0")
            await bus.append(context, topics.raw(topics.shard_of(key)), entry)
        for shard in range(topics.shards):
            expected = sum(topics.shard_of(key) == shard for key in keys)
            reader = Consumer(
                context,
                topics.raw(shard),
                "judge",
                dead_stream=topics.dead(shard),
                start="earliest",
            )
            for entry in await bus.take(reader, expected) if expected else ():
                await reader.dead_letter(entry, reason, "no JSON at 1")
            await reader.close()


async def test_letters_are_listed_in_pages_newest_first(served: Gateway) -> None:
    await set_aside(served, 10)
    seen, cursor = [], ""
    while True:
        body = await ask(served, "GET", f"{LETTERS}?limit=3{cursor}")
        assert len(body["data"]) <= 3
        seen += body["data"]
        if body["next"] is None:
            break
        cursor = f"&cursor={body['next']}"
    assert sorted(letter["message_id"] for letter in seen) == [f"m{n}" for n in range(10)]
    instants = [letter["id"].rpartition(":")[2] for letter in seen]
    assert instants == sorted(instants, key=lambda text: [*map(int, text.split("-"))], reverse=True)
    first = seen[0]
    assert (first["group"], first["reason"], first["error"]) == (
        "judge",
        "undecodable",
        "no JSON at 1",
    )
    assert first["attempts"] == 1
    assert first["ts_dead"].endswith("Z")


async def test_letters_are_filtered_and_cursors_stay_with_their_list(served: Gateway) -> None:
    await set_aside(served, 4)
    rows = await ask(served, "GET", f"{LETTERS}?key=STOCK2&stream=raw&group=judge")
    assert [letter["key"] for letter in rows["data"]] == ["STOCK2"]
    for query in ("reason=attempts", "stream=enriched", "group=other", "since=2200-01-01"):
        assert (await ask(served, "GET", f"{LETTERS}?{query}"))["data"] == []
    page = await ask(served, "GET", f"{LETTERS}?limit=1")
    await ask(served, "GET", f"{LETTERS}?limit=1&key=STOCK2&cursor={page['next']}", status=400)
    assert (await ask(served, "GET", f"{LETTERS}?cursor=AAAA", status=400))["code"]


async def test_letter_is_shown_sent_back_once_and_dropped(
    served: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    await set_aside(served, 2)
    kept, other = (await ask(served, "GET", LETTERS))["data"]
    path = f"{LETTERS}/{kept['id']}"
    shown = (await ask(served, "GET", path))["data"]
    assert base64.b64decode(shown["data"]) == b"\xff\0"
    assert shown["stream"] == kept["stream"]
    sent = (await ask(served, "POST", f"{path}/redrive"))["data"]
    assert (sent["message_id"], sent["stream"]) == (kept["message_id"], kept["stream"])
    entries = await served.redis.xrange(sent["stream"], sent["stream_id"], sent["stream_id"])
    assert entries[0][1][b"id"].decode() == kept["message_id"]
    for method, gone in (("POST", f"{path}/redrive"), ("GET", path), ("DELETE", path)):
        assert (await ask(served, method, gone, status=404))["code"] == "unknown_letter"
    await ask(served, "DELETE", f"{LETTERS}/{other['id']}")
    assert (await ask(served, "GET", LETTERS))["data"] == []
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = [line for line in lines if line["event"] == "admin"]
    assert {line["subject"] for line in done} == {"operator"}
    assert [line["action"] for line in done if "letter" in line] == ["look", "redrive", "drop"]
    assert [line["letter"] for line in done if "letter" in line] == [
        kept["id"],
        kept["id"],
        other["id"],
    ]


async def test_letter_that_is_not_there_is_404(valkey: str) -> None:
    async with gateway.running(valkey) as served:
        await set_aside(served, 1)
        (letter,) = (await ask(served, "GET", LETTERS))["data"]
        assert ":" not in letter["id"]  # without shards there is none to name
        await ask(served, "DELETE", f"{LETTERS}/{letter['id']}")
        for letter_id in (letter["id"], "x", "1-1", "9:1-1", "1-1-1", "99999999999999999999-1"):
            body = await ask(served, "GET", f"{LETTERS}/{letter_id}", status=404)
            assert body["code"] == "unknown_letter"


async def test_admin_routes_ask_for_the_scope(valkey: str) -> None:
    async with gateway.running(valkey) as served:
        headers = {"Authorization": f"Bearer {served.token('live', 'history', 'export')}"}
        for method, path in (
            ("GET", LETTERS),
            ("GET", f"{LETTERS}/1-1"),
            ("POST", f"{LETTERS}/1-1/redrive"),
            ("DELETE", f"{LETTERS}/1-1"),
            ("GET", "/v1/ops/pipeline"),
        ):
            response = await served.http.request(method, path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


async def test_pipeline_tells_of_streams_groups_and_workers(served: Gateway) -> None:
    await set_aside(served, 4)
    async with bus.context(served.settings.redis_url, shards=served.topics.shards) as context:
        key = "STOCK0"
        stream = served.topics.raw(served.topics.shard_of(key))
        await bus.append(context, stream, NewEntry(id="late", type="x.v1", key=key, ts=9))
        await served.redis.xadd("stream:signals", {"side": "buy"})
        report = {"service": "processor", "state": "degraded", "reason": "slow", "pid": 7}
        await served.redis.set(heartbeat("processor@host:7"), json.dumps(report))
        data = (await ask(served, "GET", "/v1/ops/pipeline"))["data"]
        named = {one["name"]: one for one in data["streams"]}
        assert set(named) <= {*trimmed_streams(served.topics), *_dead(served)}
        judged = {group["name"]: group for group in named[stream]["groups"]}["judge"]
        assert (judged["lag"], judged["pending"]) == (1, 0)
        assert named[stream]["headroom"] > 0
        assert sum(named[name]["length"] for name in _dead(served) if name in named) == 4
        assert data["servers"][0]["used"] > 0
        assert next(one for one in data["workers"] if one["service"] == "processor")["pid"] == 7
        assert data["readiness"]["status"] in ("degraded", "not_ready")
        whole = (await ask(served, "GET", "/v1/ops/pipeline?all=true"))["data"]
        assert "stream:signals" in {one["name"] for one in whole["streams"]}


def _dead(served: Gateway) -> list[str]:
    return [served.topics.dead(shard) for shard in range(served.topics.shards)]


async def test_admin_says_that_redis_is_away(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with gateway.running(server.url) as served:
            server.kill()
            for path in (LETTERS, f"{LETTERS}/1-1", "/v1/ops/pipeline"):
                assert (await ask(served, "GET", path, status=503))["code"] == "redis_unavailable"
