"""Moving bands: the strikes of a chain round the money, `band:NIFTY-20260127:atm±10`.

The centre is the strike nearest to spot, and stays while spot is in that strike's half-interval,
widened by a margin, so that a spot between two strikes does not move the band to and fro. Clients
of a gateway who follow the same band at an interval have the same centre.
"""

import math
import re
from bisect import bisect_left
from functools import lru_cache

import msgspec

from api.live.channels import Kind, Lookup, Reader, Refused
from api.live.messages import State, chain_state
from api.live.names import chain_of, is_listed, nearest_chain

MARGIN = 0.1  # of the distance to the next strike, beyond the middle between the two
MOST_STRIKES = 200  # to each side; more is the whole chain
_WIDTH = re.compile(r"atm(?:±|[+ ]-)(\d{1,3})", re.ASCII)  # in a query + is a space


class _Money(msgspec.Struct):
    spot: float | None
    forward: float | None


_decode_money = msgspec.json.Decoder(_Money).decode


class Centre:
    """The strike at the money as a band sees it; remembers where it was."""

    def __init__(self) -> None:
        self.strike: float | None = None

    def follow(self, price: float | None, strikes: list[float]) -> float | None:
        """The centre among ascending strikes at a price; None before there is any price.

        Without a price it stays where it is.
        """
        if price is None or not math.isfinite(price) or not strikes:
            return self.strike
        if self.strike is None or not _holds(self.strike, price, strikes):
            self.strike = strikes[_nearest(strikes, price)]
        return self.strike


def window(strikes: list[float], centre: float, width: int) -> tuple[float, ...]:
    """The strikes up to `width` places from the centre, of ascending ones."""
    at = _nearest(strikes, centre)
    return tuple(strikes[max(0, at - width) : at + width + 1])


@lru_cache(maxsize=20_000)
def strike_of(contract: str) -> float:
    """The strike in a contract's symbol."""
    return float(contract.rsplit("-", 2)[1])


def _holds(centre: float, price: float, strikes: list[float]) -> bool:
    """Whether a price has not left the half-interval of a strike by the margin."""
    at = bisect_left(strikes, centre)
    if at == len(strikes) or strikes[at] != centre:
        return False  # it is listed no more
    reach = 0.5 + MARGIN
    below = centre - strikes[at - 1] if at else math.inf
    above = strikes[at + 1] - centre if at + 1 < len(strikes) else math.inf
    return centre - reach * below <= price <= centre + reach * above


def _nearest(strikes: list[float], price: float) -> int:
    """The place of the strike nearest to a price; of two the lower."""
    at = bisect_left(strikes, price)
    if at == 0:
        return 0
    if at == len(strikes):
        return at - 1
    return at if strikes[at] - price < price - strikes[at - 1] else at - 1


def band_reader(rest: str) -> Reader:
    """Makes states of a band of the texts of its chain; remembers the centre.

    None of a text that is not newer than those before it: it shall not move the centre.
    """
    width = _width(rest)
    centre = Centre()
    newest = (0, 0)

    def read(text: bytes) -> State | None:
        nonlocal newest
        whole = chain_state(text)
        instant = (whole.ts_ingest, whole.position.seq)
        if whole.header is None or instant <= newest:
            return None
        newest = instant
        money = _decode_money(whole.header)
        price = money.spot if money.spot is not None else money.forward
        strikes = sorted({strike_of(name) for name in whole.rows})
        strike = centre.follow(price, strikes)
        if strike is None or not strikes:
            return None
        inside = window(strikes, strike, width)
        rows = {name: row for name, row in whole.rows.items() if strike_of(name) in inside}
        header = b'{"centre":%s,' % msgspec.json.encode(strike) + whole.header[1:]
        return State(whole.position, whole.ts_ingest, header, rows, inside)

    return read


def _parse(rest: str) -> str:
    chain, _, width = rest.partition(":")
    match = _WIDTH.fullmatch(width)
    if match is None or not 0 <= int(match[1]) <= MOST_STRIKES:
        detail = f"want band:NIFTY-20260127:atm±n with n up to {MOST_STRIKES}"
        raise Refused("malformed_channel", detail)
    return f"{chain_of(chain)}:atm±{int(match[1])}"


def _width(rest: str) -> int:
    return int(rest.rpartition("±")[2])


def _symbol(rest: str) -> str:
    return rest.partition(":")[0]


def _is_known(rest: str, lookup: Lookup) -> bool:
    return is_listed(_symbol(rest), lookup)


async def _resolve(rest: str, lookup: Lookup) -> list[str]:
    chain, _, width = rest.partition(":")
    return [f"{found}:{width}" for found in await nearest_chain(chain, lookup)]


BAND = Kind("band", _parse, _symbol, band_reader, _is_known, resolve=_resolve, takes_fields=True)
