"""Entries as read: those of ours, and plain ones."""

from pipeline.entries import Entry, PlainEntry, decode_entry


def test_entry_of_ours_reads_by_its_fields() -> None:
    fields = {b"id": b"m", b"type": b"t.v1", b"key": b"NIFTY", b"ts": b"7", b"seq": b"3"}
    entry = decode_entry(b"5-1", fields | {b"data": b"\x00"}, 2)
    assert type(entry) is Entry
    assert (entry.stream_id, entry.id, entry.type, entry.key) == ("5-1", "m", "t.v1", "NIFTY")
    assert (entry.ts, entry.te, entry.seq, entry.attempts) == (7, None, 3, 2)
    assert entry.data == b"\x00"


def test_entry_of_plain_fields_keeps_them_all_and_is_known_by_its_symbol() -> None:
    fields = {b"seq": b"9", b"epoch": b"e", b"symbol": b"NIFTY-20260127-25000-PE", b"iv": b"0.12"}
    entry = decode_entry(b"5-1", fields)
    assert isinstance(entry, PlainEntry)
    assert entry.fields == {
        "seq": "9",
        "epoch": "e",
        "symbol": "NIFTY-20260127-25000-PE",
        "iv": "0.12",
    }
    assert (entry.key, entry.seq, entry.epoch) == ("NIFTY-20260127-25000-PE", 9, "e")
