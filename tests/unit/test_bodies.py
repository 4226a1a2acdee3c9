import msgspec
import pytest

from pipeline import bodies
from pipeline.entries import Entry, NewEntry
from pipeline.errors import DecodeError
from tests.support import chains


def as_read(new: NewEntry, **changes: object) -> Entry:
    entry = Entry(
        stream_id="1-1",
        id=new.id,
        type=new.type,
        key=new.key,
        ts=new.ts,
        te=new.te,
        seq=1,
        epoch="e",
        traceparent="",
        enc=new.enc,
        meta=new.meta,
        data=new.data,
        attempts=1,
    )
    return msgspec.structs.replace(entry, **changes)


@pytest.mark.parametrize("body", [b'{"data":[]}', chains.encoded(chains.body(21))])
def test_body_comes_back_exactly_as_received(body: bytes) -> None:
    new = bodies.raw_entry("chain.raw.v1", chains.request_context(), body, 5)
    assert bodies.body_of(as_read(new)) == body
    assert bodies.context_of(as_read(new)) == chains.request_context()
    assert new.key == "NIFTY-20260127"


def test_message_id_tells_body_symbol_and_instant_apart() -> None:
    context = chains.request_context()
    ids = {
        bodies.raw_entry("chain.raw.v1", context, body, ts).id
        for body in (b"{}", b"[]")
        for ts in (1, 2)
    }
    assert len(ids) == 4
    assert bodies.raw_entry("chain.raw.v1", context, b"{}", 1).id in ids


def test_unreadable_entries_are_refused_with_their_reason() -> None:
    good = as_read(bodies.raw_entry("t", chains.request_context(), b"x" * 2_000, 1))
    with pytest.raises(DecodeError, match="lz4"):
        bodies.body_of(msgspec.structs.replace(good, enc="lz4"))
    with pytest.raises(DecodeError, match="zstd"):
        bodies.body_of(msgspec.structs.replace(good, data=b"no"))
    with pytest.raises(DecodeError, match="context"):
        bodies.context_of(msgspec.structs.replace(good, meta=b"\xc1"))
