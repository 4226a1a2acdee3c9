"""The schema registry over REST: a real gateway, asked as Confluent's clients ask."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from api.rest.registry_answers import REGISTRY_TYPES
from pipeline import schemas, topics
from pipeline.schemas import SCHEMAS, Schema, schema_of
from tests.support import gateway, servers
from tests.support.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

V1 = REGISTRY_TYPES[0]
ACCEPT = {"Accept": f"{V1}, application/vnd.schemaregistry+json, application/json"}
CHECK = "/v1/compatibility/subjects/{}/versions/{}"
CHAIN = SCHEMAS["chain.enriched.v1"]


class Signal(msgspec.Struct):
    chain: str
    side: int


class BetterSignal(msgspec.Struct):
    chain: str
    side: int
    strength: float = 0.0


class WrongSignal(msgspec.Struct):
    chain: str
    side: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that started before any producer, and what producers registered since."""
    directory = tmp_path_factory.mktemp("registry")
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(server.url) as running:
            assert (await running.get("/v1/subjects")).json() == []
            unknown = await running.get("/v1/subjects/chain.raw/versions")
            assert refusal(unknown, 404) == 40401
            own = [
                schema_of("signals", version, kind, level="BACKWARD")
                for version, kind in ((1, Signal), (3, BetterSignal))
            ]
            await schemas.register(running.redis, [*SCHEMAS.values(), *own])
            yield running


def refusal(response: httpx.Response, status: int) -> int:
    """The code of a refusal, checked for its form."""
    body = response.json()
    assert response.status_code == status, body
    assert set(body) == {"error_code", "message"}
    assert body["message"]
    code: int = body["error_code"]
    return code


async def check(served: Gateway, path: str, schema: Schema | str, **more: Any) -> httpx.Response:
    text = schema if isinstance(schema, str) else schema.text.decode()
    headers = {"Authorization": f"Bearer {served.token()}"} | more.pop("headers", {})
    body = {"schema": text, "schemaType": "JSON"} | more
    return await served.http.post(path, json=body, headers=headers)


async def test_subjects_and_versions_are_those_registered(served: Gateway) -> None:
    names = [
        "chain.enriched",
        "chain.raw",
        "expiries.enriched",
        "expiries.raw",
        "polls.enriched",
        "polls.raw",
        "signals",
    ]
    assert (await served.get("/v1/subjects")).json() == names
    assert (await served.get("/v1/subjects?subjectPrefix=chain.&deleted=false")).json() == names[:2]
    assert (await served.get("/v1/subjects/signals/versions")).json() == [1, 3]
    assert (await served.get("/v1/subjects/chain.raw/versions")).json() == [1]


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("deleted=False&deleted_only=False&offset=0&limit=-1", 0, 7),
        ("offset=1&limit=2", 1, 3),
        ("offset=9", 7, 7),
        ("limit=0", 0, 0),
        ("deletedOnly=true", 0, 0),
    ],
)
async def test_lists_are_cut_as_clients_ask(
    served: Gateway, query: str, first: int, last: int
) -> None:
    whole = (await served.get("/v1/subjects")).json()
    assert (await served.get(f"/v1/subjects?{query}")).json() == whole[first:last]
    versions = (await served.get(f"/v1/subjects/signals/versions?{query}")).json()
    assert versions == [1, 3][first:last]


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
async def test_version_is_told_with_its_id_and_its_schema_as_text(
    served: Gateway, schema: Schema
) -> None:
    path = f"/v1/subjects/{schema.subject}/versions"
    told = (await served.get(f"{path}/{schema.version}")).json()
    assert set(told) == {"subject", "version", "id", "schemaType", "schema"}
    assert (told["subject"], told["version"], told["schemaType"]) == (schema.subject, 1, "JSON")
    assert told["schema"] == schema.text.decode()
    for latest in ("latest", "-1"):
        assert (await served.get(f"{path}/{latest}")).json() == told
    assert (await served.get(f"{path}/latest/schema")).json() == schema.document
    by_id = await served.get(f"/v1/schemas/ids/{told['id']}?subject={schema.subject}")
    assert by_id.json() == {"schemaType": "JSON", "schema": told["schema"]}


async def test_latest_is_the_highest_version(served: Gateway) -> None:
    latest = (await served.get("/v1/subjects/signals/versions/latest")).json()
    first = (await served.get("/v1/subjects/signals/versions/1")).json()
    assert (latest["version"], first["version"]) == (3, 1)
    assert latest["id"] != first["id"]
    assert "strength" in latest["schema"]


async def test_version_that_grows_keeps_what_its_former_id_led_to(served: Gateway) -> None:
    await schemas.register(served.redis, [schema_of("growing", 1, Signal)])
    path = "/v1/subjects/growing/versions/1"
    before = (await served.get(path)).json()
    await schemas.register(served.redis, [schema_of("growing", 1, BetterSignal)])
    after = (await served.get(path)).json()
    assert before["id"] != after["id"]
    for told in (before, after):
        by_id = (await served.get(f"/v1/schemas/ids/{told['id']}")).json()
        assert by_id["schema"] == told["schema"]
    await served.redis.delete(topics.schema("growing"), topics.schema_log("growing"))


