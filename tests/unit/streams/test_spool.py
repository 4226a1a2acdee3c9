"""What a spool keeps: every record until it is dropped, whatever ends the process."""

import contextlib
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.entries import Appended
from pipeline.streams.segments import HEAD_BYTES, Place
from pipeline.streams.spool import NOWHERE, Spool, record_bytes, sync

EVERYTHING = 2**62


@contextlib.contextmanager
def opened(directory: Path, segment_bytes: int = 200) -> Iterator[Spool]:
    spool = Spool(directory, segment_bytes)
    try:
        yield spool
    finally:
        spool.close()


def stands(number: int, epoch: str = "one") -> Appended:
    return Appended(f"{1_700_000_000_000 + number}-{number}", number, epoch)


def held(spool: Spool) -> list[bytes]:
    return [record.data for record in spool.read(spool.head, EVERYTHING, EVERYTHING)]


def acks(spool: Spool) -> list[Appended | None]:
    return [acked for _place, acked in spool.acknowledged(spool.head, EVERYTHING)]


def filled(directory: Path, count: int) -> None:
    """Records of unlike length over several segments, all but the last two acknowledged."""
    with opened(directory) as spool:
        for number in range(count):
            place = spool.put(b"%d" % number * (number + 1))
            if number < count - 2:
                spool.acknowledge(place, stands(number))


