"""Files of raw entries: whole, in order, each entry once, whatever ended the last write."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import msgspec
import pytest

from pipeline import bodies, models
from pipeline.archive import TAIL_RECORDS, Archive, place, read_archive
from pipeline.clock import expiry_ns
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from tests.support import chains
from tests.support.rooms import CHECKOUT

WHERE = Path("2026-01-25/NIFTY.raw")
GOLDEN = CHECKOUT / "tests/data/archive"


def entry(number: int, **changes: object) -> Entry:
    body = chains.encoded(chains.body(3, last_price=float(number + 1)))
    new = bodies.raw_entry(
        models.RAW_CHAIN_TYPE, chains.request_context(), body, chains.TS_INGEST + number
    )
    plain = Entry(
        stream_id=f"1769335200000-{number}",
        id=new.id,
        type=new.type,
        key=new.key,
        ts=new.ts,
        te=None,
        seq=number + 1,
        epoch="18",
        traceparent="",
        enc=new.enc,
        meta=new.meta,
        data=new.data,
        attempts=1,
    )
    return msgspec.structs.replace(plain, **changes)


def written(root: Path, *entries: Entry) -> int:
    archive = Archive(root)
    count, _size = archive.write(WHERE, entries)
    archive.close()
    return count


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel refuses to make any file larger, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_entries_come_back_as_received_and_in_order_over_restarts(tmp_path: Path) -> None:
    assert written(tmp_path, entry(0), entry(1)) == 2
    assert written(tmp_path, entry(2)) == 1
    again = list(read_archive(tmp_path / WHERE))
    assert again == [entry(0), entry(1), entry(2)]
    assert {found.enc for found in again} == {"zstd"}


def test_entry_goes_below_the_exchanges_day_and_its_underlying() -> None:
    midnight = expiry_ns(date(2026, 1, 27)) - 15 * chains.HOUR_NS - chains.HOUR_NS // 2
    assert place(entry(0, ts=midnight)) == Path("2026-01-27/NIFTY.raw")
    assert place(entry(0, ts=midnight - 1_000)) == Path("2026-01-26/NIFTY.raw")
    assert place(entry(0, key="BANKNIFTY")) == Path("2026-01-25/BANKNIFTY.raw")


@pytest.mark.parametrize(
    "changes",
    [{"key": "../../etc"}, {"key": "/NIFTY"}, {"key": ""}, {"ts": 0}, {"ts": 10**30}],
    ids=["parent", "root", "no key", "no time", "no such day"],
)
def test_entry_without_a_place_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        place(entry(0, **changes))


def test_redelivered_entries_are_not_written_again(tmp_path: Path) -> None:
    assert written(tmp_path, entry(0), entry(1)) == 2
    again = (entry(1, attempts=2), entry(2), entry(2, stream_id="1769335200000-9"))
    assert written(tmp_path, *again) == 1
    assert list(read_archive(tmp_path / WHERE)) == [entry(0), entry(1), entry(2)]


def test_ids_are_known_as_far_back_as_promised(tmp_path: Path) -> None:
    small = [entry(0, id=f"id-{n}", data=b"", meta=b"") for n in range(TAIL_RECORDS + 1)]
    assert written(tmp_path, *small) == TAIL_RECORDS + 1
    assert written(tmp_path, *small[1:]) == 0
    assert written(tmp_path, small[0]) == 1  # long acknowledged: nobody delivers it again


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_torn_last_record_is_cut_at_the_start_and_kept_beside(tmp_path: Path, cut: int) -> None:
    written(tmp_path, entry(0))
    whole = (tmp_path / WHERE).read_bytes()
    written(tmp_path, entry(1))
    path = tmp_path / WHERE
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)
    assert list(read_archive(path)) == [entry(0)]
    assert written(tmp_path, entry(1), entry(2)) == 2
    assert list(read_archive(path)) == [entry(0), entry(1), entry(2)]
    assert path.with_suffix(f".torn-{len(whole)}").read_bytes() == torn[len(whole) :]


@pytest.mark.parametrize("end", [b"\0" * 20_000, b"\x10\0\0\0" + b"x" * 20], ids=["zeros", "junk"])
def test_end_that_never_reached_the_disk_is_cut(tmp_path: Path, end: bytes) -> None:
    written(tmp_path, entry(0))
    with (tmp_path / WHERE).open("ab") as file:
        file.write(end)
    assert written(tmp_path, entry(1)) == 1
    assert list(read_archive(tmp_path / WHERE)) == [entry(0), entry(1)]


def test_damaged_record_is_reported_when_read(tmp_path: Path) -> None:
    written(tmp_path, entry(0), entry(1))
    path = tmp_path / WHERE
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="damaged"):
        list(read_archive(path))


def test_refused_write_leaves_nothing_behind_and_may_be_repeated(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.write(WHERE, [entry(0)])
    size = (tmp_path / WHERE).stat().st_size
    with files_limited_to(size + 100):
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                archive.write(WHERE, [entry(1), entry(2)])
        assert list(read_archive(tmp_path / WHERE)) == [entry(0)]
    assert archive.write(WHERE, [entry(1)])[0] == 1
    assert list(read_archive(tmp_path / WHERE)) == [entry(0), entry(1)]
    archive.close()


def test_directory_that_cannot_be_made_is_an_error_that_passes(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.write_text("in the way")
    archive = Archive(root)
    with pytest.raises(OSError, match="exists"):
        archive.write(WHERE, [entry(0)])
    root.unlink()
    assert archive.write(WHERE, [entry(0)])[0] == 1
    archive.close()


def test_second_writer_is_kept_out_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = Archive(tmp_path), Archive(tmp_path)
    first.write(WHERE, [entry(0)])
    with pytest.raises(OSError, match="another archiver"):
        second.write(WHERE, [entry(1)])
    first.close()
    assert second.write(WHERE, [entry(1)])[0] == 1
    second.close()


def test_many_files_take_turns(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    places = [Path(f"2026-01-25/S{n}.raw") for n in range(70)]
    for number in range(2):
        for where in places:
            assert archive.write(where, [entry(number)])[0] == 1
    archive.close()
    assert all(len(list(read_archive(tmp_path / where))) == 2 for where in places)


def test_golden_file_reads_for_ever_as_it_was_written() -> None:
    said = json.loads((GOLDEN / "NIFTY.json").read_text())
    found = list(read_archive(GOLDEN / "NIFTY.raw"))
    assert len(found) == len(said)
    for read, expected in zip(found, said, strict=True):
        asked = msgspec.to_builtins(bodies.context_of(read))
        assert {name: asked[name] for name in expected["asked"]} == expected.pop("asked")
        assert bodies.body_of(read).decode() == expected.pop("body")
        assert {name: getattr(read, name) for name in expected} == expected
