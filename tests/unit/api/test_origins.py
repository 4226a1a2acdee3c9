"""Which hosts and origins are ours."""

import pytest

from api.origins import Origins
from pipeline.config import Settings

ORIGINS = Origins(
    Settings(gateway_origins=("https://desk.example/",), gateway_hosts=("Gate.example",))
)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8700", "[::1]:8700", "localhost", "x.localhost:1", "gate.example", "desk.example"],
)
def test_own_names_and_addresses_are_known(host: str) -> None:
    assert ORIGINS.is_known_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "gate.example.evil.example", "a@b@c", "[::1", "?"]
)
def test_other_hosts_are_not(host: str | None) -> None:
    assert not ORIGINS.is_known_host(host)


@pytest.mark.parametrize(
    ("origin", "is_known"),
    [
        ("https://desk.example", True),
        ("HTTPS://DESK.EXAMPLE", True),
        ("http://gate.example:8700", True),
        ("http://desk.example", False),
        ("https://desk.example.evil.example", False),
        ("null", False),
    ],
)
def test_sockets_are_opened_by_known_origins_alone(origin: str, is_known: bool) -> None:
    assert ORIGINS.is_known_origin(origin, "gate.example:8700") is is_known


def test_without_named_origins_answers_do_not_vary() -> None:
    assert Origins(Settings()).headers("https://desk.example") == ()
