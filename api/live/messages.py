"""The messages of `stockify.v1`: built once, encoded once for each form, framed as arrays.

Rows stay the bytes that the realtime worker encoded wherever nobody asked for fewer fields. Knows
no connection and no Redis.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from api.live.wire import Message, Snapshot, Update, header_of
from pipeline.clock import to_rfc3339
from pipeline.frames import Position

JSON_PROTOCOL: Final = "stockify.v1"
MSGPACK_PROTOCOL: Final = "stockify.v1.msgpack"

# All contracts of a chain change at once: what their texts and updates have alike is made once.
ALIKE = 256

_json = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()


class State(msgspec.Struct, frozen=True, gc=False):
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


class _Shared(msgspec.Struct):
    """What a contract's text has before its own: alike for all contracts of its chain."""

    position: Position
    chain: str
    ts_ingest: int
    ts_event: int | None
    spot: float | None
    forward: float | None


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
_decode_shared = msgspec.json.Decoder(_Shared).decode
_decode_underlying = msgspec.json.Decoder(_Underlying).decode
_decode_instant = msgspec.json.Decoder(_Instant).decode
_decode_name = msgspec.json.Decoder(_Named).decode


def chain_state(text: bytes) -> State:
    """The state in a chain's latest text. Raises msgspec.MsgspecError."""
    chain = _decode_chain(text)
    rows = {_decode_name(row).symbol: bytes(row) for row in chain.rows}
    return State(chain.position, _decode_instant(chain.header).ts_ingest, bytes(chain.header), rows)


def contract_reader(symbol: str) -> Callable[[bytes], State]:
    """What gives the state in a contract's latest text, or raises msgspec.MsgspecError."""
    between = b',"symbol":%s,"row":{' % _json.encode(symbol)  # symbol and row are the last fields
    length = len(between) - 1

    def read(text: bytes) -> State:
        at = text.find(between)
        if at < 0 or not text.endswith(b"}}"):
            raise msgspec.DecodeError(f"the text ends with no symbol and row of {symbol}")
        position, ts_ingest, header = _leg_header(text[:at])
        return State(position, ts_ingest, header, {symbol: text[at + length : -1]})

    return read


@functools.lru_cache(maxsize=ALIKE)
def _leg_header(shared: bytes) -> tuple[Position, int, bytes]:
    of = _decode_shared(shared + b"}")
    header = _LegHeader(of.chain, of.ts_ingest, of.ts_event, of.spot, of.forward)
    return of.position, of.ts_ingest, _json.encode(header)


def underlying_state(text: bytes) -> State:
    """The state in an underlying's latest text. Raises msgspec.MsgspecError."""
    whole = _decode_underlying(text)
    ts_ingest = _decode_instant(whole.snapshot).ts_ingest
    return State(whole.position, ts_ingest, None, {whole.symbol: bytes(whole.snapshot)})


class Packet(msgspec.Struct, gc=False):
    """One message to many clients: its JSON, its MessagePack once somebody wants that."""

    channel: str
    json: bytes
    prev: int
    seq: int
    n: int
    _packed: bytes | None = None

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
        rows=msgspec.Raw(_joined(rows.values())),
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
    prev, at = before.position.seq, after.position
    if not removed and whole is None and before.strikes == after.strikes:
        head, between = _around(prev, at.seq, at.epoch, n, after.ts_ingest, after.header)
        json = b"".join((head, _json.encode(channel), between, b",".join(rows), b"]}"))
        return Packet(channel, json, prev, at.seq, n)
    message = _update(prev, at.seq, at.epoch, n, after.ts_ingest, after.header)
    message.channel, message.rows = channel, msgspec.Raw(_joined(rows))
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
    return Packet(channel, _json.encode(message), prev=prev, seq=at.seq, n=n)


def _update(
    prev: int, seq: int, epoch: str, n: int, ts_ingest: int, header: bytes | None
) -> Update:
    """An update of no channel yet."""
    return Update(
        channel="",
        epoch=epoch,
        prev=prev,
        seq=seq,
        n=n,
        as_of=to_rfc3339(ts_ingest),
        header=header_of(header),
        rows=msgspec.Raw(b"[]"),
    )


@functools.lru_cache(maxsize=ALIKE)
def _around(
    prev: int, seq: int, epoch: str, n: int, ts_ingest: int, header: bytes | None
) -> tuple[bytes, bytes]:
    """An update's text before the name of its channel, and from there into its rows, the last."""
    text = _json.encode(_update(prev, seq, epoch, n, ts_ingest, header))
    head, _, rest = text.partition(b'""')
    return head, rest.removesuffix(b"]}")


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


def _joined(rows: Iterable[bytes]) -> bytes:
    return b"[%s]" % b",".join(rows)
