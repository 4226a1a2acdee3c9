from pathlib import Path

import pytest

from stockify import log_reader
from stockify.log_reader import LineParser
from stockify.logs import RotatingLog

OURS = '{"service":"ingest","event":"batch","entries":3,"level":"info","at":"2026-01-20T04:00:01Z"}'


def test_own_event_is_taken_apart() -> None:
    line = LineParser("ingest").parse(OURS + "\n")
    assert (line.source, line.level, line.event, line.fields) == (
        *("ingest", "info", "batch"),
        {"entries": 3},
    )
    assert line.at == 1_768_881_601


@pytest.mark.parametrize(
    ("text", "level", "event"),
    [
        ("12:M 20 Jan 2026 04:00:01.500 # Low memory", "warning", "Low memory"),
        ("12:M 20 Jan 2026 04:00:01.500 * Ready", "info", "Ready"),
        ("2026-01-20 04:00:01.500 UTC [9] LOG:  ready", "info", "[9] LOG:  ready"),
        ("2026-01-20 04:00:01.500 UTC [9] FATAL:  no", "error", "[9] FATAL:  no"),
        ("2026-01-20 04:00:01.500 UTC [9] WARNING:  hm", "warning", "[9] WARNING:  hm"),
    ],
    ids=["valkey-warning", "valkey-notice", "postgres-log", "postgres-fatal", "postgres-warning"],
)
def test_engines_own_forms_are_read(text: str, level: str, event: str) -> None:
    line = LineParser("engine").parse(text)
    assert (line.at, line.level, line.event) == (1_768_881_601.5, level, event)


def test_traceback_belongs_to_the_line_before_it() -> None:
    parser = LineParser("ingest")
    first = parser.parse(OURS)
    traceback = parser.parse("Traceback (most recent call last):")
    last = parser.parse("ValueError: x")
    assert (traceback.at, traceback.level) == (first.at, "error")
    assert (last.at, last.level) == (first.at, "error")


def test_password_in_a_url_is_hidden() -> None:
    line = LineParser("x").parse("cannot reach postgresql://stockify:s3cr3t@127.0.0.1:5490/db")
    assert "s3cr3t" not in line.event
    assert "postgresql://stockify:***@127.0.0.1" in line.event


def write(path: Path, *events: tuple[int, str, str]) -> None:
    lines = [
        f'{{"event":"{event}","level":"{level}","at":"2026-01-20T04:00:{at:02d}Z"}}'
        for at, level, event in events
    ]
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_sources_are_merged_by_time_and_the_newest_kept(tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    write(one, (1, "info", "a"), (3, "info", "c"))
    write(two, (2, "info", "b"), (4, "info", "d"))
    lines = log_reader.last_lines({"one": one, "two": two}, 3)
    assert [(line.source, line.event) for line in lines] == [
        *(("two", "b"), ("one", "c"), ("two", "d")),
    ]


def test_what_is_less_grave_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    write(path, (1, "info", "a"), (2, "warning", "b"), (3, "error", "c"))
    lines = log_reader.last_lines({"one": path}, 10, "warning")
    assert [line.event for line in lines] == ["b", "c"]


def test_last_lines_reach_into_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    write(path.with_name("one.log.1"), (1, "info", "old"))
    write(path, (2, "info", "new"))
    assert [line.event for line in log_reader.last_lines({"one": path}, 10)] == ["old", "new"]


def test_following_gives_what_is_added_and_survives_rotation(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    log = RotatingLog(path, max_bytes=60)
    log.write(b"before\n")
    following = log_reader.follow({"one": path})
    assert next(following) == []
    log.write(b"half ")
    assert next(following) == []
    log.write(b"a line\n")
    assert [line.event for line in next(following)] == ["half a line"]
    log.write(b"x" * 40 + b"\n" + b"y" * 20 + b"\n")
    log.write(b"after\n")
    log.close()
    assert path.with_name("one.log.1").exists()
    assert [line.event for line in next(following)] == ["x" * 40, "y" * 20, "after"]


def test_log_that_is_not_there_yet_is_followed_from_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    following = log_reader.follow({"one": path})
    assert next(following) == []
    path.write_text("first\n")
    assert [line.event for line in next(following)] == ["first"]
