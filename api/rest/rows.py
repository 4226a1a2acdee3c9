"""Which rows of a chain a client wants, and in what layout. Pure."""

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What of a chain to show; the default is all of it, as it is."""

    strike_from: float | None = None
    strike_to: float | None = None
    kind: str | None = None
    around: int | None = None
    fields: tuple[str, ...] = ()
    in_pairs: bool = False


class _Key(msgspec.Struct):
    strike: float
    kind: str


_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_keys = msgspec.json.Decoder(list[_Key]).decode
_WHOLE = Window()


def select_rows(
    rows: msgspec.Raw, n: int, window: Window, atm: float | None
) -> tuple[msgspec.Raw, int]:
    """The rows in a window as encoded JSON, and how many elements that has.

    `rows` is the encoded array of a chain with `n` legs, `atm` the price round which `around`
    counts strikes; without one, `around` leaves nothing out. Encoded rows pass through as they are.
    """
    if window == _WHOLE:
        return rows, n
    encoded = _decode_rows(rows)
    keys = _decode_keys(rows)
    low, high = _bounds(keys, window, atm)
    chosen = [
        (key, row)
        for key, row in zip(keys, encoded, strict=True)
        if low <= key.strike <= high and window.kind in (None, key.kind)
    ]
    if window.fields:
        chosen = [(key, _cut(row, window.fields)) for key, row in chosen]
    if window.in_pairs:
        pairs: dict[float, dict[str, Any]] = {}
        for key, row in chosen:
            empty = {"strike": key.strike, "call": None, "put": None}
            pairs.setdefault(key.strike, empty)[key.kind] = row
        return msgspec.Raw(_encode(list(pairs.values()))), len(pairs)
    return msgspec.Raw(_encode([row for _, row in chosen])), len(chosen)


def _bounds(keys: list[_Key], window: Window, atm: float | None) -> tuple[float, float]:
    infinity = float("inf")
    low = -infinity if window.strike_from is None else window.strike_from
    high = infinity if window.strike_to is None else window.strike_to
    strikes = sorted({key.strike for key in keys})
    if window.around is not None and atm is not None and strikes:
        middle = min(range(len(strikes)), key=lambda index: abs(strikes[index] - atm))
        low = max(low, strikes[max(0, middle - window.around)])
        high = min(high, strikes[min(len(strikes) - 1, middle + window.around)])
    return low, high


def _cut(row: msgspec.Raw, fields: tuple[str, ...]) -> msgspec.Raw:
    values = msgspec.json.decode(row)
    return msgspec.Raw(_encode({name: values[name] for name in fields if name in values}))
