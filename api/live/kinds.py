"""The kinds of channels there are. A new kind is a `Kind` in a file of its own, and a line here."""

from api.live.channels import Channel, Kind, Lookup, Reader, Refused
from api.live.messages import chain_state, contract_state, underlying_state
from pipeline.errors import DecodeError
from pipeline.models import ChainId, ContractId, parse_symbol

_NEAREST = "-nearest"


def parse_channel(name: str) -> Channel:
    """A channel by its name; `chain:NIFTY-nearest` keeps `nearest`. Raises Refused."""
    kind, _, rest = name.partition(":")
    found = KINDS.get(kind)
    if found is None:
        there = ", ".join(f"{each}:" for each in KINDS)
        raise Refused("unknown_channel", f"there are: {there}")
    return Channel(kind, found.parse(rest))


def symbol_of(kind: str, text: str) -> str:
    """The text, where it is the symbol of such a thing. Raises Refused."""
    try:
        parts = parse_symbol(text)
    except DecodeError as error:
        raise Refused("malformed_channel", str(error)[:200]) from None
    actual = {ContractId: "contract", ChainId: "chain"}.get(type(parts), "underlying")
    if kind != actual:
        raise Refused("malformed_channel", f"{text[:80]!r} is no {kind}")
    return text


def is_listed(symbol: str, lookup: Lookup) -> bool:
    """Whether a symbol that has no value yet will have one."""
    parts = parse_symbol(symbol)
    if isinstance(parts, str):
        return parts in lookup.underlyings or parts in lookup.catalog.underlyings()
    card = lookup.catalog.listed.get(parts.underlying)
    is_there = card is not None and parts.expiry.isoformat() in card.expiries
    return isinstance(parts, ChainId) and is_there


async def nearest_chain(rest: str, lookup: Lookup) -> list[str]:
    """The chain that `NIFTY-nearest` means now; any other as it is. Raises Refused."""
    if not rest.endswith(_NEAREST):
        return [rest]
    underlying = rest.removesuffix(_NEAREST)
    symbol = lookup.catalog.nearest(underlying, lookup.now_ns)
    if symbol is None:
        raise Refused("unknown_symbol", f"no chain of {underlying[:40]!r} is known")
    return [symbol]


def _chain(rest: str) -> str:
    return rest if rest.endswith(_NEAREST) else symbol_of("chain", rest)


def _underlying(rest: str) -> str:
    return symbol_of("underlying", rest)


def _contract(rest: str) -> str:
    return symbol_of("contract", rest)


def _same(rest: str) -> str:
    return rest


def _chain_reader(rest: str) -> Reader:
    return chain_state


def _underlying_reader(rest: str) -> Reader:
    return underlying_state


def _contract_reader(rest: str) -> Reader:
    return contract_state


CHAIN = Kind(
    "chain",
    _chain,
    _same,
    _chain_reader,
    is_listed,
    resolve=nearest_chain,
    takes_fields=True,
    resumes=True,
)
CONTRACT = Kind(
    "contract", _contract, _same, _contract_reader, is_listed, takes_fields=True, resumes=True
)
UNDERLYING = Kind("underlying", _underlying, _same, _underlying_reader, is_listed, resumes=True)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (UNDERLYING, CHAIN, CONTRACT)}
