"""Where a stream of events stands, as the text of its `id`: a position of each channel.

Only channels that can be resumed are told. Pure.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from api.live.kinds import KINDS
from api.live.operations import Since

# An id comes back as a header, whose field together with the token must fit in a head.
ID_BYTES = 4_096
_SAFE = ":"


class _Message(msgspec.Struct):
    type: str
    channel: str = ""
    epoch: str = ""
    seq: int = 0


_decode = msgspec.json.Decoder(_Message).decode


class Places:
    """The position of every channel of a stream, as of what was sent."""

    def __init__(self) -> None:
        self._known: dict[str, Since] = {}

    def follow(self, message: bytes) -> str:
        """Take in a message of JSON; gives its type."""
        told = _decode(message)
        kind = KINDS.get(told.channel.partition(":")[0])
        if told.type in ("snapshot", "update") and kind is not None and kind.resumes:
            self._known[told.channel] = Since(told.epoch, told.seq)
        return told.type

    def text(self) -> str | None:
        """The id; None where nothing can be resumed, or too many channels for an id."""
        found = encode_places(self._known)
        return found if 0 < len(found) <= ID_BYTES else None


def encode_places(places: Mapping[str, Since]) -> str:
    """`epoch=channel@seq,channel@seq;epoch=…`, all of it ASCII."""
    by_epoch: dict[str, list[str]] = {}
    for channel, since in places.items():
        told = f"{quote(channel, safe=_SAFE)}@{since.seq}"
        by_epoch.setdefault(quote(since.epoch, safe=_SAFE), []).append(told)
    return ";".join(f"{epoch}={','.join(told)}" for epoch, told in by_epoch.items())


def decode_places(text: str) -> dict[str, Since]:
    """The positions in an id. Raises ValueError with words for the client."""
    places: dict[str, Since] = {}
    if len(text) > ID_BYTES:
        raise ValueError("longer than any id")
    for part in filter(None, text.split(";")):
        epoch, _, told = part.partition("=")
        for one in told.split(","):
            channel, _, seq = one.rpartition("@")
            if not (channel and seq.isascii() and seq.isdigit() and len(seq) < 19):
                raise ValueError("not the id of an event of this stream")
            places[unquote(channel)] = Since(unquote(epoch), int(seq))
    return places
