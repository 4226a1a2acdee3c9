"""The messages of `stockify.v1`: built once, encoded once for each form, framed as arrays.

Rows stay the bytes that the realtime worker encoded wherever nobody asked for fewer fields. Knows
no connection and no Redis.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from api.live.wire import Message, Snapshot, Update, header_of
from pipeline.clock import to_rfc3339
from pipeline.frames import Position

JSON_PROTOCOL: Final = "stockify.v1"
MSGPACK_PROTOCOL: Final = "stockify.v1.msgpack"

_json = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()


class State(msgspec.Struct, frozen=True):
    """A symbol's newest value, cut into what a message is made of; `rows` by symbol, as JSON.

    `strikes` are those of a moving band: updates tell which entered it and which left.
    """

    position: Position
    ts_ingest: int
    header: bytes | None
    rows: dict[str, bytes]
    strikes: tuple[float, ...] | None = None


class _Chain(msgspec.Struct):
    position: Position
    header: msgspec.Raw
    rows: list[msgspec.Raw]


class _Contract(msgspec.Struct):
    symbol: str
    position: Position
    chain: str
    ts_ingest: int
    ts_event: int | None
    spot: float | None
    forward: float | None
    row: msgspec.Raw


class _LegHeader(msgspec.Struct):
    """What the header of a contract's messages says of its chain."""

    chain: str
    ts_ingest: int
    ts_event: int | None
    spot: float | None
    forward: float | None


class _Underlying(msgspec.Struct):
    symbol: str
    position: Position
    snapshot: msgspec.Raw


class _Instant(msgspec.Struct):
    ts_ingest: int


class _Named(msgspec.Struct):
    symbol: str


_decode_chain = msgspec.json.Decoder(_Chain).decode
_decode_contract = msgspec.json.Decoder(_Contract).decode
_decode_underlying = msgspec.json.Decoder(_Underlying).decode
_decode_instant = msgspec.json.Decoder(_Instant).decode
_decode_name = msgspec.json.Decoder(_Named).decode


def chain_state(text: bytes) -> State:
    """The state in a chain's latest text. Raises msgspec.MsgspecError."""
    chain = _decode_chain(text)
    rows = {_decode_name(row).symbol: bytes(row) for row in chain.rows}
    return State(chain.position, _decode_instant(chain.header).ts_ingest, bytes(chain.header), rows)


def contract_state(text: bytes) -> State:
    """The state in a contract's latest text. Raises msgspec.MsgspecError."""
    leg = _decode_contract(text)
    header = _LegHeader(leg.chain, leg.ts_ingest, leg.ts_event, leg.spot, leg.forward)
    rows = {leg.symbol: bytes(leg.row)}
    return State(leg.position, leg.ts_ingest, _json.encode(header), rows)


def underlying_state(text: bytes) -> State:
    """The state in an underlying's latest text. Raises msgspec.MsgspecError."""
    whole = _decode_underlying(text)
    ts_ingest = _decode_instant(whole.snapshot).ts_ingest
    return State(whole.position, ts_ingest, None, {whole.symbol: bytes(whole.snapshot)})


class Packet:
    """One message to many clients: its JSON, its MessagePack once somebody wants that."""

    __slots__ = ("_packed", "channel", "json", "n", "prev", "seq")

    def __init__(self, channel: str, json: bytes, *, prev: int, seq: int, n: int) -> None:
        self.channel = channel
        self.json = json
        self.prev = prev
        self.seq = seq
        self.n = n
        self._packed: bytes | None = None

    def encoded(self, is_msgpack: bool) -> bytes:
        """The message in one of its two forms."""
        if not is_msgpack:
            return self.json
        if self._packed is None:
            self._packed = _pack.encode(msgspec.json.decode(self.json))
        return self._packed


def snapshot_packet(channel: str, state: State, rows: Mapping[str, bytes]) -> Packet:
    """The whole state of a channel."""
    position = state.position
    message = Snapshot(
        channel=channel,
        epoch=position.epoch,
        seq=position.seq,
        as_of=to_rfc3339(state.ts_ingest),
        header=header_of(state.header),
        rows=_array(rows.values()),
    )
    return Packet(channel, _json.encode(message), prev=position.seq, seq=position.seq, n=1)


def update_packet(
    channel: str,
    before: State,
    after: State,
    rows: Iterable[bytes],
    removed: list[str],
    n: int,
    whole: list[str] | None = None,
) -> Packet:
    """What changed from one state to a later one; `n` is how many updates it merges.

    Rows are deltas where there is a `whole`: the names of those that nevertheless are not.
    """
    prev, seq = before.position.seq, after.position.seq
    message = Update(
        channel=channel,
        epoch=after.position.epoch,
        prev=prev,
        seq=seq,
        n=n,
        as_of=to_rfc3339(after.ts_ingest),
        header=header_of(after.header),
        rows=_array(rows),
    )
    if removed:
        message.removed = removed
    if whole is not None:
        message.delta = True
    if whole:
        message.whole = whole
    if after.strikes is not None and before.strikes != after.strikes:
        held = before.strikes or ()
        message.entered = [strike for strike in after.strikes if strike not in held]
        message.left = [strike for strike in held if strike not in after.strikes]
    return Packet(channel, _json.encode(message), prev=prev, seq=seq, n=n)


def encode_message(message: Message, is_msgpack: bool) -> bytes:
    """A message to one client alone."""
    return _pack.encode(message) if is_msgpack else _json.encode(message)


def join_frame(messages: list[bytes], is_msgpack: bool) -> bytes:
    """The array of some encoded messages."""
    if not is_msgpack:
        return b"[" + b",".join(messages) + b"]"
    count = len(messages)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(messages)


def select_fields(row: bytes, fields: tuple[str, ...]) -> bytes:
    """A row with its symbol and these fields alone."""
    values = msgspec.json.decode(row)
    return _json.encode({name: values[name] for name in ("symbol", *fields) if name in values})


def _array(rows: Iterable[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(rows) + b"]")
