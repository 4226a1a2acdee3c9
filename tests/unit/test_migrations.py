"""What is pending, and when the files and the record contradict each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import MigrationError
from pipeline.migrations import Edition, Migration, load, parse, pending
from tests.support.rooms import CHECKOUT

SQUAWK = Path(sys.executable).with_name("squawk")
# Findings that are meant. A table that becomes a partitioned one is renamed, made like its pattern
# and dropped while it is empty; aggregates take the names of the rollup tables. The rest locks a
# table that is young or has few rows.
MEANT = {
    "renaming-table": {"0004_partitions.sql", "0012_tick_partitions.sql"},
    "ban-drop-table": {
        "0004_partitions.sql",
        "0012_tick_partitions.sql",
        "0018_candle_functions.sql",
    },
    "ban-drop-function": {"0018_candle_functions.sql"},
    "constraint-missing-not-valid": {"0006_chain_shape.sql", "0008_coverage.sql"},
    "require-concurrent-index-creation": {"0007_ledger_times.sql"},
}
FILES = [
    ("0001_all.sql", "CREATE TABLE a ();"),
    ("0002_native.sql", "-- requires: plain\nCREATE TABLE b ();"),
    ("0003_hyper.sql", "-- requires: timescale\nCREATE TABLE c ();"),
    ("0004_columns.sql", "-- requires: community\n-- not transactional\nCREATE TABLE d ();"),
]


def record(*migrations: Migration) -> dict[int, tuple[str, str]]:
    return {one.number: (one.name, one.checksum) for one in migrations}


@pytest.mark.parametrize(
    ("edition", "numbers"), [("plain", [1, 2]), ("apache", [1, 3]), ("community", [1, 3, 4])]
)
def test_each_edition_takes_its_own(edition: Edition, numbers: list[int]) -> None:
    assert [one.number for one in pending(parse(FILES), {}, edition)] == numbers


def test_applied_is_not_pending() -> None:
    files = parse(FILES)
    assert pending(files, record(files[0], files[1]), "plain") == []


def test_marked_file_becomes_pending_when_the_licence_changes() -> None:
    files = parse(FILES)
    assert pending(files, record(files[0], files[2]), "community") == [files[3]]


def test_file_changed_after_it_was_applied_is_refused() -> None:
    files = parse(FILES)
    changed = parse([("0001_all.sql", "CREATE TABLE other ();"), *FILES[1:]])
    with pytest.raises(MigrationError, match="0001_all was changed"):
        pending(changed, record(files[0]), "plain")


def test_database_of_a_newer_version_is_refused() -> None:
    files = parse(FILES)
    with pytest.raises(MigrationError, match="0002_native, which this version does not know"):
        pending(files[:1], record(files[0], files[1]), "plain")


def test_unmarked_file_below_an_applied_one_is_refused() -> None:
    files = parse([*FILES, ("0000_late.sql", "CREATE TABLE e ();")])
    with pytest.raises(MigrationError, match="0000_late is new"):
        pending(files, record(files[1]), "plain")


@pytest.mark.parametrize(
    "files",
    [
        [("1_short.sql", "")],
        [("0001_a.sql", ""), ("0001_b.sql", "")],
        [("0001_a.sql", "-- requires: oracle\n")],
    ],
    ids=["file name", "same number", "unknown edition"],
)
def test_malformed_files_are_refused(files: list[tuple[str, str]]) -> None:
    with pytest.raises(MigrationError):
        parse(files)


def test_marks_are_read() -> None:
    columns = parse(FILES)[3]
    assert (columns.requires, columns.is_transactional) == ("community", False)


def test_shipped_files_have_a_number_each() -> None:
    names = sorted(path.stem for path in (CHECKOUT / "sql").glob("[0-9]*.sql"))
    assert [f"{one.number:04d}_{one.name}" for one in load()] == names


def findings(*files: Path) -> dict[str, set[str]]:
    """The names of the files in which squawk finds something, by rule."""
    done = subprocess.run(
        [SQUAWK, "--config", CHECKOUT / ".squawk.toml", "--reporter", "json", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for one in json.loads(done.stdout):
        found.setdefault(one["rule_name"], set()).add(Path(one["file"]).name)
    return found


def test_shipped_files_have_only_findings_that_are_meant() -> None:
    assert findings(*sorted((CHECKOUT / "sql").glob("[0-9]*.sql"))) == MEANT


def test_dangerous_statement_is_found(tmp_path: Path) -> None:
    file = tmp_path / "0001_danger.sql"
    file.write_text("ALTER TABLE ledger ALTER COLUMN n TYPE bigint;")
    assert findings(file) == {"changing-column-type": {file.name}}
