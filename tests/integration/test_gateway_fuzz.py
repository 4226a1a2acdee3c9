"""The whole REST surface asked by chance: no answer is an error of ours or is not described."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, one_of
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.reference.examples import PATHS
from tests.support import surface
from tests.support.postgres import PostgresServer
from tests.support.surface import SCOPES, Surface

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
WITH_ALL, WITH_ONE = 10, 1  # requests to a route, with a token of all scopes and with one of each
STREAMS = 30
ENDLESS = ("stream",)  # has a test of its own
CHANCE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Surface]:
    """A gateway without limits, so that every request is answered by its route."""
    directory = tmp_path_factory.mktemp("fuzz")
    unlimited = {"gateway_rate": 0, "gateway_address_rate": 0}
    async with surface.running(directory, wheel_server, **unlimited) as running:
        yield running


async def test_whatever_is_asked_is_answered_as_described(served: Surface) -> None:
    document = (await served.gateway.http.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    operations = [each for each in found if each.definition.raw["operationId"] not in ENDLESS]
    assert len(operations) == len(surface.operations(document)) - len(ENDLESS)
    failures: list[str] = []
    asked = 0
    with requests.Session() as session:
        for operation in operations:
            for scopes in (SCOPES, *((scope,) for scope in SCOPES), ()):
                examples = WITH_ALL if len(scopes) > 1 else WITH_ONE
                try:
                    asked += await asyncio.to_thread(
                        ask, served, session, operation, scopes, examples
                    )
                except (Exception, FailureGroup) as error:
                    failures.append(f"{operation.label} {scopes}: {error}")
    assert not failures, "\n\n".join(failures)
    assert asked > len(operations) * WITH_ALL / 2
    assert (await served.gateway.http.get("/healthz")).status_code == 200


async def test_stream_is_opened_or_refused_as_described(served: Surface) -> None:
    document = (await served.gateway.http.get("/openapi.json")).json()
    operation = schemathesis.openapi.from_dict(document)["/v1/stream"]["GET"]
    described = document["paths"]["/v1/stream"]["get"]["responses"]
    opened = 0

    @settings(CHANCE, max_examples=STREAMS)
    @given(
        case=one_of(
            operation.as_strategy(query={"channels": ["underlying:NIFTY", "health"]}),
            operation.as_strategy(),
            operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
        )
    )
    def check(case: schemathesis.Case) -> None:
        nonlocal opened
        asked = case.as_transport_kwargs(base_url=str(served.gateway.http.base_url).rstrip("/"))
        asked["headers"] = {**asked["headers"], "Authorization": f"Bearer {served.gateway.token()}"}
        with requests.request(**asked, stream=True, timeout=10) as response:
            assert response.status_code != 500
            assert str(response.status_code) in described
            if response.status_code == 200:
                opened += 1
                assert response.headers["content-type"].startswith("text/event-stream")
                assert next(response.iter_lines()).startswith(b"retry: ")

    await asyncio.to_thread(check)
    assert 0 < opened < STREAMS


def asked_for(
    served: Surface, operation: "APIOperation[Any, Any, Any, Any]"
) -> list[SearchStrategy[schemathesis.Case]]:
    """As described of what is there, as described of anything, and against the description."""
    names = [
        each["name"] for each in operation.definition.raw["parameters"] if each["in"] == "path"
    ]
    known = {name: PATHS[name][1] for name in names}
    known |= {"number": served.schema_id} if "number" in known else {}
    known |= {"letter_id": served.letters[2]} if "letter_id" in known else {}
    found = [operation.as_strategy(path_parameters=known or None)]
    if known:
        found.append(operation.as_strategy())
    if names or operation.query or operation.body:
        found.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    return found


def ask(
    served: Surface,
    session: requests.Session,
    operation: "APIOperation[Any, Any, Any, Any]",
    scopes: tuple[str, ...],
    examples: int,
) -> int:
    """Ask a route by chance; how often. Raises what does not hold."""
    asked = 0

    @settings(CHANCE, max_examples=examples)
    @given(case=one_of(asked_for(served, operation)))
    def check(case: schemathesis.Case) -> None:
        nonlocal asked
        asked += 1
        # Each time a token of its own: one of the routes takes it back.
        bearer = served.gateway.token(*scopes) if scopes else "none"
        if scopes == SCOPES and operation.definition.raw["operationId"] == "exchange":
            bearer = served.key
        case.call_and_validate(
            base_url=str(served.gateway.http.base_url).rstrip("/"),
            session=session,
            headers={"Authorization": f"Bearer {bearer}"},
            checks=CHECKS,
            timeout=10,
        )

    check()
    return asked
