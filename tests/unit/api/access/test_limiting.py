"""Whom a request is counted against, and what the answer says of it."""

from typing import Any

import pytest

from api.access.limiting import Limiter, headers_of, too_many
from pipeline.config import Settings
from pipeline.limits import Bucket, Rate, Standing, Verdict
from pipeline.runtime import connect
from pipeline.topics import Topics

TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1")


def limiter(*proxies: str, **changes: Any) -> Limiter:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", gateway_proxies=proxies, **changes)
    return Limiter(settings, connect(settings), Topics())


def scope(client: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", text.encode()) for text in forwarded]
    return {"client": (client, 1) if client else None, "headers": headers}


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        pytest.param("203.0.113.7", "203.0.113.7", id="IPv4"),
        pytest.param("2001:db8:1:2:3::4", "2001:db8:1:2::/64", id="IPv6"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.7", id="IPv4 in IPv6"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="with a zone"),
        pytest.param(None, "unknown", id="Unix socket"),
    ],
)
def test_socket_address_is_counted(client: str | None, counted: str) -> None:
    assert limiter().address_of(scope(client, "198.51.100.1")) == counted


@pytest.mark.parametrize(
    ("forwarded", "counted"),
    [
        pytest.param(["198.51.100.1"], "198.51.100.1", id="one"),
        pytest.param(["198.51.100.1, 203.0.113.9"], "203.0.113.9", id="what the client wrote"),
        pytest.param(["198.51.100.1, 203.0.113.9, 10.1.1.1"], "203.0.113.9", id="two proxies"),
        pytest.param(["198.51.100.1", "203.0.113.9"], "203.0.113.9", id="two headers"),
        pytest.param(["203.0.113.9:4711"], "203.0.113.9", id="with a port"),
        pytest.param(["[2001:db8:5::1]:4711"], "2001:db8:5::/64", id="IPv6 with a port"),
        pytest.param(["10.1.1.1, 10.1.1.2"], "10.1.1.1", id="proxies alone"),
        pytest.param(["nonsense"], "127.0.0.1", id="nonsense"),
        pytest.param(["nonsense, 10.1.1.1"], "10.1.1.1", id="nonsense before a proxy"),
        pytest.param([""], "127.0.0.1", id="empty"),
        pytest.param([], "127.0.0.1", id="none"),
    ],
)
def test_trusted_proxy_is_believed_from_the_right(forwarded: list[str], counted: str) -> None:
    assert limiter(*TRUSTED).address_of(scope("127.0.0.1", *forwarded)) == counted


def test_proxy_that_is_not_trusted_is_not_believed() -> None:
    assert limiter(*TRUSTED).address_of(scope("192.0.2.1", "198.51.100.1")) == "192.0.2.1"


def test_headers_tell_quota_window_rest_and_reset() -> None:
    standings = (
        Standing(Bucket("subject", "x", Rate(500, 2_000)), 1_999, 0.002),
        Standing(Bucket("address", "y", Rate(0.5, 100)), 0, 200.0),
    )
    assert dict(headers_of(standings)) == {
        b"ratelimit-policy": b'"subject";q=2000;w=4, "address";q=100;w=200',
        b"ratelimit": b'"subject";r=1999;t=1, "address";r=0;t=200',
    }
    assert headers_of(()) == ()


@pytest.mark.parametrize(("wait_s", "told"), [(0.002, "1"), (1.0, "1"), (1.2, "2"), (61.0, "61")])
def test_refusal_says_when_to_come_back(wait_s: float, told: str) -> None:
    refusal = too_many(Verdict(wait_s, ()))
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, told)


async def test_subjects_do_not_stand_in_key_names() -> None:
    (subject, _address) = limiter()._buckets("somebody@example.com", "192.0.2.1")
    assert "somebody" not in subject.name
    assert limiter(gateway_rate=0.0)._buckets("x", "192.0.2.1")[0].kind == "address"
    assert limiter(gateway_rate=0.0, gateway_address_rate=0.0)._buckets("x", "192.0.2.1") == ()