async def test_levels_are_told(served: Gateway) -> None:
    for path, level in (
        ("/v1/config", "BACKWARD_TRANSITIVE"),
        ("/v1/config/chain.raw", "BACKWARD_TRANSITIVE"),
        ("/v1/config/expiries.enriched", "FULL_TRANSITIVE"),
        ("/v1/config/signals?defaultToGlobal=true", "BACKWARD"),
        ("/v1/config/nobodys?defaultToGlobal=True", "BACKWARD_TRANSITIVE"),
    ):
        assert (await served.get(path)).json() == {"compatibilityLevel": level}
    assert (await served.get("/v1/schemas/types")).json() == ["JSON"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/subjects/nobodys/versions", 404, 40401),
        ("/v1/subjects/nobodys/versions/1", 404, 40401),
        ("/v1/subjects/nobodys/versions/latest/schema", 404, 40401),
        ("/v1/subjects/%00/versions", 404, 40401),
        ("/v1/config/nobodys", 404, 40401),
        ("/v1/subjects/signals/versions/2", 404, 40402),
        ("/v1/subjects/signals/versions/2/schema", 404, 40402),
        ("/v1/schemas/ids/1", 404, 40403),
        ("/v1/schemas/ids/first", 404, 40403),
        ("/v1/schemas/ids/99999999999999999999", 404, 40403),
        ("/v1/subjects/signals/versions/0", 422, 42202),
        ("/v1/subjects/signals/versions/-2", 422, 42202),
        ("/v1/subjects/signals/versions/2147483648", 422, 42202),
        ("/v1/subjects/signals/versions/newest", 422, 42202),
        ("/v1/subjects/nobodys/versions/newest", 422, 42202),
    ],
)
async def test_what_is_not_there_is_refused_with_a_code(
    served: Gateway, path: str, status: int, code: int
) -> None:
    plain = await served.get(path)
    assert refusal(plain, status) == code
    assert plain.headers["content-type"] == "application/json"
    asked = await served.get(path, headers=ACCEPT)
    assert refusal(asked, status) == code
    assert asked.headers["content-type"] == V1


async def test_id_of_another_subject_is_not_found_under_this_one(served: Gateway) -> None:
    told = (await served.get("/v1/subjects/signals/versions/1")).json()
    other = await served.get(f"/v1/schemas/ids/{told['id']}?subject=chain.raw")
    assert refusal(other, 404) == 40403


@pytest.mark.parametrize("kind", REGISTRY_TYPES)
async def test_registrys_content_types_are_taken_and_answered(served: Gateway, kind: str) -> None:
    response = await served.get("/v1/subjects", headers={"Accept": kind})
    assert response.headers["content-type"] == kind
    headers = {"Content-Type": f"{kind}; charset=utf-8", "Accept": kind}
    answer = await check(served, CHECK.format("signals", "latest"), "{}", headers=headers)
    assert answer.headers["content-type"] == kind
    assert answer.json() == {"is_compatible": True}
    refused = await check(
        served, CHECK.format("signals", 1), "{}", headers={"Content-Type": "text/plain"}
    )
    assert refusal(refused, 415) == 415


@pytest.mark.parametrize("version", ["/1", "/3", "/latest", ""])
async def test_check_tells_whether_a_schema_could_follow(served: Gateway, version: str) -> None:
    path = f"/v1/compatibility/subjects/signals/versions{version}"
    good = await check(served, f"{path}?verbose=true", schema_of("signals", 4, BetterSignal))
    assert good.json() == {"is_compatible": True, "messages": []}
    bad = await check(
        served, f"{path}?verbose=True&normalize=False", schema_of("x", 1, WrongSignal)
    )
    assert bad.status_code == 200
    assert bad.json()["is_compatible"] is False
    (message,) = bad.json()["messages"]
    assert "not BACKWARD with version" in message
    assert "data.side: type: integer is written, string is read" in message
    short = await check(served, path, schema_of("signals", 4, WrongSignal))
    assert short.json() == {"is_compatible": False}


async def test_check_of_an_unknown_subject_asks_which_version(served: Gateway) -> None:
    path = "/v1/compatibility/subjects/nobodys/versions"
    assert (await check(served, path, CHAIN)).json() == {"is_compatible": True}
    assert refusal(await check(served, f"{path}/latest", CHAIN), 404) == 40401
    assert refusal(await check(served, CHECK.format("signals", 2), CHAIN), 404) == 40402
    assert refusal(await check(served, CHECK.format("signals", "x"), CHAIN), 422) == 42202


