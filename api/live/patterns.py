"""Patterns of channels, `chain:NIFTY-*`: which symbols they match, now and as more appear.

A star stands for any text. Contracts are matched within one chain, which the pattern names whole.
"""

import asyncio
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

import msgspec

from api.live.channels import Lookup, Refused
from api.live.messages import chain_state
from api.live.names import NEAREST, chain_of, is_listed, nearest_chain
from pipeline.errors import DecodeError, StockifyError
from pipeline.latest import Catalog

STAR = "*"
LOOK_S = 2.0  # how long a new symbol goes unseen; a chain is listed days before it is polled
SWEEP_S = 60.0  # how long a contract does that takes another's place in its chain
MOST_PATTERNS = 20  # of a session: each is matched with every symbol whenever there is a new one
AT_ONCE = 16  # followers that look again at the same time
_PATTERN = re.compile(r"[A-Za-z0-9&._*-]{1,80}", re.ASCII)
_OF_CONTRACTS = re.compile(r"([^*]+?-(?:\d{8}|nearest))-.+", re.ASCII)


def is_pattern(name: str) -> bool:
    """Whether the name of a channel, or what stands after its colon, is a pattern."""
    return STAR in name


def parse_pattern(kind: str, rest: str) -> str:
    """A pattern of a kind of channel, as it is. Raises Refused."""
    if not _PATTERN.fullmatch(rest):
        raise Refused("malformed_channel", "not a pattern of symbols")
    if kind == "contract":
        chain_of(_chain_part(rest))
    return rest


async def matches(kind: str, rest: str, lookup: Lookup) -> list[str]:
    """The symbols that a pattern matches now, in order.

    Raises Refused, BusUnavailable and DecodeError.
    """
    catalog = lookup.catalog
    if kind == "underlying":
        known = [*lookup.underlyings, *catalog.underlyings()]
    elif kind == "chain":
        known = [*catalog.chains, *_listed(catalog)]
    else:
        named = _chain_part(rest)
        (chain,) = await nearest_chain(named, lookup)
        rest = chain + rest.removeprefix(named)
        known = await _contracts(chain, lookup)
    return sorted({symbol for symbol in known if fits(rest, symbol)})


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern stands for, in time that its length bounds."""
    first, *middle = pattern.split(STAR)
    if not middle:
        return text == pattern
    last = middle.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first):
        return False
    if not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def pinned(pattern: str, brought: Collection[str]) -> str:
    """A pattern with the chain that its `nearest` meant when it brought these channels."""
    kind, _, rest = pattern.partition(":")
    named = _chain_part(rest) if kind == "contract" else ""
    if not named.endswith(NEAREST) or not brought:
        return pattern
    chain = _chain_part(next(iter(brought)).partition(":")[2])
    return f"{kind}:{chain}{rest.removeprefix(named)}"


class Follower(Protocol):
    """Whoever subscribed to patterns."""

    async def look_again(self) -> None:
        """Subscribe to what the patterns match by now."""


class Patterns:
    """Tells those who follow patterns when there are new symbols; `run` must run for it."""

    def __init__(self, catalog: Callable[[], Awaitable[Catalog]], log: Any) -> None:
        self._catalog = catalog
        self._log = log
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._behind: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._seen: Any = None
        self._swept_at = 0.0

    def follow(self, follower: Follower) -> None:
        """Tell this one too, and once soon: it may know less than what was seen last."""
        self._followers.add(follower)
        self._behind.add(follower)

    def dismiss(self, follower: Follower) -> None:
        """Tell it no more."""
        self._followers.discard(follower)
        self._behind.discard(follower)

    async def run(self) -> None:
        """Look for new symbols until cancelled, while anybody follows a pattern."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Have everybody look again who may not know of all symbols."""
        if not self._followers:
            return
        try:
            seen = _all_of(await self._catalog())
        except StockifyError as error:
            self._log.warning("patterns_unread", error=str(error))
            return
        now = time.monotonic()
        if seen != self._seen or now - self._swept_at >= SWEEP_S:
            self._seen, self._swept_at = seen, now
            self._behind.update(self._followers)
        behind = list(self._behind)
        for at in range(0, len(behind), AT_ONCE):
            await asyncio.gather(*map(self._show, behind[at : at + AT_ONCE]))

    async def _show(self, follower: Follower) -> None:
        """Have one look again; where it cannot, it stays behind, and the others do not."""
        self._behind.discard(follower)
        try:
            await follower.look_again()
        except StockifyError as error:
            self._log.warning("pattern_unfollowed", error=str(error))
        except Exception as error:
            self._log.error("pattern_failed", exc_info=error)
        else:
            return
        if follower in self._followers:
            self._behind.add(follower)


def _all_of(catalog: Catalog) -> Any:
    """What changes when a symbol appears; a chain's contracts are told by their number."""
    counts = {symbol: card.n for symbol, card in catalog.chains.items()}
    return counts, {name: tuple(card.expiries) for name, card in catalog.listed.items()}


def _listed(catalog: Catalog) -> list[str]:
    return [
        f"{name}-{expiry.replace('-', '')}"
        for name, card in catalog.listed.items()
        for expiry in card.expiries
    ]


async def _contracts(chain: str, lookup: Lookup) -> list[str]:
    (text,) = await lookup.latest.texts([chain])
    if text is not None:
        try:
            return list(chain_state(text).rows)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"latest value of {chain}: {error}") from None
    if not is_listed(chain, lookup):
        raise Refused("unknown_symbol", "nothing is known of its chain")
    return []


def _chain_part(rest: str) -> str:
    """`NIFTY-20260127` of `NIFTY-20260127-*-CE`. Raises Refused."""
    found = _OF_CONTRACTS.fullmatch(rest)
    if found is None:
        detail = "a pattern of contracts names its chain: contract:NIFTY-20260127-*-CE"
        raise Refused("malformed_channel", detail)
    return found[1]
