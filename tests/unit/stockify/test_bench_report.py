"""What a bench says to a program, and which part of it is asked for."""

from click.testing import CliRunner

from stockify import bench
from stockify.bench.faults.measuring import FAULTS
from stockify.bench.report import Column, Grid, Line, Report

COLUMNS = (Column("runs", "runs"), Column("recovery_s_max", "recovery, s", ".1f"))
ROWS = {"kill": {"runs": 50, "recovery_s_max": 1.23456789}}


def test_grid_with_a_key_is_an_object_of_objects_in_which_whole_numbers_stay_whole() -> None:
    report = Report("t", "c", [Line("whole", "w", 2.0, "")], [Grid("g", COLUMNS, ROWS, key="all")])
    figures = report.figures
    assert figures == {"whole": 2.0, "all": {"kill": {"runs": 50, "recovery_s_max": 1.2346}}}
    assert isinstance(figures["all"], dict)
    assert isinstance(figures["all"]["kill"]["runs"], int)


def test_grid_without_a_key_has_a_figure_for_each_row_and_column() -> None:
    report = Report("t", "c", [], [Grid("g", COLUMNS, ROWS)])
    assert report.figures == {"kill_runs": 50, "kill_recovery_s_max": 1.2346}


def test_part_that_a_bench_does_not_have_is_refused_and_named() -> None:
    done = CliRunner().invoke(bench.command, ["faults", "--only", "flood"])
    assert done.exit_code == 2
    assert "kill_worker" in done.output
    done = CliRunner().invoke(bench.command, ["spine", "--only", "kill_worker"])
    assert done.exit_code == 2
    assert "spine has no parts" in done.output


def test_every_fault_strikes_in_a_short_run_and_workers_die_fifty_times_in_a_full_one() -> None:
    assert all(fault.short.runs > 0 for fault in FAULTS.values())
    assert FAULTS["kill_worker"].full.runs >= 50
    assert FAULTS["stop_worker"].full.seconds >= 10.0
