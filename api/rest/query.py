"""Query parameters: declared once a route, parsed strictly, and described in the OpenAPI document.

An unknown, repeated or malformed parameter is an error that names it; nothing is ever ignored.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Any

import msgspec

from api.errors import ApiError, invalid_parameter, not_found
from api.rest.formats import FORMATS
from pipeline.clock import IST, to_ns
from pipeline.errors import DecodeError
from pipeline.models import ChainId, ContractId, parse_symbol

LIMIT_MAXIMUM = 10_000
LIMIT_DEFAULT = 1_000
_LAST_NS = 2**63 - 1
# Integers: in ms from March 1973 on, in ns from March 1973 on.
MS_FROM, MS_UNTIL, NS_FROM = 10**11, 10**14, 10**17
_WINDOW = {"type": "string", "pattern": r"^(atm(±|\+-))?[0-9]{1,4}$"}
_AROUND = re.compile(r"^(?:atm)?\s*(?:±|\+/?-|\+|-)?\s*(\d{1,4})$", re.IGNORECASE)
_DAY = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_INSTANTS = [
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": NS_FROM, "maximum": _LAST_NS},
    {"type": "integer", "minimum": MS_FROM, "exclusiveMaximum": MS_UNTIL},
]
_BARE_PLUS = re.compile(r" (\d{2}:\d{2})$")  # an unescaped + arrives as a space


class Parameter(msgspec.Struct, frozen=True):
    """One query parameter; `parse` raises ValueError with words for the client."""

    name: str
    description: str
    schema: dict[str, Any]
    parse: Callable[[str], Any]
    default: Any = None
    known: tuple[str, ...] = ()
    is_required: bool = False


class Query:
    """The parameters of a route, and `format`, which every answer takes that is no bare one."""

    def __init__(self, *parameters: Parameter, is_bare: bool = False) -> None:
        self.parameters = parameters if is_bare else (*parameters, formats())
        parameters = self.parameters
        self._by_name = {parameter.name: parameter for parameter in parameters}

    def parse(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Every parameter's value by name, its default where not given. Raises ApiError 400."""
        values: dict[str, Any] = {}
        errors: list[dict[str, str]] = []
        for name, text in pairs:
            parameter = self._by_name.get(name)
            if parameter is None:
                errors.append({"parameter": name[:80], "detail": self._unknown()})
            elif name in values:
                errors.append({"parameter": name, "detail": "given more than once"})
            else:
                try:
                    values[name] = parameter.parse(text)
                except (ValueError, OverflowError) as error:
                    errors.append({"parameter": name, "detail": str(error)})
                    values[name] = None
        for name, known in self._by_name.items():
            if known.is_required and name not in values:
                errors.append({"parameter": name, "detail": "needed"})
        if errors:
            detail = "; ".join(f"{error['parameter']}: {error['detail']}" for error in errors)
            raise ApiError(400, "invalid_query", detail, errors=errors)
        return {name: values.get(name, known.default) for name, known in self._by_name.items()}

    def _unknown(self) -> str:
        names = ", ".join(self._by_name) or "none"
        return f"no such parameter; there are: {names}"


def required(parameter: Parameter) -> Parameter:
    """The same, and a request without it is refused."""
    return msgspec.structs.replace(parameter, is_required=True)


def number(name: str, description: str) -> Parameter:
    """A finite decimal number."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("want a number") from None
        if not math.isfinite(value):
            raise ValueError("want a finite number")
        return value

    return Parameter(name, description, {"type": "number"}, parse)


def integer(name: str, description: str, *, default: int) -> Parameter:
    """A whole number of at most nine digits."""

    def parse(text: str) -> int:
        if re.fullmatch(r"-?\d{1,9}", text, re.ASCII) is None:
            raise ValueError("want a whole number")
        return int(text)

    schema = {"type": "integer", "default": default}
    return Parameter(name, description, schema, parse, default)


def integer_between(name: str, description: str, least: int, most: int) -> Parameter:
    """A whole number within bounds; none where it is not given."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ValueError(f"want a whole number from {least} to {most}")
        return int(text)

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(name, description, schema, parse)