async def test_check_names_every_field_of_a_frame_and_registers_nothing(served: Gateway) -> None:
    changed: dict[str, Any] = json.loads(CHAIN.text)
    changed["$defs"]["ChainHeader"]["properties"]["n"]["type"] = "string"
    changed["properties"]["data"]["properties"]["c"]["properties"].pop("iv")
    path = CHECK.format("chain.enriched", "latest") + "?verbose=true"
    answer = (await check(served, path, json.dumps(changed))).json()
    assert answer["is_compatible"] is False
    said = "\n".join(answer["messages"])
    assert "data.h.n: type: string is written, integer is read (earlier readers)" in said
    assert "data.c.iv: column removed" in said
    latest = (await served.get("/v1/subjects/chain.enriched/versions/latest")).json()
    assert latest["schema"] == CHAIN.text.decode()


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("{", {}),
        ("3", {}),
        ('{"type":"text"}', {}),
        ('{"$ref":"#/$defs/a"}', {}),
        ('{"$ref":"https://example.com/a.json"}', {}),
        ('{"items":' * 2_000 + "{}" + "}" * 2_000, {}),
        ('{"anyOf":[' + ",".join(['{"type":"null"}'] * 100) + "]}", {}),
        ("{}", {"schemaType": "AVRO"}),
    ],
    ids=["cut", "number", "type", "dangling", "outside", "deep", "wide", "avro"],
)
async def test_invalid_schema_is_refused(served: Gateway, text: str, more: dict[str, str]) -> None:
    answer = await check(served, CHECK.format("signals", "latest"), text, **more)
    assert refusal(answer, 422) == 42201


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"schema":{}}', b'{"schemaType":"JSON"}'])
async def test_body_that_is_no_check_is_refused(served: Gateway, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {served.token()}"}
    path = CHECK.format("signals", "latest")
    assert refusal(await served.http.post(path, content=body, headers=headers), 400) == 400


@pytest.mark.parametrize(
    "path",
    [
        "/v1/subjects",
        "/v1/subjects/signals",
        "/v1/subjects/signals/versions",
        "/v1/subjects/signals/versions/1",
        "/v1/config",
        "/v1/config/signals",
        "/v1/schemas/ids/1",
    ],
)
async def test_nobody_writes_over_rest(served: Gateway, path: str) -> None:
    headers = {"Authorization": f"Bearer {served.token('live', 'admin')}"}
    for method in ("POST", "PUT", "DELETE"):
        answer = await served.http.request(method, path, headers=headers)
        assert answer.status_code == 405
        assert answer.json()["code"] == "method_not_allowed"
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await served.get("/v1/subjects/signals/versions")).json() == [1, 3]


async def test_token_and_scope_are_asked_for_as_everywhere(served: Gateway) -> None:
    for path in ("/v1/subjects", "/v1/config", "/v1/schemas/ids/1"):
        plain = await served.http.get(path)
        assert (plain.status_code, plain.json()["code"]) == (401, "unauthenticated")
        assert plain.headers["www-authenticate"].startswith("Bearer ")
        asked = await served.http.get(path, headers=ACCEPT)
        assert refusal(asked, 401) == 401
        assert asked.headers["www-authenticate"].startswith("Bearer ")
    history = {"Authorization": f"Bearer {served.token('history')}"}
    refused = await served.http.get("/v1/subjects", headers=history)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    unsigned = await served.http.post(CHECK.format("signals", 1), json={"schema": "{}"})
    assert unsigned.status_code == 401


async def test_unknown_parameter_is_refused_as_everywhere(served: Gateway) -> None:
    plain = await served.get("/v1/subjects?colour=red")
    assert (plain.status_code, plain.json()["code"]) == (400, "invalid_query")
    asked = await served.get("/v1/subjects?deleted=perhaps", headers=ACCEPT)
    assert refusal(asked, 400) == 400


async def test_damaged_subject_is_told_as_such(served: Gateway) -> None:
    await served.redis.hset(topics.schema("damaged"), "one", "{}")
    plain = await served.get("/v1/subjects/damaged/versions")
    assert (plain.status_code, plain.json()["code"]) == (500, "undecodable_value")
    assert refusal(await served.get("/v1/subjects/damaged/versions", headers=ACCEPT), 500) == 50001


async def test_description_tells_of_the_check(served: Gateway) -> None:
    document = (await served.http.get("/openapi.json")).json()
    path = "/v1/compatibility/subjects/{subject}/versions/{version}"
    operation = document["paths"][path]["post"]
    assert set(operation["requestBody"]["content"]) == {*REGISTRY_TYPES, "application/json"}
    assert {"404", "422", "401", "503"} <= set(operation["responses"])
    refused = operation["responses"]["422"]
    if "$ref" in refused:
        refused = document["components"]["responses"][refused["$ref"].rsplit("/", 1)[1]]
    error = refused["content"][V1]["schema"]
    assert error == {"$ref": "#/components/schemas/RegistryError"}
    assert operation["security"] == [{"bearer": ["live"]}]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"subject", "version", "verbose", "normalize"}


async def test_redis_that_is_away_is_told(tmp_path: Any) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with gateway.running(server.url) as running:
            server.kill()
            plain = await running.get("/v1/subjects")
            assert (plain.status_code, plain.json()["code"]) == (503, "redis_unavailable")
            asked = await running.get("/v1/subjects/chain.raw/versions", headers=ACCEPT)
            assert refusal(asked, 503) == 50001
            assert int(asked.headers["retry-after"]) > 0
