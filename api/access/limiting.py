"""How often: what a request costs, whom it is counted against, and what the answer says of it.

Counted are units, against the subject of the token and against the address it came from. Never
looks into a token; knows a subject by a digest alone.
"""

import hashlib
import ipaddress
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from api.access.auth import scopes_instead
from api.errors import ApiError
from pipeline.config import Settings
from pipeline.limits import Allowance, Bucket, Rate, Sessions, Standing, Verdict
from pipeline.runtime import Redis
from pipeline.streams.links import Link
from pipeline.topics import Topics

FAILURE_COST = 20  # guessing tokens is twenty times as dear as using one
PAST_COST = 5  # where a parameter turns a question for the newest to what is stored
CONNECT_COST = 5  # a handshake costs the gateway about that many small requests
_ANSWERED = 1  # an answer that no route had a hand in: 404, 405, a preflight
_IPV6_PREFIX = 64  # what one customer is given; within it addresses are free

Headers = tuple[tuple[bytes, bytes], ...]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Limiter:
    """The limits of one gateway process, shared with every other by Redis."""

    def __init__(self, settings: Settings, redis: Redis, topic_map: Topics) -> None:
        link = Link(settings, topic_map.client_limit("", ""), "gateway-limits")
        self.allowance = Allowance(link, topic_map)
        self.sessions = Sessions(redis, topic_map, settings.gateway_sessions)
        self._subject_rate = _rate(settings.gateway_rate, settings.gateway_burst)
        self._address_rate = _rate(settings.gateway_address_rate, settings.gateway_address_burst)
        self._proxies = tuple(ipaddress.ip_network(text) for text in settings.gateway_proxies)

    def address_of(self, scope: Any) -> str:
        """The address that a request is counted against: the socket's, or what a trusted proxy
        says; of IPv6 the network."""
        client = scope.get("client")
        address = client[0] if client else ""
        if self._proxies and _is_within(address, self._proxies):
            address = self._forwarded(scope["headers"], address)
        return _counted_address(address)

    def is_blocked(self, address: str) -> bool:
        """Whether an address is known to have nothing left; asks nobody."""
        return any(self.allowance.empty_s(bucket) > 0 for bucket in self._buckets(None, address))

    async def take(self, subject: str | None, address: str, cost: float) -> Verdict:
        """Whether a request may go ahead; it is counted if it may."""
        buckets = self._buckets(subject, address)
        return await self.allowance.take(buckets, cost) if buckets else Verdict(0.0, ())

    async def note(self, address: str) -> Verdict:
        """Count an answer that was given already."""
        buckets = self._buckets(None, address)
        if not buckets:
            return Verdict(0.0, ())
        return await self.allowance.take(buckets, _ANSWERED, forced=True)

    async def connect(self, address: str) -> None:
        """Count a socket's handshake. Raises ApiError 429."""
        verdict = await self.take(None, address, CONNECT_COST)
        if verdict.wait_s:
            raise too_many(verdict)

    def fail(self, address: str) -> None:
        """Count a token, key or ticket that did not hold against where it came from."""
        buckets = self._buckets(None, address)
        if buckets:
            self.allowance.charge(buckets, FAILURE_COST)

    async def enter(self, subject: str) -> bool:
        """Whether a subject may have one socket session more; it is counted until it leaves."""
        return await self.sessions.enter(_digest(subject))

    def leave(self, subject: str) -> None:
        """A session that had entered is over."""
        self.sessions.leave(_digest(subject))

    async def close(self) -> None:
        """Count what waits, and take back what this process said of its sessions."""
        await self.allowance.close()
        await self.sessions.close()

    def _buckets(self, subject: str | None, address: str) -> tuple[Bucket, ...]:
        found = []
        if subject is not None and self._subject_rate is not None:
            found.append(Bucket("subject", _digest(subject), self._subject_rate))
        if self._address_rate is not None:
            found.append(Bucket("address", address, self._address_rate))
        return tuple(found)

    def _forwarded(self, headers: Iterable[tuple[bytes, bytes]], address: str) -> str:
        """From the right, the first address that is no proxy of ours; the rest anyone may write."""
        said = [value for name, value in headers if name == b"x-forwarded-for"]
        for text in reversed(b",".join(said).decode("latin-1").split(",")):
            known = _without_port(text.strip())
            if known is None:
                return address
            address = known
            if not _is_within(address, self._proxies):
                return address
        return address


async def limit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Counts a request by its route's `cost`, against who was admitted. Raises ApiError 429."""
    state = connection.scope["state"]
    if handler.opt.get("is_unlimited"):
        state["limits"] = ()
        return
    principal = state.get("principal")
    limiter: Limiter = connection.app.state.gateway.limiter
    subject = principal.subject if principal is not None else None
    cost = handler.opt.get("cost", 1)
    if scopes_instead(connection, handler):
        cost = max(cost, PAST_COST)
    verdict = await limiter.take(subject, state["address"], cost)
    state["limits"] = headers_of(verdict.standings)
    if verdict.wait_s:
        raise too_many(verdict)


def too_many(verdict: Verdict) -> ApiError:
    """429, with when to come back."""
    seconds = max(1, math.ceil(verdict.wait_s))
    detail = f"too many requests; the next is due in {verdict.wait_s:.3g} s"
    return ApiError(429, "too_many_requests", detail, headers={"Retry-After": str(seconds)})


def headers_of(standings: Iterable[Standing]) -> Headers:
    """`RateLimit-Policy` and `RateLimit`, each with every bucket that was asked; none of none."""
    policies, states = [], []
    for standing in standings:
        bucket = standing.bucket
        policies.append(_policy(bucket.kind, bucket.rate))
        states.append(f'"{bucket.kind}";r={standing.remaining};t={math.ceil(standing.full_s)}')
    if not states:
        return ()
    return (
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(states).encode()),
    )


@lru_cache(maxsize=8)
def _policy(kind: str, rate: Rate) -> str:
    return f'"{kind}";q={rate.burst};w={max(1, round(rate.burst / rate.units_per_s))}'


def _rate(units_per_s: float, burst: int) -> Rate | None:
    return Rate(units_per_s, burst) if units_per_s else None


@lru_cache(maxsize=4_096)
def _digest(subject: str) -> str:
    return hashlib.blake2s(subject.encode(), digest_size=12).hexdigest()


@lru_cache(maxsize=4_096)
def _counted_address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "unknown"  # a Unix socket tells none
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)


@lru_cache(maxsize=4_096)
def _is_within(text: str, networks: tuple[_Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _without_port(text: str) -> str | None:
    """The address in an element of X-Forwarded-For; None where it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
