"""Wrong answers on demand, to see how a client bears them.

`POST /_faults` with `{"kind": …, "count": n, "underlying": …, "expiry": …}` spoils the next n
answers of /v2/optionchain (of that underlying and expiry, when given); `GET` lists what is left,
`DELETE` clears it. Loopback only. The kinds:

| kind | what the client gets |
|---|---|
| `truncated` | HTTP 200, the body cut in the middle |
| `html_502` | HTTP 502 with an HTML page |
| `error_200` | HTTP 200 with the body of error 806 |
| `error_500` | HTTP 500 with the body of error 800 |
| `zeros` | every number of the chain 0, the spot too |
| `missing_side` | every third strike has no `pe`, the next one a `ce` of null |
| `unknown_field` | fields nobody has heard of, outside, in strikes and in legs |
| `nan_strike` | one strike is `NaN`, one is no number |
| `expired` | what is left after settlement: no book, last at intrinsic value, no IV, no Greeks |
| `null_greeks` | every `greeks` is null |
| `stale` | the body given before for the same chain, once more |
"""

from datetime import date
from typing import Any, NamedTuple

import msgspec

from workers.simulator import answers

KINDS = (
    *("truncated", "html_502", "error_200", "error_500", "zeros", "missing_side"),
    *("unknown_field", "nan_strike", "expired", "null_greeks", "stale"),
)
_MOST_WAITING = 1_000
_HTML = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One order of faults: `count` answers still to spoil, of one chain or of any."""

    kind: str
    count: int = 1
    underlying: str | None = None
    expiry: date | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: want one of {', '.join(KINDS)}")
        if not 1 <= self.count <= 1_000_000:
            raise ValueError("count: want 1 to 1000000")


class Spoilt(NamedTuple):
    """An answer as it goes out."""

    status: int
    body: str
    media_type: str = "application/json"


class Faults:
    """The faults that are waiting, first come first served."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    @property
    def waiting(self) -> tuple[Fault, ...]:
        """What is still to be spoilt."""
        return tuple(self._waiting)

    def order(self, body: bytes) -> Fault:
        """Take an order. Raises msgspec.ValidationError or DecodeError."""
        fault = msgspec.json.decode(body, type=Fault)
        self._waiting = [*self._waiting, fault][-_MOST_WAITING:]
        return fault

    def clear(self) -> None:
        """Forget every order."""
        self._waiting = []

    def take(self, underlying: str, expiry: date) -> str | None:
        """The kind that spoils this answer, or None; counts it."""
        for fault in self._waiting:
            if fault.underlying in (None, underlying) and fault.expiry in (None, expiry):
                fault.count -= 1
                if fault.count == 0:
                    self._waiting.remove(fault)
                return fault.kind
        return None


def spoil(kind: str, body: str, previous: str | None) -> Spoilt:
    """A chain's answer with one fault in it; `previous` is the body given before."""
    if kind == "truncated":
        return Spoilt(200, body[: len(body) * 3 // 5])
    if kind == "html_502":
        return Spoilt(502, _HTML, "text/html")
    if kind == "error_200":
        return Spoilt(200, answers.data_error(806)[1])
    if kind == "error_500":
        return Spoilt(*answers.data_error(800))
    if kind == "stale":
        return Spoilt(200, previous or body)
    document = msgspec.json.decode(body)
    _CHANGES[kind](document)
    return Spoilt(200, msgspec.json.encode(document).decode())


def _legs(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [leg for sides in document["data"]["oc"].values() for leg in sides.values()]


def _zero(document: dict[str, Any]) -> None:
    document["data"]["last_price"] = 0
    for leg in _legs(document):
        for name in leg:
            leg[name] = dict.fromkeys(leg[name], 0) if name == "greeks" else 0


def _lose_sides(document: dict[str, Any]) -> None:
    for number, sides in enumerate(document["data"]["oc"].values()):
        if number % 3 == 0:
            del sides["pe"]
        elif number % 3 == 1:
            sides["ce"] = None


def _add_fields(document: dict[str, Any]) -> None:
    document["remarks"] = {"note": "unheard of"}
    document["data"]["session"] = "NORMAL"
    for sides in document["data"]["oc"].values():
        sides["fut"] = {"last_price": 1}
    for leg in _legs(document):
        leg["phase"] = [1, 2]
        leg.get("greeks", {})["vanna"] = 0.1


def _spoil_strikes(document: dict[str, Any]) -> None:
    chain = document["data"]["oc"]
    sides = next(iter(chain.values()))
    chain |= {"NaN": sides, "at the money": sides}


def _settle(document: dict[str, Any]) -> None:
    spot = document["data"]["last_price"]
    for strike, sides in document["data"]["oc"].items():
        for kind, leg in sides.items():
            intrinsic = spot - float(strike) if kind == "ce" else float(strike) - spot
            leg["last_price"] = round(max(intrinsic, 0.05), 2) if leg["last_price"] else 0
            leg["implied_volatility"] = 0
            leg["greeks"] = dict.fromkeys(leg["greeks"], 0)
            for name in ("price", "quantity"):
                leg[f"top_ask_{name}"] = leg[f"top_bid_{name}"] = 0


def _lose_greeks(document: dict[str, Any]) -> None:
    for leg in _legs(document):
        leg["greeks"] = None


_CHANGES = {
    "zeros": _zero,
    "missing_side": _lose_sides,
    "unknown_field": _add_fields,
    "nan_strike": _spoil_strikes,
    "expired": _settle,
    "null_greeks": _lose_greeks,
}
