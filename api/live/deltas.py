"""Field deltas: of a row that a client has, its key and only the fields that changed.

Fields are compared and carried as the bytes they are, so that the client's row, its fields put
over those it has, is the very same. Pure.
"""

import msgspec

KEYS = ("symbol", "starts")  # the field that says which row it is; the first that is there

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def delta_of(before: bytes, after: bytes) -> bytes | None:
    """What leads from a row to a later one, both JSON objects; None where that cannot be told.

    It cannot where a field is gone, or the rows have no key in common: then the row goes whole.
    """
    held, now = _decode(before), _decode(after)
    key = next((name for name in KEYS if name in now), None)
    if key is None or held.get(key) != now[key] or not held.keys() <= now.keys():
        return None
    changed = {name: value for name, value in now.items() if held.get(name) != value}
    return _encode({key: now[key]} | changed)
