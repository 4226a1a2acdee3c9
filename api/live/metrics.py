"""What a chain says as a whole, `analytics:NIFTY-20260127`: one row of its aggregates."""

import msgspec

from api.live.channels import Kind, Lookup, Reader, Refused
from api.live.messages import State
from api.live.names import NEAREST, chain_of, is_listed, nearest_chain, symbol_of
from pipeline.errors import DecodeError
from pipeline.frames import Position
from pipeline.models import ChainAggregates, ChainId, parse_symbol


class _Header(msgspec.Struct):
    chain: str
    expiry: str
    ts_ingest: int
    spot: float | None
    forward: float | None
    years: float
    aggregates: ChainAggregates


class _Chain(msgspec.Struct):
    position: Position
    header: _Header


_decode = msgspec.json.Decoder(_Chain).decode
_encode = msgspec.json.Encoder().encode


def analytics_state(text: bytes) -> State:
    """The aggregates in a chain's latest text. Raises msgspec.MsgspecError."""
    chain = _decode(text)
    header = chain.header
    row = {
        "symbol": header.chain,
        "expiry": header.expiry,
        "spot": header.spot,
        "forward": header.forward,
        "years": header.years,
        **msgspec.structs.asdict(header.aggregates),
    }
    return State(chain.position, header.ts_ingest, None, {header.chain: _encode(row)})


def _parse(rest: str) -> str:
    """An underlying alone means its chain that settles next. Raises Refused."""
    if rest.endswith(NEAREST):
        return chain_of(rest)
    try:
        is_chain = isinstance(parse_symbol(rest), ChainId)
    except DecodeError as error:
        raise Refused("malformed_channel", str(error)[:200]) from None
    return rest if is_chain else symbol_of("underlying", rest) + NEAREST


def _symbol(rest: str) -> str:
    return rest


def _reader(rest: str) -> Reader:
    return analytics_state


def _is_known(rest: str, lookup: Lookup) -> bool:
    return is_listed(rest, lookup)


ANALYTICS = Kind(
    "analytics", _parse, _symbol, _reader, _is_known, resolve=nearest_chain, resumes=True
)
