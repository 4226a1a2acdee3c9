"""Dhan's chain bodies as our models: types, units and zeros put right. Pure; it opens nothing.

A body carries neither its time nor its expiry; the request context kept beside it does. Zero means
"nothing" for a price, a volatility and a Greek, and becomes absent; open interest and volume of
zero are values.
"""

import contextlib
import math
import threading
from operator import itemgetter

import msgspec
import numpy as np

from pipeline.errors import DecodeError
from pipeline.kernels import provided, records
from pipeline.models import ChainSnapshot, Column, RequestContext

PRICE_TICK = 0.05  # rupees; the spot arrives as a float32 widened to double
LOT_WITNESSES = 20  # quantities needed before their common divisor is believed to be the lot


class _Greeks(msgspec.Struct, gc=False):
    delta: float | None = None
    theta: float | None = None
    gamma: float | None = None
    vega: float | None = None


# Fields stand as the provider prints them, which is the order a decoder finds fastest.
class _Leg(msgspec.Struct, gc=False):
    average_price: float | None = None
    greeks: _Greeks | None = None
    implied_volatility: float | None = None
    last_price: float | None = None
    oi: float | None = None
    previous_close_price: float | None = None
    previous_oi: float | None = None
    security_id: float | None = None
    top_ask_price: float | None = None
    top_ask_quantity: float | None = None
    top_bid_price: float | None = None
    top_bid_quantity: float | None = None
    volume: float | None = None


class _Sides(msgspec.Struct, gc=False):
    ce: _Leg | None = None
    pe: _Leg | None = None


class _Chain(msgspec.Struct, gc=False):
    oc: dict[float, _Sides]
    last_price: float | None = None


class _ChainAnswer(msgspec.Struct, gc=False):
    data: _Chain
    status: str = ""


class _Strikes(msgspec.Struct, gc=False):
    oc: dict[str, msgspec.Raw]


class _StrikesAnswer(msgspec.Struct, gc=False):
    """A chain of which only the strikes are read, as they are printed."""

    data: _Strikes


chain_decoder = msgspec.json.Decoder(_ChainAnswer)  # public: what it costs alone is measured
_decode_strikes = msgspec.json.Decoder(_StrikesAnswer)
_pack = msgspec.msgpack.Encoder()


class _Scratch(threading.local):
    """Where a thread packs its chains: memory that is still in the cache from the last one."""

    def __init__(self) -> None:
        self.packed = bytearray()


_scratch = _Scratch()

# Which column a field of a leg becomes. In this order they are lines of a matrix, and
# `provided.clean` knows of each group the first.
_PRICES = {
    "last": "last_price",
    "bid": "top_bid_price",
    "ask": "top_ask_price",
    "average": "average_price",
    "previous_close": "previous_close_price",
}
_QUANTITIES = {
    "security_id": "security_id",
    "bid_size": "top_bid_quantity",
    "ask_size": "top_ask_quantity",
    "volume": "volume",
    "open_interest": "oi",
    "previous_open_interest": "previous_oi",
}
_COMPUTED = {
    "iv_provider": "implied_volatility",
    "delta_provider": "delta",
    "gamma_provider": "gamma",
    "theta_provider": "theta",
    "vega_provider": "vega",
}
_NAMES = ("strike", "kind", *_PRICES, *_QUANTITIES, *_COMPUTED)
_FIELDS = (*_PRICES.values(), *_QUANTITIES.values(), *_COMPUTED.values(), "greeks", "ce")


def _leg_layout() -> records.Layout:
    """A leg as it is packed, under its key `ce` or `pe`."""
    of_greeks = [(name, 0) for name in _Greeks.__struct_fields__]
    of_leg: list[tuple[str, int]] = []
    for name in _Leg.__struct_fields__:
        of_leg += [(name, len(of_greeks)), *of_greeks] if name == "greeks" else [(name, 0)]
    fields = [("ce", len(of_leg)), *of_leg]
    return records.layout([(name, inside, _FIELDS.index(name)) for name, inside in fields])


_LAYOUT = _leg_layout()


def map_chain(body: bytes, context: RequestContext, ts_ingest: int) -> ChainSnapshot:
    """A chain body as a snapshot. Raises DecodeError naming what is wrong with it."""
    if context.expiry is None:
        raise DecodeError("a chain without an expiry in its request context")
    try:
        chain = chain_decoder.decode(body).data
    except msgspec.MsgspecError as error:
        raise _refusal(body, error) from error
    mapped = _columns(chain.oc) or _columns(dict(sorted(chain.oc.items(), key=itemgetter(0))))
    if mapped is None:
        raise _refusal(body, "a strike is no price")
    legs, lot = mapped
    return ChainSnapshot(
        underlying=context.underlying,
        expiry=context.expiry,
        provider=context.provider,
        ts_event=None,
        ts_ingest=ts_ingest,
        spot=_spot(chain.last_price),
        lot=context.lot or lot,
        legs=legs,
    )


def warmup() -> None:
    """Compile, or load from the cache, every kernel that `map_chain` calls."""
    _columns({1.0: _Sides()})


def _refusal(body: bytes, error: object) -> DecodeError:
    """Why a body is no chain: a strike that is none, by its own text, or else the error."""
    with contextlib.suppress(msgspec.MsgspecError):
        for text in _decode_strikes.decode(body).data.oc:
            try:
                strike = float(text)
            except ValueError:
                return DecodeError(f"strike {text[:40]!r} is no number")
            if not 0.0 < strike < math.inf:
                return DecodeError(f"strike {text[:40]!r} is no price")
    return DecodeError(f"not an option chain: {error}")


def _spot(value: float | None) -> float | None:
    if value is None or not 0 < value < math.inf:
        return None
    return round(round(value / PRICE_TICK) * PRICE_TICK, 2)


def _columns(oc: dict[float, _Sides]) -> tuple[dict[str, Column], int | None] | None:
    """The columns of a chain and its lot; None where its strikes are no prices, ascending."""
    _pack.encode_into(oc, _scratch.packed)
    strikes, numbers = records.read(_scratch.packed, _LAYOUT, len(oc), each=2)
    room = numbers.shape[1]
    strike, kind = np.empty(room), np.empty(room, np.uint8)
    prices = np.empty((len(_PRICES), room))
    quantities = np.empty((len(_QUANTITIES), room), np.int64)
    computed = np.empty((len(_COMPUTED), room), np.float32)
    legs, lot, witnesses = provided.clean(
        numbers, strikes, strike, kind, prices, quantities, computed
    )
    if legs < 0:
        return None
    columns = dict(zip(_NAMES, (strike, kind, *prices, *quantities, *computed), strict=True))
    if legs < room:
        columns = {name: column[:legs] for name, column in columns.items()}
    return columns, lot if lot > 1 and witnesses >= LOT_WITNESSES else None
