"""What the server says on the live feed, as types: each message once, as it is encoded.

The description of the feed is generated from these types and those of the operations. What is
unset is left out of the message. Knows no connection.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Id = int | str | None
_Instant = Annotated[str, Meta(description="an instant: RFC 3339, UTC, µs")]
_Channel = Annotated[str, Meta(description="the channel, as the ack names it")]
_Epoch = Annotated[str, Meta(description="names the numbering; in another nothing is comparable")]
_Seq = Annotated[int, Meta(description="the position, the same at every gateway")]
_Answered = Annotated[Id, Meta(description="that of the operation; null where none was asked")]
_Header = Annotated[
    msgspec.Raw | UnsetType,
    Meta(description="what holds for all rows; instants are integer ns", extra_json_schema={}),
]
_Rows = Annotated[
    msgspec.Raw,
    Meta(
        description="rows of the field names of the legs, or of the channel's kind",
        extra_json_schema={"type": "array", "items": {"type": "object"}},
    ),
]
_Names = Annotated[list[str], Meta(description="the full set of channels, in order")]


class Refusal(msgspec.Struct, frozen=True):
    """A channel that was not taken, and why."""

    channel: str
    code: str
    detail: str


class Message(msgspec.Struct, tag_field="type"):
    """One message of the server; `type` says which."""


class SessionLimits(msgspec.Struct, frozen=True):
    """What a session may, and how long it may take."""

    authenticate_s: float
    channels: int
    operations_per_s: float
    message_bytes: int
    backlog_bytes: int
    stalled_s: float
    intervals_ms: tuple[int, ...]


class Hello(Message, kw_only=True, tag="hello"):
    """The first message of every session."""

    protocol: Literal["stockify.v1", "stockify.v1.msgpack"]
    ts: _Instant
    heartbeat_s: Annotated[float, Meta(description="after so many idle seconds a heartbeat comes")]
    limits: SessionLimits


class Ack(Message, kw_only=True, tag="ack"):
    """An operation on channels was done."""

    op: Literal["subscribe", "unsubscribe", "resync"]
    id: _Answered
    channels: _Names
    refused: Annotated[list[Refusal], Meta(description="those that were not taken")]
    resolved: Annotated[
        dict[str, str | list[str]] | UnsetType,
        Meta(description="what `nearest` and patterns mean now"),
    ] = UNSET
    recovered: Annotated[
        dict[str, bool] | UnsetType,
        Meta(description="by channel of `since`: whether all that was missed follows"),
    ] = UNSET


class AuthAck(Message, kw_only=True, tag="ack"):
    """The client was let in; also the answer to a newer token."""

    op: Literal["auth"]
    id: _Answered
    scopes: list[str]
    expires: _Instant


class Pong(Message, kw_only=True, tag="pong"):
    """The answer to a ping, with the market's time."""

    id: _Answered
    ts: _Instant


class Error(Message, kw_only=True, tag="error"):
    """An operation was refused; the session goes on."""

    id: _Answered
    code: str
    detail: str


class Snapshot(Message, kw_only=True, tag="snapshot"):
    """The whole state of a channel."""

    channel: _Channel
    epoch: _Epoch
    seq: _Seq
    as_of: _Instant
    header: _Header = UNSET
    rows: _Rows


class Update(Message, kw_only=True, tag="update"):
    """What changed in a channel since the position `prev`."""

    channel: _Channel
    epoch: _Epoch
    prev: Annotated[int, Meta(description="the position before; if it is not yours, resync")]
    seq: _Seq
    n: Annotated[int, Meta(description="how many updates are merged", ge=1)]
    as_of: _Instant
    header: _Header = UNSET
    rows: _Rows
    removed: Annotated[list[str] | UnsetType, Meta(description="keys of rows that are gone")] = (
        UNSET
    )
    delta: Annotated[
        bool | UnsetType, Meta(description="rows hold their key and what changed alone")
    ] = UNSET
    whole: Annotated[
        list[str] | UnsetType, Meta(description="keys of rows that are no delta all the same")
    ] = UNSET
    entered: Annotated[
        list[float] | UnsetType, Meta(description="strikes that came into a moving band")
    ] = UNSET
    left: Annotated[
        list[float] | UnsetType, Meta(description="strikes that fell out of a moving band")
    ] = UNSET


class Skipped(Message, kw_only=True, tag="skipped"):
    """Updates did not come; a snapshot follows."""

    channel: _Channel
    first: Annotated[int, Meta(description="the last position before them")] = msgspec.field(
        name="from"
    )
    to: Annotated[int, Meta(description="the position of the last of them")]
    n: Annotated[int | None, Meta(description="how many; null where nobody knows")]
    reason: Literal["slow", "lost"]


class Joined(Message, kw_only=True, tag="joined"):
    """A pattern matches channels that it did not match before; their snapshots follow."""

    pattern: str
    refused: list[Refusal]
    channels: Annotated[list[str], Meta(description="those that are new")]


class Freshness(msgspec.Struct, frozen=True):
    """How old the newest value of a channel is."""

    as_of: _Instant
    age_ms: int


class Heartbeat(Message, kw_only=True, tag="heartbeat"):
    """Nothing else was to be said for a while."""

    ts: _Instant
    channels: dict[str, Freshness]


class Close(msgspec.Struct, frozen=True):
    """Why a stream of events ends: the data of its event `close`."""

    code: Annotated[int, Meta(description="the close code that a socket would get")]
    reason: Annotated[str, Meta(description="for a person")]


SAID: tuple[type[Message], ...] = (
    *(Hello, AuthAck, Ack, Pong, Error),
    *(Snapshot, Update, Skipped, Joined, Heartbeat),
)


def header_of(text: bytes | None) -> Any:
    """The `header` of a message: bytes of JSON as they are, left out where there are none."""
    return UNSET if text is None else msgspec.Raw(text)
