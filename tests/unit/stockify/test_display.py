import io

import pytest
from rich.console import Console

from stockify import display
from stockify.display import PlainDisplay, TerminalDisplay
from stockify.instance import ProcessStatus, Status


def status(**processes: ProcessStatus) -> Status:
    return Status(
        state="ready",
        at="2026-01-20T04:00:00.000000Z",
        pid=1,
        since="2026-01-20T03:00:00.000000Z",
        gateway="http://127.0.0.1:8700",
        redis="",
        database="",
        processes=processes,
    )


PROCESSOR = ProcessStatus(
    state="ready",
    pid=42,
    uptime_s=125,
    rates={"entries_written": 4.13, "contracts": 1_530.2, "entries_read": 9.0},
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (125, "2 m 5 s"), (25_900, "7 h 11 m"), (273_700, "3 d 4 h")],
)
def test_span_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert display.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.31, "0.3"), (4.13, "4.1"), (57.2, "57"), (1_530.2, "1,530")]
)
def test_rate_has_the_digits_that_matter(value: float, text: str) -> None:
    assert display.amount(value) == text


def test_line_shows_the_main_rates_and_no_others() -> None:
    assert display.plain_line("processor", PROCESSOR) == (
        "processor  ready      pid 42, up 2 m 5 s 4.1 entries/s, 1,530 contracts/s"
    )


def test_errors_are_shown_only_when_there_are_any() -> None:
    quiet = ProcessStatus(state="ready", rates={"entries_appended": 2, "provider_errors": 0})
    loud = ProcessStatus(state="ready", rates={"entries_appended": 2, "provider_errors": 0.5})
    assert display.rates_text("ingest", quiet) == "2.0 entries/s"
    assert display.rates_text("ingest", loud) == "2.0 entries/s, 0.5 errors/s"


def test_line_of_a_dead_process_says_why() -> None:
    dead = ProcessStatus(state="crash-loop", reason="exit 1, death 4 in a row", restarts=4)
    line = display.plain_line("storage", dead)
    assert line == "storage    crash-loop restarts 4 exit 1, death 4 in a row"


def test_plain_display_prints_a_process_again_only_when_it_changed() -> None:
    stream = io.StringIO()
    shown = PlainDisplay(stream)
    shown.show(status(processor=PROCESSOR))
    shown.show(status(processor=PROCESSOR))
    assert stream.getvalue().count("processor") == 1
    shown.show(status(processor=ProcessStatus(state="restarting")))
    assert stream.getvalue().count("processor") == 2


def test_plain_display_says_which_step_failed() -> None:
    stream = io.StringIO()
    shown = PlainDisplay(stream)
    with pytest.raises(OSError, match="no"), shown.step("Valkey"):
        raise OSError("no")
    with shown.step("Postgres"):
        pass
    failed, done = stream.getvalue().splitlines()
    assert failed.startswith("✗ Valkey (")
    assert done.startswith("✓ Postgres (")


def test_reader_that_has_gone_is_no_reason_to_stop() -> None:
    stream = io.StringIO()
    stream.close()
    PlainDisplay(stream).say("nobody hears")


def test_long_address_is_printed_whole_on_a_narrow_terminal() -> None:
    stream = io.StringIO()
    shown = TerminalDisplay(Console(file=stream, width=40, force_terminal=True))
    address = f"http://127.0.0.1:8700/#token={'a1.b_-' * 60}"
    shown.say(f"\n  {address}\n")
    shown.close()
    assert address in stream.getvalue()


def test_terminal_shows_the_step_the_table_and_what_was_said() -> None:
    stream = io.StringIO()
    shown = TerminalDisplay(Console(file=stream, width=100, force_terminal=True, color_system=None))
    with shown.step("Valkey"):
        pass
    shown.show(status(processor=PROCESSOR))
    shown.say("said while the table is there")
    shown.close()
    text = stream.getvalue()
    assert "✓ Valkey" in text
    assert "1,530 contracts/s" in text
    assert "said while the table is there" in text
