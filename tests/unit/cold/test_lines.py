"""Lines of the ledger: which snapshot each stands for, and whether all of them have theirs."""

import pytest

from pipeline.cold.lines import SnapshotKey, check_agreement, line_of, revisions_of
from pipeline.errors import ColdStoreError

KEY = SnapshotKey(5, "BAJAJ-AUTO-20260127", "dhan", 2)
ID = "dhan:BAJAJ-AUTO-20260127:5000:0a1b:r2"


def test_line_says_which_snapshot_it_stands_for() -> None:
    line = line_of(ID, "1-0", 5, 8, 1)
    assert (line.key, line.raw_id) == (KEY, ID.removesuffix(":r2"))


def test_report_of_polls_stands_for_no_snapshot() -> None:
    line = line_of("dhan:NIFTY-20260127:5000:polls:r1", "1-0", 5, 0, 0)
    assert line.key is None
    assert revisions_of(line, 3) == [line.id]


@pytest.mark.parametrize("id", ["", "NIFTY-20260127:abc", "dhan:NIFTY-20260127:5000:0a1b"])
def test_id_that_names_no_chain_is_refused(id: str) -> None:
    with pytest.raises(ColdStoreError, match="does not say of which chain"):
        line_of(id, "1-0", 5, 8, 0)


def test_revisions_go_up_to_the_highest_that_is_known() -> None:
    line = line_of(ID, "1-0", 5, 8, 0)
    raw = ID.removesuffix(":r2")
    assert revisions_of(line, 1) == [f"{raw}:r1", f"{raw}:r2"]
    assert revisions_of(line, 3) == [f"{raw}:r1", f"{raw}:r2", f"{raw}:r3"]


def test_lines_that_have_their_snapshots_and_legs_agree() -> None:
    report = line_of("dhan:NIFTY-20260127:5000:polls:r1", "1-0", 5, 0, 0)
    check_agreement("NIFTY", [line_of(ID, "1-0", 5, 8, 1), report], [KEY], 8)


@pytest.mark.parametrize(
    ("snapshots", "legs", "message"),
    [
        ([], 8, "1 lines without a snapshot, 0 snapshots"),
        ([KEY, KEY], 8, "0 lines without a snapshot, 1 snapshots"),
        ([KEY._replace(rev=1)], 8, "1 lines without a snapshot, 1 snapshots"),
        ([KEY], 9, "8 legs were stored, and 9 are here"),
    ],
    ids=["none", "twice", "another", "legs"],
)
def test_what_does_not_agree_is_told(snapshots: list[SnapshotKey], legs: int, message: str) -> None:
    with pytest.raises(ColdStoreError, match=message):
        check_agreement("NIFTY", [line_of(ID, "1-0", 5, 8, 0)], snapshots, legs)
