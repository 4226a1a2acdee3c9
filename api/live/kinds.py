"""The kinds of channels there are. A new kind is a `Kind` in a file of its own, and a line here."""

from collections.abc import Awaitable, Callable

from api.live.bands import BAND
from api.live.channels import Channel, Kind, Lookup, Reader, Refused
from api.live.made import CANDLE, HEALTH
from api.live.messages import chain_state, contract_reader, underlying_state
from api.live.metrics import ANALYTICS
from api.live.names import chain_of, is_listed, nearest_chain, symbol_of
from api.live.patterns import is_pattern, matches, parse_pattern


def parse_channel(name: str) -> Channel:
    """A channel by its name; `chain:NIFTY-nearest` keeps `nearest`. Raises Refused."""
    kind, _, rest = name.partition(":")
    found = KINDS.get(kind)
    if found is None:
        there = ", ".join(KINDS)
        raise Refused("unknown_channel", f"there are: {there}")
    return Channel(kind, found.parse(rest))


def _underlying(rest: str) -> str:
    return parse_pattern("underlying", rest) if is_pattern(rest) else symbol_of("underlying", rest)


def _chain(rest: str) -> str:
    return parse_pattern("chain", rest) if is_pattern(rest) else chain_of(rest)


def _contract(rest: str) -> str:
    return parse_pattern("contract", rest) if is_pattern(rest) else symbol_of("contract", rest)


def _resolving(kind: str) -> Callable[[str, Lookup], Awaitable[list[str]]]:
    async def resolve(rest: str, lookup: Lookup) -> list[str]:
        if is_pattern(rest):
            return await matches(kind, rest, lookup)
        return await nearest_chain(rest, lookup) if kind == "chain" else [rest]

    return resolve


def _same(rest: str) -> str:
    return rest


def _chain_reader(rest: str) -> Reader:
    return chain_state


def _underlying_reader(rest: str) -> Reader:
    return underlying_state


CHAIN = Kind(
    "chain",
    _chain,
    _same,
    _chain_reader,
    is_listed,
    resolve=_resolving("chain"),
    takes_fields=True,
    resumes=True,
)
CONTRACT = Kind(
    "contract",
    _contract,
    _same,
    contract_reader,
    is_listed,
    resolve=_resolving("contract"),
    takes_fields=True,
    resumes=True,
)
UNDERLYING = Kind(
    "underlying",
    _underlying,
    _same,
    _underlying_reader,
    is_listed,
    resolve=_resolving("underlying"),
    resumes=True,
)

_ALL = (UNDERLYING, CHAIN, CONTRACT, BAND, ANALYTICS, CANDLE, HEALTH)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
