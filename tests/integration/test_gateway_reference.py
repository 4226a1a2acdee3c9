"""The descriptions over the whole surface: valid, complete, and as the gateway answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.reference.examples import EXAMPLES
from tests.support import surface
from tests.support.postgres import PostgresServer
from tests.support.record_surface import shortened
from tests.support.surface import Surface

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Surface]:
    async with surface.running(tmp_path_factory.mktemp("surface"), wheel_server) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def document(served: Surface) -> dict[str, Any]:
    found: dict[str, Any] = (await served.gateway.http.get("/openapi.json")).json()
    return found


def validate(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Raises where a value is not of a schema that may refer to the document's components."""
    whole = schema | {"components": document["components"]}
    Draft202012Validator(whole).validate(value)


async def test_description_is_valid_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


async def test_names_of_operations_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in surface.operations(document)]
    assert len(names) == len(set(names)) > 35


async def test_every_route_says_what_it_does_takes_and_answers(document: dict[str, Any]) -> None:
    for path, method, operation in surface.operations(document):
        where = f"{method} {path}"
        assert operation["summary"].endswith((".", ":")) or operation["summary"], where
        for parameter in operation["parameters"]:
            named = f"{where} {parameter['name']}"
            assert parameter["description"], named
            assert parameter.get("example") is not None, named
        statuses = set(operation["responses"])
        assert {"200", "400", "405", "429", "500", "503"} <= statuses, where
        if operation["security"]:
            assert {"401", "403"} <= statuses, where
        assert EXAMPLES.get(operation["operationId"]) is not None, where
        for status, response in operation["responses"].items():
            said = meant(document, response)
            assert said["description"], f"{where} {status}"
            if status >= "400":
                told = said["content"].values()
                assert all(each.get("example") or each.get("examples") for each in told), where


def meant(document: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What stands there, or where its reference leads."""
    found = said
    if "$ref" in said:
        found = document
        for part in said["$ref"].removeprefix("#/").split("/"):
            found = found[part]
    return found


def examples(document: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every (place, example, schema) of a description."""
    for path, method, operation in surface.operations(document):
        for parameter in operation["parameters"]:
            yield f"{path} {parameter['name']}", parameter["example"], parameter["schema"]
        bodies = {"body": operation.get("requestBody", {})} | operation["responses"]
        for place, said in bodies.items():
            body = meant(document, said)
            for kind, content in body.get("content", {}).items():
                told = [each["value"] for each in content.get("examples", {}).values()]
                for example in (content.get("example"), *told):
                    if example is not None:
                        yield f"{method} {path} {place} {kind}", example, content["schema"]


async def test_examples_are_of_their_schemas(document: dict[str, Any]) -> None:
    seen = 0
    for place, example, schema in examples(document):
        seen += 1
        try:
            validate(example, schema, document)
        except Exception as error:
            raise AssertionError(f"{place}: {error}") from error
    assert seen > 500


def shape(value: Any) -> Any:
    """The names in a value, without what they hold."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


async def test_examples_are_what_the_gateway_answers(
    served: Surface, document: dict[str, Any]
) -> None:
    different = []
    for path, method, operation in surface.operations(document):
        name = operation["operationId"]
        response = await surface.told(served, path, method, operation)
        assert ("etag" in response.headers) == ("304" in operation["responses"]), name
        answer = surface.value_of(response)
        if isinstance(answer, str):
            assert answer.splitlines()[0] == EXAMPLES[name].splitlines()[0], name
            continue
        content = operation["responses"]["200"]["content"]
        validate(answer, content["application/json"]["schema"], document)
        if shape(shortened(answer)) != shape(EXAMPLES[name]):
            different.append(name)
    # Heartbeats, ages and gauges are of the moment.
    assert set(different) <= {"pipeline", "readyz"}, "python -m tests.support.record_surface"
