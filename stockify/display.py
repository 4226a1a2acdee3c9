"""What `stockify up` shows: steps while it starts and stops, then one line a process.

On a terminal it redraws a table; into a file or pipe it prints plain lines, one status line a
process now and then and whenever one changes its state. It only shows; it decides nothing.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from stockify.instance import ProcessStatus, Status

PLAIN_EVERY_S = 30.0
REDRAW_S = 0.1
_FILE_COLUMNS = 200
# What a line shows of all a process counts: the counter, and the word beside its rate.
SHOWN_RATES = {
    "ingest": (("entries_appended", "entries"), ("provider_errors", "errors")),
    "processor": (("entries_written", "entries"), ("contracts", "contracts")),
    "storage": (("rows_written", "rows"), ("dead_letters", "dead letters")),
    "realtime": (("latest_written", "latest"), ("live_published", "live")),
    "trimmer": (("entries_trimmed", "trimmed"),),
    "gateway": (("requests", "requests"), ("messages_sent", "messages")),
    "simulator": (("requests", "requests"),),
    "valkey": (("commands", "commands"),),
}
QUIET_WORDS = ("errors", "dead letters")  # shown only when there are any
_COLOURS = {
    "ready": "green",
    "starting": "cyan",
    "draining": "cyan",
    "stopped": "dim",
    "degraded": "yellow",
    "silent": "yellow",
}


class Display(Protocol):
    """What the supervisor tells."""

    def step(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Something that takes a while; an exception out of it marks it as failed."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, status: Status) -> None:
        """The present state of every process."""

    def close(self) -> None:
        """Stop redrawing."""


class PlainDisplay:
    """Lines for a file, a pipe or a log collector."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, tuple[str, float]] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print the step when it is over, with its seconds."""
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.say(f"✗ {name} ({time.monotonic() - began:.1f} s)")
            raise
        self.say(f"✓ {name} ({time.monotonic() - began:.1f} s)")

    def say(self, text: str) -> None:
        """Print a line; a reader that has gone is no reason to stop."""
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._stream, flush=True)

    def show(self, status: Status) -> None:
        """Print the processes that changed, and each now and then."""
        now = time.monotonic()
        for name, process in status.processes.items():
            state, at = self._shown.get(name, ("", 0.0))
            if state != process.state or now - at >= PLAIN_EVERY_S:
                self._shown[name] = (process.state, now)
                self.say(plain_line(name, process))

    def close(self) -> None:
        """Nothing is redrawn here."""


class TerminalDisplay:
    """A live region at the bottom of a terminal; what is said stays above it.

    A terminal that was closed is no reason to stop: the drain that follows goes on unseen.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: dict[str, Spinner] = {}
        self._table: Table | None = None
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._render)
        self._live.start()
        self._closing = threading.Event()
        self._refresher = threading.Thread(target=self._refresh_often, daemon=True)
        self._refresher.start()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Spin while it lasts, then leave a line with its seconds."""
        began = time.monotonic()
        self._steps[name] = Spinner("dots", text=f" {name}")
        mark = "[red]✗[/red]"
        try:
            yield
            mark = "[green]✓[/green]"
        finally:
            del self._steps[name]
            with contextlib.suppress(OSError):
                self._console.print(f"{mark} {name} [dim]{time.monotonic() - began:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """Print a line above the live region, whole: the terminal wraps it, so it can be copied."""
        with contextlib.suppress(OSError):
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def show(self, status: Status) -> None:
        """Redraw the table."""
        self._table = table(status)
        self._refresh()

    def close(self) -> None:
        """Take the table away and stop redrawing; what was said stays."""
        self._closing.set()
        self._refresher.join()
        self._table = None
        with contextlib.suppress(OSError):
            self._live.stop()

    def _refresh_often(self) -> None:
        """Turns the spinners; rich's own thread would end with a traceback on a closed terminal."""
        while not self._closing.wait(REDRAW_S):
            if self._steps:
                self._refresh()

    def _refresh(self) -> None:
        with contextlib.suppress(OSError):
            self._live.refresh()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = list(self._steps.values())
        if self._table is not None:
            parts.append(self._table)
        return Group(*parts)


def wide_console() -> Console:
    """Where a table is printed: as wide as the terminal, wide into a file or pipe."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_COLUMNS
    return console


def table(status: Status) -> Table:
    """The instance as a table, one line a process."""
    result = Table(box=None, pad_edge=False, header_style="dim")
    result.add_column("process")
    result.add_column("state")
    for title in ("pid", "up", "restarts"):
        result.add_column(title, justify="right")
    result.add_column("rates", overflow="fold")
    for name, process in status.processes.items():
        result.add_row(
            name,
            Text(process.state, _COLOURS.get(process.state, "red")),
            str(process.pid or ""),
            duration(process.uptime_s) if process.pid else "",
            str(process.restarts or ""),
            _detail(name, process),
        )
    return result


def plain_line(name: str, process: ProcessStatus) -> str:
    """One process as a line of text."""
    parts = [f"{name:<10}", f"{process.state:<10}"]
    if process.pid:
        parts.append(f"pid {process.pid}, up {duration(process.uptime_s)}")
    if process.restarts:
        parts.append(f"restarts {process.restarts}")
    detail = _detail(name, process)
    return " ".join([*parts, detail]).rstrip()


def rates_text(name: str, process: ProcessStatus) -> str:
    """The main rates of a process, per second: `4.1 entries/s, 1,530 contracts/s`."""
    parts = []
    for counter, word in SHOWN_RATES.get(name, ()):
        rate = process.rates.get(counter)
        if rate is not None and (rate or word not in QUIET_WORDS):
            parts.append(f"{amount(rate)} {word}/s")
    clients = process.gauges.get("clients")
    if clients is not None:
        parts.append(f"{clients:.0f} clients")
    return ", ".join(parts)


def amount(value: float) -> str:
    """A rate with three digits or so: 0.3, 4.1, 57, 1,530."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def counted(number: int, one: str, many: str = "") -> str:
    """So many of something: `1 entry`, `2,000 entries`; without `many` an s is added."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A span in its two largest units: 42 s, 3 m 5 s, 7 h 12 m, 3 d 4 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def _detail(name: str, process: ProcessStatus) -> str:
    rates = rates_text(name, process)
    return f"{rates}  {process.reason}".strip() if process.reason else rates
