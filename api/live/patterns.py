"""Patterns of channels, `chain:NIFTY-*`: which symbols they match, now and as more appear.

A star stands for any text. Contracts are matched within one chain, which the pattern names whole.
"""

import asyncio
import re
import weakref
from typing import Any, Protocol

from api.live.channels import Lookup, Refused
from api.live.messages import chain_state
from api.live.names import chain_of, is_listed, nearest_chain
from pipeline.errors import StockifyError
from pipeline.latest import Catalog, Latest

STAR = "*"
LOOK_S = 2.0  # how long a new symbol goes unseen; a chain is listed days before it is polled
_PATTERN = re.compile(r"[A-Za-z0-9&.*-]{1,80}", re.ASCII)


def is_pattern(name: str) -> bool:
    """Whether the name of a channel, or what stands after its colon, is a pattern."""
    return STAR in name


def parse_pattern(kind: str, rest: str) -> str:
    """A pattern of a kind of channel, as it is. Raises Refused."""
    if not _PATTERN.fullmatch(rest):
        raise Refused("malformed_channel", "not a pattern of symbols")
    if kind == "contract":
        chain = _chain_part(rest)
        if is_pattern(chain):
            detail = "a pattern of contracts names its chain: contract:NIFTY-20260127-*-CE"
            raise Refused("malformed_channel", detail)
        chain_of(chain)
    return rest


async def matches(kind: str, rest: str, lookup: Lookup) -> list[str]:
    """The symbols that a pattern matches now, in order. Raises Refused, BusUnavailable."""
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
    regex = re.compile(".*".join(re.escape(part) for part in rest.split(STAR)))
    return sorted({symbol for symbol in known if regex.fullmatch(symbol)})


class Follower(Protocol):
    """Whoever subscribed to patterns."""

    async def look_again(self) -> None:
        """Subscribe to what the patterns match by now."""


class Patterns:
    """Tells those who follow patterns when there are new symbols; `run` must run for it."""

    def __init__(self, latest: Latest, log: Any) -> None:
        self._latest = latest
        self._log = log
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._seen: Any = None

    def follow(self, follower: Follower) -> None:
        """Tell this one too, as long as it is there."""
        self._followers.add(follower)

    def dismiss(self, follower: Follower) -> None:
        """Tell it no more."""
        self._followers.discard(follower)

    async def run(self) -> None:
        """Look for new symbols until cancelled, while anybody follows a pattern."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._followers:
                self._seen = None
                continue
            try:
                seen = _all_of(await self._latest.catalog())
                if seen == self._seen:
                    continue
                for follower in list(self._followers):
                    await follower.look_again()
                self._seen = seen
            except StockifyError as error:
                self._log.warning("patterns_unread", error=str(error))


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
        return list(chain_state(text).rows)
    if not is_listed(chain, lookup):
        raise Refused("unknown_symbol", "nothing is known of its chain")
    return []


def _chain_part(rest: str) -> str:
    """`NIFTY-20260127` of `NIFTY-20260127-*-CE`."""
    return "-".join(rest.split("-")[:2])
