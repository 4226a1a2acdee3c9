"""What stands after the colon of a channel's name where that is a symbol: read, known, nearest."""

from api.live.channels import Lookup, Refused
from pipeline.errors import DecodeError
from pipeline.models import ChainId, ContractId, parse_symbol

NEAREST = "-nearest"


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


def chain_of(text: str) -> str:
    """The symbol of a chain, or `NIFTY-nearest` as it is. Raises Refused."""
    if text.endswith(NEAREST):
        symbol_of("underlying", text.removesuffix(NEAREST))
        return text
    return symbol_of("chain", text)


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
    if not rest.endswith(NEAREST):
        return [rest]
    underlying = rest.removesuffix(NEAREST)
    symbol = lookup.catalog.nearest(underlying, lookup.now_ns)
    if symbol is None:
        raise Refused("unknown_symbol", f"no chain of {underlying[:40]!r} is known")
    return [symbol]