def limit() -> Parameter:
    """How many rows a page has."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LIMIT_MAXIMUM:
            raise ValueError(f"want a whole number from 1 to {LIMIT_MAXIMUM}")
        return int(text)

    schema = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAXIMUM, "default": LIMIT_DEFAULT}
    return Parameter("limit", "rows a page", schema, parse, LIMIT_DEFAULT)


def choice(name: str, description: str, *words: str, default: str | None = None) -> Parameter:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"want one of {', '.join(words)}")
        return text

    schema: dict[str, Any] = {"type": "string", "enum": list(words)}
    if default is not None:
        schema["default"] = default
    return Parameter(name, description, schema, parse, default)


def flag(name: str, description: str) -> Parameter:
    """Yes or no; no where it is not given."""

    def parse(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("want true or false")
        return text.lower() == "true"

    return Parameter(name, description, {"type": "boolean", "default": False}, parse, False)


def listed(name: str, description: str, *, at_most: int, known: Iterable[str] = ()) -> Parameter:
    """Names, comma-separated; where `known` says which there are, no others."""
    names = tuple(known)

    def parse(text: str) -> tuple[str, ...]:
        parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        unknown = [part for part in parts if names and part not in names]
        if unknown:
            raise ValueError(f"no such name: {', '.join(unknown)[:200]}")
        if not 1 <= len(parts) <= at_most:
            raise ValueError(f"want 1 to {at_most} names, comma-separated")
        return parts

    items = {"type": "string", "enum": [*names]} if names else {"type": "string", "minLength": 1}
    schema = {"type": "array", "items": items, "minItems": 1, "maxItems": at_most}
    return Parameter(name, description, schema, parse, known=names)


def instant(name: str, description: str) -> Parameter:
    """An instant: RFC 3339, an exchange day, or integer ns or ms."""
    text = f"{description}: RFC 3339, a date (start of the exchange's day), or integer ns or ms UTC"
    return Parameter(name, text, {"anyOf": _INSTANTS}, parse_instant)


def day(name: str, description: str) -> Parameter:
    """A day of the exchange."""

    def parse(value: str) -> date:
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("want a date such as 2026-01-27") from None

    return Parameter(name, description, {"type": "string", "format": "date"}, parse)


def around() -> Parameter:
    """A window of strikes round the money."""

    def parse(text: str) -> int:
        match = _AROUND.match(text.strip())
        if match is None:
            raise ValueError("want atm±n, for example atm±10")
        return int(match[1])

    return Parameter("around", "n strikes on each side of the money", _WINDOW, parse)


def text(name: str, description: str, *, at_most: int) -> Parameter:
    """Text of a bounded length."""

    def parse(value: str) -> str:
        if not 1 <= len(value) <= at_most:
            raise ValueError(f"want 1 to {at_most} characters")
        if "\0" in value:  # which Postgres does not take
            raise ValueError("want text without NUL")
        return value

    return Parameter(name, description, {"type": "string", "maxLength": at_most}, parse)


def formats() -> Parameter:
    """The format of the answer."""
    return choice("format", "format of the answer, in place of what `Accept` says", *FORMATS)


def times() -> Parameter:
    """The form of the instants in the answer."""
    words = ("rfc3339", "ns", "ms")
    return choice("ts", "form of every instant in the answer", *words, default="rfc3339")


def parse_instant(text: str) -> int:
    """ns UTC. Raises ValueError with words for the client.

    Integers are told apart by their size: ms and ns of the same instants are five digits apart,
    and what lies between or below, such as seconds or µs, is refused. 0 is 0 in both.
    """
    if text.isascii() and text.isdigit():
        return _integer_instant(text)
    try:
        if _DAY.match(text):
            ns = to_ns(datetime.combine(date.fromisoformat(text), time_of_day(), IST))
        else:
            moment = datetime.fromisoformat(_BARE_PLUS.sub(r"+\1", text))
            if moment.tzinfo is None or "T" not in text.upper():
                raise ValueError(text)
            ns = to_ns(moment)
    except (ValueError, OverflowError):
        raise ValueError("want RFC 3339 with an offset, a date, or integer ns or ms") from None
    return _checked(ns)


def _integer_instant(text: str) -> int:
    value = int(text) if len(text) <= 19 else _LAST_NS + 1
    if value == 0 or value >= NS_FROM:
        return _checked(value)
    if not MS_FROM <= value < MS_UNTIL:
        raise ValueError("an integer of neither ns nor ms: seconds and µs are not taken")
    return _checked(value * 1_000_000)


def _checked(ns: int) -> int:
    if not 0 <= ns <= _LAST_NS:
        raise ValueError("outside 1970 to 2262")
    return ns


def symbol_of(text: str) -> ContractId | ChainId | str:
    """The parts of a symbol that a path names. Raises ApiError 404."""
    try:
        return parse_symbol(text)
    except DecodeError:
        raise not_found("symbol", text) from None


def check_symbols(parameter: str, symbols: Iterable[str]) -> None:
    """Refuse symbols of a parameter that cannot be any. Raises ApiError 400."""
    for symbol in symbols:
        try:
            parse_symbol(symbol)
        except DecodeError:
            raise invalid_parameter(parameter, f"{symbol[:80]!r} is no symbol") from None
