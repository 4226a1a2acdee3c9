from pathlib import Path

from pipeline.streams.spool import Spool


def emptied(spool: Spool) -> list[bytes]:
    records = []
    while (record := spool.peek()) is not None:
        records.append(record)
        spool.drop()
    return records


def test_records_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    assert all(spool.put(b"%d" % n * 3) for n in range(4))
    spool.drop()
    spool.close()
    again = Spool(tmp_path, 10_000)
    assert again.records == 3
    assert emptied(again) == [b"111", b"222", b"333"]
    again.close()


def test_full_spool_refuses_and_takes_again_once_emptied(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40)
    assert spool.put(b"x" * 30)
    assert not spool.put(b"y" * 30)
    spool.drop()
    assert spool.put(b"z" * 30)
    assert emptied(spool) == [b"z" * 30]
    spool.close()


def test_torn_last_record_is_cut_off(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    spool.put(b"whole")
    spool.put(b"torn by a crash")
    spool.close()
    records = tmp_path / "records"
    records.write_bytes(records.read_bytes()[:-4])
    again = Spool(tmp_path, 10_000)
    again.put(b"after")
    assert emptied(again) == [b"whole", b"after"]
    again.close()


def test_emptied_spool_starts_over_and_loses_nothing_later(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    spool.put(b"a" * 500)
    assert emptied(spool) == [b"a" * 500]
    for n in range(100):
        spool.put(b"%03d" % n * 5)
    spool.close()
    again = Spool(tmp_path, 10_000)
    assert len(emptied(again)) == 100
    assert (tmp_path / "records").stat().st_size == 0
    again.close()
