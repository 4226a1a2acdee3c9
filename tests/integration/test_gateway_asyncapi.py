"""The description of the live feed: whole, consistent, and as a gateway and its clients speak."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from api.live import session
from api.live.kinds import KINDS
from api.live.wire import SAID, Close, Message
from api.reference.asyncapi import CLOSE_CODES, OPERATIONS
from api.reference.examples import LIVE
from stockify import page
from tests.support import conversation, gateway
from tests.support.events import streaming
from tests.support.gateway import Gateway


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey, limits=conversation.LIMITS) as running:
        yield running


@pytest.fixture
async def document(served: Gateway) -> dict[str, Any]:
    response = await served.http.get("/asyncapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


def follow(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def payload(document: dict[str, Any], name: str) -> Draft7Validator:
    """A validator of a message's payload; AsyncAPI's schemas are those of draft 7."""
    schema = document["components"]["messages"][name]["payload"]
    return Draft7Validator({**schema, "components": document["components"]})


def check(document: dict[str, Any], said: conversation.Said) -> None:
    """Each message is as its description says, and has no field that is not in there."""
    for name, message in said:
        payload(document, name).validate(message)
        known = follow(document, document["components"]["messages"][name]["payload"]["$ref"])
        assert message.keys() <= known["properties"].keys(), name


async def test_document_is_one_by_the_schema_of_asyncapi(document: dict[str, Any]) -> None:
    page.install_packages()
    schema = page.WEB / "node_modules/@asyncapi/specs/schemas/3.0.0.json"
    validator = Draft7Validator(msgspec.json.decode(schema.read_bytes()))
    validator.validate(document)
    del document["operations"]["auth"]["channel"]
    assert not validator.is_valid(document)


async def test_document_is_whole(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    found = set(references(document))
    assert len(found) > 60
    for reference in found:
        follow(document, reference)
    for server in document["servers"].values():
        assert server["host"].startswith("127.0.0.1:")
        assert server["protocol"] in ("ws", "http")
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        own = set(references(follow(document, operation["channel"]["$ref"])["messages"]))
        for each in (operation, operation.get("reply", operation)):
            assert each["messages"]
            for reference in references(each["messages"]):
                assert follow(document, reference)["$ref"] in own
    for message in document["components"]["messages"].values():
        assert message["summary"]
        assert message["examples"]


async def test_every_message_of_the_code_is_in_it_and_has_an_operation(
    document: dict[str, Any],
) -> None:
    assert set(SAID) == set(Message.__subclasses__())
    kinds = [kind.__name__ for kind in (*SAID, Close, *OPERATIONS)]
    names = {name[0].lower() + name[1:] for name in kinds}
    assert document["components"]["messages"].keys() == names == LIVE.keys()
    used = {
        reference.rsplit("/", 1)[1]
        for operation in document["operations"].values()
        for reference in references([operation["messages"], operation.get("reply", {})])
        if "/messages/" in reference
    }
    assert used == names


async def test_close_codes_are_those_of_the_code(document: dict[str, Any]) -> None:
    numbers = {value for name, value in vars(session).items() if name.isupper()}
    used = {number for number in numbers if isinstance(number, int) and number >= 1_000}
    assert set(CLOSE_CODES) == used | {1009}  # closed by the protocol itself
    assert {int(code) for code in document["x-close-codes"]} == set(CLOSE_CODES)


async def test_examples_are_of_their_schemas(document: dict[str, Any]) -> None:
    for name, message in document["components"]["messages"].items():
        for example in message["examples"]:
            payload(document, name).validate(example["payload"])


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_all_that_is_said_is_described(
    served: Gateway, document: dict[str, Any], msgpack: bool
) -> None:
    said = await conversation.hold(served, msgpack=msgpack)
    check(document, said)
    assert {name for name, _ in said} == document["components"]["messages"].keys()
    recorded = conversation.examples(said)
    assert {name: each.keys() for name, each in recorded.items()} == {
        name: each.keys() for name, each in LIVE.items()
    }, "python -m tests.support.conversation"


async def test_every_kind_of_channel_speaks_as_described(
    served: Gateway, document: dict[str, Any]
) -> None:
    said = await conversation.tour(served)
    check(document, said)
    (operation,) = (message for name, message in said if name == "subscribe")
    shown = document["components"]["schemas"]["Subscribe"]["properties"]["channels"]["examples"]
    assert {name.partition(":")[0] for names in shown for name in names} == KINDS.keys()
    assert len(operation["channels"]) == len(KINDS)
    heard = {message["channel"].partition(":")[0] for name, message in said if name == "snapshot"}
    assert heard == KINDS.keys()
    told = set().union(*(message.keys() for name, message in said if name == "update"))
    assert {"entered", "left", "removed"} <= told


async def test_events_are_messages_of_their_channel(
    served: Gateway, document: dict[str, Any]
) -> None:
    await served.publish(gateway.CHAIN, 1)
    async with streaming(served, conversation.CHANNEL, interval_ms=0) as events:
        said = [await events.next() for _ in range(3)]
        await served.publish(gateway.moved(gateway.CHAIN, seconds=1, last={3: 7.5}), 2)
        said.append(await events.of("update"))
    check(document, [(message["type"], message) for message in said])
    assert [message["type"] for message in said] == ["hello", "ack", "snapshot", "update"]
    assert {message["type"] for message in said} <= document["channels"]["events"][
        "messages"
    ].keys()


async def test_event_stream_is_described_by_its_own_parameters(document: dict[str, Any]) -> None:
    query = document["operations"]["events"]["bindings"]["http"]["query"]
    assert query["required"] == ["channels"]
    assert {"interval_ms", "fields", "slow", "delta", "ticket"} <= query["properties"].keys()
