"""What there is: underlyings, chains and contracts found by what people type, with their terms.

Read from the definitions of contracts in Postgres, so what was never stored is not found. Instants
are int ns UTC; rows are dicts, absent is None. Raises StoreError.
"""

import re
from calendar import month_name
from datetime import date
from typing import Any

import msgspec

from pipeline import calendar
from pipeline.database import Database, Row
from pipeline.models import ChainId, ContractId, Kind

TYPES = ("underlying", "chain", "contract")
TICK_RUPEES = 0.05  # of every index option, at both exchanges
SYMBOL_FIELDS = (
    *("type", "symbol", "underlying", "exchange", "expiry", "strike", "kind", "lot", "tick"),
    *("contracts", "valid_from", "valid_to"),
)

_FIRST_EXPIRY = "-infinity"  # where an underlying stands among its chains
_MONTHS = tuple(month.upper() for month in month_name[1:])
_MONTH = f"({'|'.join(f'{month}|{month[:3]}' for month in _MONTHS)})(?![A-Z])"
_DAY_MONTH = re.compile(rf"\b(\d{{1,2}})[\s-]*{_MONTH}(?:[\s-]*(\d{{4}}|\d{{2}}))?(?!\d)")
_MONTH_ALONE = re.compile(rf"\b{_MONTH}(?:[\s-]*(\d{{4}}))?(?!\d)")
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_STRIKE = re.compile(r"^(\d+(?:\.\d+)?)(CE|PE)$")
_KINDS = {"CE": "%-CE", "CALL": "%-CE", "PE": "%-PE", "PUT": "%-PE"}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which symbols; what is left at its default keeps all. Bounds are inclusive.

    A strike or a kind leaves contracts alone, which have one.
    """

    text: str = ""
    types: tuple[str, ...] = ()
    underlying: str | None = None
    expiry_from: date | None = None
    expiry_to: date | None = None
    strike_from: float | None = None
    strike_to: float | None = None
    kind: str | None = None


Position = tuple[str, str, str, str]


async def find_symbols(
    database: Database,
    wanted: Filter,
    limit: int,
    after: Position | None = None,
    *,
    backwards: bool = False,
) -> list[Row]:
    """SYMBOL_FIELDS of each, by underlying, expiry, strike and kind: an underlying before its
    chains, a chain before its contracts. `lot` is that of the newest definition, `tick` rupees,
    `contracts` how many it has, and it was defined in [valid_from, valid_to), None while it is.
    `after` is the `position` of the last of the page before; `backwards` begins at the end. Raises
    StoreError; ValueError where `after` is no position.
    """
    has_terms = (wanted.strike_from, wanted.strike_to, wanted.kind) != (None, None, None)
    underlying, expiry, strike, kind = after or (None, None, None, None)
    rows = await database.fetch(
        "find_symbols_backwards" if backwards else "find_symbols",
        patterns=patterns(wanted.text),
        types=[name for name in (wanted.types or TYPES) if name == "contract" or not has_terms],
        underlying=wanted.underlying,
        expiry_from=wanted.expiry_from,
        expiry_to=wanted.expiry_to,
        strike_from=wanted.strike_from,
        strike_to=wanted.strike_to,
        kind=wanted.kind,
        after_underlying=underlying,
        after_expiry=_FIRST_EXPIRY if expiry == "" else expiry and date.fromisoformat(expiry),
        after_strike=None if strike is None else float(strike),
        after_kind=kind,
        limit=limit,
    )
    return [_terms(row) for row in rows]


async def symbol_terms(database: Database, found: ContractId | ChainId | str) -> Row | None:
    """SYMBOL_FIELDS of one symbol; None where it is not known. Raises StoreError."""
    if isinstance(found, str):
        wanted = Filter(types=("underlying",), underlying=found)
    elif isinstance(found, ChainId):
        wanted = Filter(
            types=("chain",),
            underlying=found.underlying,
            expiry_from=found.expiry,
            expiry_to=found.expiry,
        )
    else:
        wanted = Filter(
            types=("contract",),
            underlying=found.underlying,
            expiry_from=found.expiry,
            expiry_to=found.expiry,
            strike_from=found.strike,
            strike_to=found.strike,
            kind=Kind(found.kind).name.lower(),
        )
    rows = await find_symbols(database, wanted, 1)
    return rows[0] if rows else None


def position(row: Row) -> Position:
    """Where a symbol stands among the others."""
    expiry = "" if row["expiry"] is None else row["expiry"].isoformat()
    return row["underlying"], expiry, repr(row["strike"] or 0.0), row["kind"] or ""


def patterns(text: str) -> list[str]:
    """What a symbol must look like to be what somebody typed, as patterns of LIKE.

    Words are beginnings of an underlying, numbers of a strike, an expiry or its year; expiries are
    read as 20260127, 2026-01-27, 27 JAN, 27JAN2026 or JAN, kinds as CE, PE, call or put.
    """
    found: list[str] = []

    def take(pattern: str) -> str:
        found.append(pattern)
        return " "

    rest = text.upper()
    rest = _ISO.sub(lambda at: take(f"%-{at[1]}{at[2]}{at[3]}%"), rest)
    rest = _DAY_MONTH.sub(lambda at: take(f"%-{_year(at[3])}{_number(at[2])}{at[1]:>02}%"), rest)
    rest = _MONTH_ALONE.sub(lambda at: take(f"%-{_year(at[2])}{_number(at[1])}__%"), rest)
    for word in rest.split():
        strike = _STRIKE.match(word)
        if word in _KINDS:
            take(_KINDS[word])
        elif strike is not None:
            take(f"%-{strike[1]}-{strike[2]}")
        elif word[0].isdigit():
            take(f"%-{_escaped(word)}%")
        else:
            take(f"{_escaped(word)}%")
    return found


def _terms(row: Row) -> Row:
    known: dict[str, Any] = {"exchange": None, "tick": None}
    if row["underlying"] in calendar.UNDERLYINGS:
        known["exchange"] = calendar.exchange_of(row["underlying"])
        known["tick"] = TICK_RUPEES if row["type"] != "underlying" else None
    both = row | known
    return {name: both[name] for name in SYMBOL_FIELDS}


def _year(text: str | None) -> str:
    return "____" if text is None else text if len(text) == 4 else f"20{text}"


def _number(month: str) -> str:
    return f"{[name[:3] for name in _MONTHS].index(month[:3]) + 1:02}"


def _escaped(word: str) -> str:
    return re.sub(r"([%_\\])", r"\\\1", word)
