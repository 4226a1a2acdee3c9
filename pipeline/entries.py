"""Entries of a stream, to append and as read: the fields of `docs/data-model.md`."""

import msgspec


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry to append; the fields are those of `docs/data-model.md`, `seq` and `epoch` apart.

    `contracts` is how many legs it holds: no field of the entry, only counted with it.
    """

    id: str
    type: str
    key: str
    ts: int
    te: int | None = None
    traceparent: str = ""
    enc: str = ""
    meta: bytes = b""
    data: bytes = b""
    contracts: int = 0

    def fields(self) -> list[str | int | bytes]:
        """Names and values in turn, empty ones left out."""
        flat: list[str | int | bytes] = ["id", self.id, "type", self.type, "key", self.key]
        flat += ["ts", self.ts]
        if self.te is not None:
            flat += ["te", self.te]
        for name, value in (("tp", self.traceparent), ("enc", self.enc), ("meta", self.meta)):
            if value:
                flat += [name, value]
        return [*flat, "data", self.data]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as read. `attempts` counts deliveries, this one among them.

    `src` is the stream id of the entry that it was made from, empty where that is not known.
    """

    stream_id: str
    id: str
    type: str
    key: str
    ts: int
    te: int | None
    seq: int
    epoch: str
    traceparent: str
    enc: str
    meta: bytes
    data: bytes
    attempts: int
    src: str = ""


class PlainEntry(Entry, frozen=True, kw_only=True):
    """An entry of plain text fields, as the splitter or somebody else writes them: all of them.

    Its `key` is its field `symbol` where it has no key.
    """

    fields: dict[str, str]


class Appended(msgspec.Struct, frozen=True):
    """Where an entry came to stand; `found` when it stood there before this call."""

    stream_id: str
    seq: int
    epoch: str
    found: bool = False


def decode_entry(stream_id: bytes, fields: dict[bytes, bytes], attempts: int = 1) -> Entry:
    """An entry of any stream; a field that is missing or no number reads as empty or 0.

    One without a type is no envelope of ours but a `PlainEntry`.
    """
    entry = Entry(
        stream_id=stream_id.decode(),
        id=_text(fields.get(b"id", b"")),
        type=_text(fields.get(b"type", b"")),
        key=_text(fields.get(b"key", b"")),
        ts=_integer(fields.get(b"ts")) or 0,
        te=_integer(fields.get(b"te")),
        seq=_integer(fields.get(b"seq")) or 0,
        epoch=_text(fields.get(b"epoch", b"")),
        traceparent=_text(fields.get(b"tp", b"")),
        enc=_text(fields.get(b"enc", b"")),
        meta=fields.get(b"meta", b""),
        data=fields.get(b"data", b""),
        attempts=attempts,
        src=_text(fields.get(b"src", b"")),
    )
    return entry if b"type" in fields else _plain(entry, fields)


def _plain(entry: Entry, fields: dict[bytes, bytes]) -> PlainEntry:
    known = msgspec.structs.asdict(entry)
    known["key"] = entry.key or _text(fields.get(b"symbol", b""))
    texts = {_text(name): _text(value) for name, value in fields.items()}
    return PlainEntry(**known, fields=texts)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _integer(value: bytes | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None
