"""One instrument at an instant, as the quote endpoints show it: an index or an option."""

from datetime import date
from typing import NamedTuple

from pipeline.clock import IST, to_datetime
from workers.simulator import exchange
from workers.simulator.exchange import INDEX_SEGMENT, Underlying
from workers.simulator.market import ChainColumns, Market
from workers.simulator.trading import TICK

_LEVELS = 5
_LEAST_LIMIT = 20.0  # rupees above the previous close that a price may reach at least
_LIMIT_SHARE = 0.1  # of the spot: how far an option's price may move in a day


class DepthLevel(NamedTuple):
    """One price of the order book, units and orders waiting there."""

    quantity: int
    orders: int
    price: float


class Instrument(NamedTuple):
    """Everything the quote endpoint says; rupees and units, zeros for nothing."""

    last: float
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    previous_close: float = 0.0
    average: float = 0.0
    bids: tuple[DepthLevel, ...] = (DepthLevel(0, 0, 0.0),) * _LEVELS
    asks: tuple[DepthLevel, ...] = (DepthLevel(0, 0, 0.0),) * _LEVELS
    buy_quantity: int = 0
    sell_quantity: int = 0
    last_quantity: int = 0
    last_trade_time: str = ""
    lower_limit: float = 0.0
    upper_limit: float = 0.0
    open_interest: int = 0
    open_interest_high: int = 0
    open_interest_low: int = 0
    volume: int = 0

    @property
    def net_change(self) -> float:
        """Rupees since the previous close."""
        return round(self.last - self.previous_close, 2) if self.last else 0.0


def look_up(
    market: Market, wanted: dict[str, list[int]], ts_ns: int
) -> dict[str, dict[int, Instrument]]:
    """The known instruments among those wanted, by segment; each chain is made once."""
    chains: dict[tuple[Underlying, date], ChainColumns] = {}
    found: dict[str, dict[int, Instrument]] = {}
    for segment, ids in wanted.items():
        found[segment] = {}
        for security_id in ids:
            if segment == INDEX_SEGMENT:
                underlying = exchange.BY_REQUEST.get((security_id, segment))
                if underlying is not None:
                    found[segment][security_id] = _index(market, underlying, ts_ns)
                continue
            chain = exchange.chain_of(segment, security_id, ts_ns)
            if chain is None:
                continue
            if chain not in chains:
                chains[chain] = market.chain(*chain, ts_ns)
            option = _option(market, chain, chains[chain], security_id, ts_ns)
            if option is not None:
                found[segment][security_id] = option
    return found


def _index(market: Market, underlying: Underlying, ts_ns: int) -> Instrument:
    day = market.index_day(underlying, ts_ns)
    return Instrument(
        last=day.last,
        open=day.open,
        high=day.high,
        low=day.low,
        previous_close=day.previous_close,
        last_trade_time=_ist_text(ts_ns),
    )


def _option(
    market: Market,
    chain: tuple[Underlying, date],
    columns: ChainColumns,
    security_id: int,
    ts_ns: int,
) -> Instrument | None:
    leg = columns.leg_of(security_id)
    if leg is None:
        return None
    day = market.leg_day(*chain, leg, ts_ns)
    lot = exchange.lot(*chain)
    previous_close = float(columns.previous_close[leg])
    reach = max(_LIMIT_SHARE * columns.spot, _LEAST_LIMIT) if previous_close else _LEAST_LIMIT
    bids = _depth(float(columns.bid[leg]), int(columns.bid_quantity[leg]), lot, -TICK)
    asks = _depth(float(columns.ask[leg]), int(columns.ask_quantity[leg]), lot, TICK)
    open_interest = int(columns.open_interest[leg])
    return Instrument(
        last=float(columns.last[leg]),
        open=day.open,
        high=day.high,
        low=day.low,
        previous_close=previous_close,
        average=float(columns.average[leg]),
        bids=bids,
        asks=asks,
        buy_quantity=3 * sum(level.quantity for level in bids),
        sell_quantity=3 * sum(level.quantity for level in asks),
        last_quantity=day.last_quantity,
        last_trade_time=_ist_text(day.last_trade_ns) if day.last_trade_ns is not None else "",
        lower_limit=max(round(previous_close - reach, 2), TICK),
        upper_limit=round(previous_close + reach + TICK, 2),
        open_interest=open_interest,
        open_interest_high=open_interest,
        open_interest_low=min(day.first_open_interest, open_interest),
        volume=int(columns.volume[leg]),
    )


def _depth(price: float, quantity: int, lot: int, step: float) -> tuple[DepthLevel, ...]:
    """Five levels behind the best one, growing away from it; empty where there is no price."""
    levels = []
    for n in range(_LEVELS):
        at = round(price + n * step, 2)
        if price <= 0.0 or at < TICK:
            levels.append(DepthLevel(0, 0, 0.0))
        else:
            lots = max(quantity // lot, 1) * (n + 2) // 2
            levels.append(DepthLevel(lots * lot, 1 + lots // 4, at))
    return tuple(levels)


def _ist_text(ts_ns: int) -> str:
    return to_datetime(ts_ns).astimezone(IST).strftime("%d/%m/%Y %H:%M:%S")
