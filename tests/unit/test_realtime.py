"""What the realtime worker says of the update before: right, or that it does not know."""

from pipeline.entries import Entry
from workers.realtime import Links, newest_of_each

CHAIN, UNDERLYING = "NIFTY-20260127", "NIFTY"


def entry(seq: int, *, key: str = CHAIN, ts: int = 0, epoch: str = "e1") -> Entry:
    return Entry(
        stream_id=f"{seq}-0",
        id=f"id-{seq}",
        type="chain.enriched.v1",
        key=key,
        ts=ts or seq,
        te=None,
        seq=seq,
        epoch=epoch,
        traceparent="",
        enc="",
        meta=b"",
        data=b"",
        attempts=1,
    )


def test_first_update_after_a_start_is_said_to_be_unknown() -> None:
    assert Links().prev(CHAIN, entry(5)) == 0


def test_update_before_is_the_last_one_published_of_the_symbol() -> None:
    links = Links()
    links.note(CHAIN, entry(5))
    links.note("NIFTY-20260203", entry(6))
    assert links.prev(CHAIN, entry(9)) == 5


def test_new_epoch_has_no_update_before() -> None:
    links = Links()
    links.note(CHAIN, entry(5))
    assert links.prev(CHAIN, entry(6, epoch="e2")) == 0


def test_late_update_is_not_the_one_before() -> None:
    links = Links()
    links.note(CHAIN, entry(5, ts=100))
    links.note(CHAIN, entry(6, ts=50))
    assert links.prev(CHAIN, entry(7, ts=101)) == 5


def test_symbols_whose_updates_were_merged_say_so_once() -> None:
    links = Links()
    for symbol in (CHAIN, UNDERLYING, "SENSEX-20260127"):
        links.note(symbol, entry(1))
    batch = [entry(2), entry(3, key="SENSEX-20260127"), entry(4)]
    kept = newest_of_each(batch)
    assert [one.seq for one in kept] == [4, 3]
    links.merge(batch, kept)
    assert links.prev(CHAIN, batch[2]) == links.prev(UNDERLYING, batch[2]) == 0
    assert links.prev("SENSEX-20260127", batch[1]) == 1
    links.note(CHAIN, batch[2])
    assert links.prev(CHAIN, entry(5)) == 4
