"""What a client may say on the socket: one object a message, decoded strictly.

Pure: knows no connection. A message that is no object at all ends the session; one that asks for
something that does not exist is answered with an error.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.live.channels import Refused
from api.live.wire import Id
from pipeline.frames import ROW_FIELDS

Interval = Literal[0, 100, 250, 1000]
Slow = Literal["conflate", "skip", "disconnect"]
MOST_ID = 2**53 - 1  # the integers that every reader of JSON takes as they are
INTERVALS: tuple[int, ...] = (0, 100, 250, 1000)


class _Operation(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="op",
    tag=str.lower,
    forbid_unknown_fields=True,
):
    id: Annotated[
        Annotated[int, Meta(ge=-MOST_ID, le=MOST_ID)] | str | None,
        Meta(description="comes back with the answer"),
    ] = None


class Auth(_Operation, frozen=True):
    """Says who the client is; again before the token expires."""

    token: Annotated[str, Meta(description="a JWT with the scope `live`")]


class Since(msgspec.Struct, frozen=True):
    """A position from which a client would resume."""

    epoch: Annotated[str, Meta(description="of the last message")]
    seq: Annotated[int, Meta(description="of the last message")]


class Subscribe(_Operation, frozen=True):
    """Asks for channels; `fields` cuts the rows of chains and contracts.

    `slow` is what becomes of updates for which there is no room. With `delta` the rows of updates
    carry their key and the fields that changed.
    """

    channels: Annotated[
        list[str],
        Meta(
            description="channels to enter; a pattern brings all that it matches",
            examples=[
                ["underlying:NIFTY", "chain:NIFTY-nearest", "contract:NIFTY-20260127-25000-CE"],
                ["band:NIFTY-20260127:atm±10", "analytics:NIFTY", "candle:NIFTY:1m", "health"],
                ["chain:NIFTY-*"],
            ],
        ),
    ]
    interval_ms: Annotated[
        Interval, Meta(description="one update a channel in so many ms; 0 is every update")
    ] = 250
    fields: Annotated[list[str], Meta(description="fields of rows; none are all")] = []
    slow: Annotated[
        Slow, Meta(description="what becomes of updates for which there is no room")
    ] = "conflate"
    since: Annotated[
        dict[str, Since], Meta(description="by channel the last position the client has")
    ] = {}
    delta: Annotated[bool, Meta(description="rows with their key and what changed alone")] = False


class Unsubscribe(_Operation, frozen=True):
    """Ends channels."""

    channels: Annotated[list[str], Meta(description="channels or patterns, as subscribed to")]


class Resync(_Operation, frozen=True):
    """Asks for a new snapshot of channels, or of all."""

    channels: Annotated[list[str] | None, Meta(description="null is all")] = None


class Ping(_Operation, frozen=True):
    """Asks for a sign of life."""


Operation = Auth | Subscribe | Unsubscribe | Resync | Ping
_NAMES = ("auth", "subscribe", "unsubscribe", "resync", "ping")


class Malformed(Exception):
    """The message is no object of the protocol's encoding."""


def decode_operation(event: dict[str, Any], is_msgpack: bool) -> Operation:
    """The operation in a received message. Raises Malformed or Refused."""
    text, packed = event.get("text"), event.get("bytes")
    try:
        if text is not None:
            message = msgspec.json.decode(text)
        elif packed is not None and is_msgpack:
            message = msgspec.msgpack.decode(packed)
        else:
            raise Malformed("this subprotocol has text messages only")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed("not a message") from None
    if not isinstance(message, dict):
        raise Malformed("a message is one object")
    operation_id = _id_of(message)
    if message.get("op") not in _NAMES:
        raise Refused("unknown_op", f"there are: {', '.join(_NAMES)}", operation_id)
    try:
        operation: Operation = msgspec.convert(message, Operation)
    except msgspec.ValidationError as error:
        raise Refused("invalid_op", str(error), operation_id) from None
    return operation


def _id_of(message: dict[Any, Any]) -> Id:
    """What an answer names; nothing where no answer could hold it."""
    value = message.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return None if isinstance(value, int) and abs(value) > MOST_ID else value


def parse_fields(names: list[str]) -> tuple[str, ...]:
    """The row fields asked for, in the order of the rows. Raises Refused."""
    unknown = [name for name in names if name not in ROW_FIELDS]
    if unknown:
        raise Refused("unknown_field", f"no such field: {', '.join(unknown)[:200]}")
    return tuple(name for name in ROW_FIELDS if name in names and name != "symbol")