def test_records_and_acknowledgements_come_back_in_order(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    with opened(tmp_path) as spool:
        assert held(spool) == [b"%d" % n * (n + 1) for n in range(9)]
        assert acks(spool) == [*(stands(n) for n in range(7)), None, None]
        assert spool.end.number == 9
        assert spool.put(b"after").number == 9
        assert held(spool)[-1] == b"after"


@pytest.mark.parametrize("epoch", ["", "1763837012345678", "x" * 32], ids=["none", "usual", "long"])
def test_acknowledgement_is_replaced_by_a_later_one(tmp_path: Path, epoch: str) -> None:
    with opened(tmp_path) as spool:
        first, second = spool.put(b"a"), spool.put(b"b")
        spool.acknowledge(first, stands(1))
        spool.acknowledge(second, stands(2))
        spool.acknowledge(first, stands(9, epoch))
    with opened(tmp_path) as spool:
        assert acks(spool) == [stands(9, epoch), stands(2)]


def test_epoch_that_no_slot_holds_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as spool, pytest.raises(ValueError, match="longer than 32"):
        spool.acknowledge(spool.put(b"a"), stands(1, "x" * 33))


def test_positions_outlive_the_process(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    with opened(tmp_path) as spool:
        places = [record.place for record in spool.read(spool.head, EVERYTHING, EVERYTHING)]
        assert spool.after is None
        spool.begin(stands(0, "before"))
        spool.confirm(places[6], stands(5))
        spool.drop(places[4])
    with opened(tmp_path) as spool:
        assert (spool.head, spool.confirmed, spool.after) == (places[4], places[6], stands(5))
        spool.doubt(stands(4))
    with opened(tmp_path) as spool:
        assert (spool.head, spool.confirmed, spool.after) == (places[4], places[4], stands(4))
        assert held(spool)[0] == b"44444"


def test_segment_is_deleted_when_all_in_it_is_done(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        places = [spool.put(b"x" * 60) for _n in range(10)]  # two to a segment
        assert len(list(tmp_path.glob("*.v1"))) == 5
        spool.drop(places[5])
        assert len(list(tmp_path.glob("*.v1"))) == 3
        assert spool.size == 6 * record_bytes(b"x" * 60)
        spool.drop(spool.end)
        assert list(tmp_path.glob("*.v1")) == []
        assert spool.end.number == 10
    with opened(tmp_path) as spool:
        assert spool.put(b"y").number == 10
        assert held(spool) == [b"y"]


def test_numbers_go_on_when_a_crash_left_files_that_were_done_with(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as spool:
        for _n in range(4):
            spool.put(b"x" * 60)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        spool.drop(spool.end)
    shutil.copy(tmp_path / "a" / "position", tmp_path / "b" / "position")
    with opened(tmp_path / "b") as spool:
        assert held(spool) == []
        assert spool.put(b"new").number == 4
        assert len(list((tmp_path / "b").glob("*.v1"))) == 1


def test_only_confirmed_segments_are_let_go(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        places = [spool.put(b"%d" % n * 60) for n in range(5)]
        sync(spool.unsynced())
        assert spool.let_go() is None  # in the middle of a sync, and not confirmed
        spool.synced()
        assert spool.let_go() is None
        spool.confirm(places[3], stands(2))
        assert spool.let_go() == 2
        assert spool.let_go() is None  # the next holds one that is not confirmed
        assert held(spool) == [b"2" * 60, b"3" * 60, b"4" * 60]
        spool.confirm(spool.end, stands(4))
        assert [spool.let_go(), spool.let_go(), spool.let_go()] == [2, 1, None]
        assert spool.size == 0
        assert spool.head.number == 5


def test_reading_stops_at_the_bound_and_gives_at_least_one(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for _n in range(6):
            spool.put(b"x" * 100)
        assert len(spool.read(spool.head, EVERYTHING, 250)) == 3
        assert len(spool.read(spool.head, EVERYTHING, 1)) == 1
        assert len(spool.read(spool.head, 2, EVERYTHING)) == 2
        assert spool.read(spool.end, EVERYTHING, 1) == []


def test_end_torn_at_any_byte_costs_the_torn_records_alone(tmp_path: Path) -> None:
    filled(tmp_path / "whole", 5)  # two in the first file, then one, one and one
    whole = [b"%d" % n * (n + 1) for n in range(5)]
    newest = max((tmp_path / "whole").glob("*.v1"))
    sizes = [record_bytes(data) for data in whole]
    first = int(newest.name.removesuffix(".v1"))
    for size in range(newest.stat().st_size):
        shutil.copytree(tmp_path / "whole", tmp_path / f"{size}")
        with open(tmp_path / f"{size}" / newest.name, "r+b") as file:
            file.truncate(size)
        left = first
        while sum(sizes[first : left + 1]) <= size:
            left += 1
        with opened(tmp_path / f"{size}") as spool:
            assert held(spool) == whole[:left]
            assert spool.cut_bytes == size - sum(sizes[first:left])
            assert spool.put(b"next").number == left
        with opened(tmp_path / f"{size}") as spool:
            assert held(spool) == [*whole[:left], b"next"]
            assert spool.cut_bytes == 0


def test_end_of_zeros_or_of_other_bytes_is_cut(tmp_path: Path) -> None:
    for name, torn in (("zeros", bytes(500)), ("noise", b"\x07\0\0\0" + b"noise" * 100)):
        filled(tmp_path / name, 2)
        with open(max((tmp_path / name).glob("*.v1")), "ab") as file:
            file.write(torn)
        with opened(tmp_path / name) as spool:
            assert held(spool) == [b"0", b"11"]
            assert spool.cut_bytes == len(torn)


def test_any_flipped_byte_of_a_slot_only_forgets_where_the_record_stands(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    path = min(tmp_path.glob("*.v1"))
    whole = path.read_bytes()
    for offset in range(8, HEAD_BYTES):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x55]) + whole[offset + 1 :])
        with opened(tmp_path) as spool:
            assert held(spool) == [b"0", b"11", b"222", b"3333"]
            assert acks(spool) == [None, stands(1), None, None]


def test_position_torn_at_any_byte_asks_for_everything_again(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    with opened(tmp_path) as spool:
        spool.begin(stands(0))
        spool.confirm(spool.end, stands(8))
    whole = (tmp_path / "position").read_bytes()
    for size in range(1, len(whole)):
        (tmp_path / "position").write_bytes(whole[:size])
        with opened(tmp_path) as spool:
            assert spool.confirmed == spool.head == Place(0, 0)
            assert spool.after == NOWHERE
            assert len(held(spool)) == 9


def test_record_that_the_disk_does_not_take_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path, 10_000) as spool:
        spool.put(b"before")
        before = spool.size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 500, limits[1]))
        try:
            with pytest.raises(OSError, match=r"took \d+ of"):
                spool.put(b"x" * 1_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert spool.size == before
        spool.put(b"after")
        assert held(spool) == [b"before", b"after"]
    with opened(tmp_path) as spool:
        assert held(spool) == [b"before", b"after"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.binary(min_size=1, max_size=150)),
        st.tuples(st.just("confirm"), st.integers(0, 10)),
        st.tuples(st.just("drop"), st.integers(0, 10)),
        st.tuples(st.sampled_from(["let_go", "doubt", "open", "sync"]), st.none()),
    ),
    max_size=40,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_spool_holds_what_a_list_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes | int | None]]
) -> None:
    directory = tmp_path_factory.mktemp("steps")
    spool = Spool(directory, 200)
    records: list[bytes] = []
    head = confirmed = 0
    places = {}
    for step, value in steps:
        if step == "put" and isinstance(value, bytes):
            place = spool.put(value)
            places[place.number] = place
            spool.acknowledge(place, stands(len(records)))
            records.append(value)
        elif step == "confirm" and isinstance(value, int):
            confirmed = min(confirmed + value, len(records))
            spool.confirm(places.get(confirmed, spool.end), stands(confirmed))
        elif step == "drop" and isinstance(value, int):
            head = min(head + value, confirmed)
            spool.drop(places.get(head, spool.end))
        elif step == "let_go":
            head += spool.let_go() or 0
        elif step == "doubt":
            confirmed = head
            spool.doubt(stands(0))
        elif step == "open":
            spool.close()
            spool = Spool(directory, 200)
        elif step == "sync":
            sync(spool.unsynced())
            spool.synced()
        assert head <= confirmed
        assert spool.head.number == head
        assert (spool.confirmed.number, spool.end.number) == (confirmed, len(records))
        assert held(spool) == records[head:]
        assert acks(spool) == [stands(n) for n in range(head, len(records))]
        on_disk = sum(path.stat().st_size for path in directory.glob("*.v1"))
        assert spool.size == on_disk
        kept = sum(record_bytes(data) for data in records[head:])
        assert on_disk <= kept + 2 * 200 + 2 * record_bytes(bytes(150))
    spool.close()
