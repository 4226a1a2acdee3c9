"""`docs/api.md` names what the gateway does: close codes, problem codes, operations, routes."""

import re
from pathlib import Path

import pytest

from api.live import operations, session

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


def test_operations_are_all_named() -> None:
    for name in operations._NAMES:
        assert f"| `{name}` |" in REFERENCE
    for interval in operations.INTERVALS:
        assert str(interval) in REFERENCE
