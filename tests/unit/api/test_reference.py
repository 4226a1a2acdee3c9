"""`docs/api.md` names what the gateway does: close codes, problem codes, operations, routes."""

import re
from pathlib import Path

import pytest
from litestar.datastructures import State
from litestar.routes import HTTPRoute

from api.app import routed
from api.live import operations, session
from api.live.kinds import KINDS
from api.reference.responses import problems
from api.rest import registry

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "api.md").read_text()
PATHS = [*(ROOT / "api").glob("*.py"), *(ROOT / "api").glob("*/*.py")]
SOURCE = "\n".join(path.read_text() for path in sorted(PATHS))


def test_close_codes_are_those_of_the_code() -> None:
    numbers = (value for name, value in vars(session).items() if name.isupper())
    used = {number for number in numbers if isinstance(number, int) and number >= 1_000}
    table = REFERENCE.partition("| close code |")[2]
    assert {int(code) for code in re.findall(r"^\| (\d{4}) \|", table, re.MULTILINE)} == used | {
        1009  # closed by the protocol itself
    }


@pytest.mark.parametrize(
    "code",
    sorted(
        set(re.findall(r'(?:(?:ApiError|UnknownKey)\(\s*\d{3},\s*|Refused\(\s*)"(\w+)"', SOURCE))
    ),
)
def test_every_code_a_client_may_see_is_named(code: str) -> None:
    assert f"`{code}`" in REFERENCE


def test_every_code_has_an_example_in_the_description() -> None:
    table = REFERENCE.partition("| status | codes |")[2].partition("\n\n")[0]
    found: set[str] = set()
    for response in problems().values():
        for content in response["content"].values():
            found |= set(content.get("examples", ()))
    assert found == set(re.findall(r"`([a-z_]+)`", table))


def routes_of_the_app() -> set[tuple[str, str]]:
    """Every (method, path) that answers, names of parameters left out."""
    found = set()
    for route in routed(State({})).routes:
        if isinstance(route, HTTPRoute) and not route.path_format.startswith("/assets/"):
            for handler in route.route_handlers:
                if handler.fn is not registry.subject_alone.fn:  # a refusal in words
                    methods = handler.http_methods & {"GET", "POST", "DELETE"}
                    found |= {(method, bare(route.path_format)) for method in methods}
    return found


def routes_of_the_text() -> set[tuple[str, str]]:
    """Every (method, path) in the first cell of a row; a path without a method has that before."""
    found = set()
    for cell in re.findall(r"^\| (`(?:GET|POST|DELETE) /[^|]*) \|", REFERENCE, re.MULTILINE):
        method = ""
        for said, path in re.findall(r"`(?:(GET|POST|DELETE) )?(/[^`?]*)[^`]*`", cell):
            method = said or method
            found.add((method, bare(path)))
    return found


def bare(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path)


def test_every_route_is_told_and_none_that_is_not_there() -> None:
    assert routes_of_the_text() == routes_of_the_app()


def test_every_channel_is_told() -> None:
    named = set(re.findall(r"^\| `(\w+)(?::[^`]*)?`[^|]* \| ", REFERENCE, re.MULTILINE))
    assert set(KINDS) <= named


def test_operations_are_all_named() -> None:
    for name in operations._NAMES:
        assert f"| `{name}` |" in REFERENCE
    for interval in operations.INTERVALS:
        assert str(interval) in REFERENCE
