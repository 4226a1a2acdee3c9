from pathlib import Path

import pytest

from stockify.logs import RotatingLog


def test_log_is_cut_at_a_line_end_when_full(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", max_bytes=10, kept=2)
    log.write(b"one\ntwo\n")
    log.write(b"three\nfour")
    log.write(b"\n")
    log.close()
    assert (tmp_path / "a.log.1").read_bytes() == b"one\ntwo\nthree\n"
    assert (tmp_path / "a.log").read_bytes() == b"four\n"


def test_no_more_than_the_kept_files_stay(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", max_bytes=4, kept=2)
    for number in range(9):
        log.write(b"%03d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    assert (tmp_path / "a.log.2").read_bytes() < (tmp_path / "a.log.1").read_bytes()


def test_log_goes_on_where_an_earlier_run_left_off(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = RotatingLog(tmp_path / "a.log", max_bytes=8)
        log.write(text)
        log.close()
    whole = (tmp_path / "a.log.1").read_bytes() + (tmp_path / "a.log").read_bytes()
    assert whole == b"first\nsecond\n"


def test_endless_line_is_cut_all_the_same(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", max_bytes=10, kept=1)
    for _ in range(10):
        log.write(b"x" * 5)
    log.close()
    assert (tmp_path / "a.log").stat().st_size <= 20


def test_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log")
    log.write(b"x\n")
    log.close()
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", [Path("/dev/full"), Path("/nowhere/a.log")], ids=["full", "gone"])
def test_log_that_cannot_be_written_is_counted_and_no_failure(path: Path) -> None:
    log = RotatingLog(path)
    log.write(b"lost\n")
    log.close()
    assert log.lost_bytes == 5
