"""How the bus stands, as tables for people."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.streams.overview import View
from pipeline.streams.state import GroupState, Memory, StreamState
from stockify.display import duration


def tables(view: View) -> RenderableType:
    """The view as two tables and a line about memory."""
    parts: list[RenderableType] = [_streams(view), Text()]
    if any(stream.groups for stream in view.streams):
        parts += [_groups(view.streams), Text()]
    parts += [Text(_memory(server)) for server in view.servers]
    return Group(*parts)


def _streams(view: View) -> Table:
    table = _table(("stream",), "entries", "appended", "bytes", "headroom", "oldest")
    for stream in view.streams:
        room = view.headroom(stream)
        low = room is not None and room < 0
        if not stream.is_there and stream.head_seq:
            table.add_row(stream.name, Text("lost", "red"), f"{stream.head_seq:,}", "", "", "")
            continue
        table.add_row(
            stream.name,
            f"{stream.length:,}",
            f"{stream.head_seq:,}",
            size(stream.bytes),
            Text("-" if room is None else size(room), "red" if low else ""),
            duration(stream.oldest_age_s) if stream.oldest else "",
        )
    return table


def _groups(streams: Iterable[StreamState]) -> Table:
    table = _table(("stream", "group"), "lag", "pending", "oldest pending", "missed", "consumers")
    for title in ("class", "owner", ""):
        table.add_column(title)
    for stream in streams:
        for group in stream.groups:
            table.add_row(
                stream.name,
                group.name,
                _lag(group),
                f"{group.pending:,}" if group.pending else "",
                duration(group.oldest_pending_age_s) if group.pending else "",
                Text(f"{group.missed:,}", "red") if group.missed else "",
                str(group.consumers),
                group.card.kind.replace("_", " "),
                f"{_member(group.owner)} ({group.owner_for_s:.1f} s)" if group.owner else "",
                _note(group),
            )
    return table


def _member(instance: str) -> str:
    """`worker@host:process` without what tells it from one before of the same number."""
    return ":".join(instance.split(":")[:2])


def _lag(group: GroupState) -> Text:
    if group.lag is None:
        return Text("?", "yellow")
    text = f"{group.lag:,}" if group.lag_is_exact else f"~{group.lag:,}"
    return Text(text, "yellow" if group.lag else "")


def _note(group: GroupState) -> str:
    notes = [] if group.is_there else ["lost: it comes back at its cursor"]
    if group.bookmark is not None:
        skipped = f", {group.bookmark.skipped:,} skipped" if group.bookmark.skipped else ""
        notes.append(f"{group.bookmark.reason} at {group.bookmark.id}{skipped}")
    return "; ".join(notes)


def _memory(server: Memory) -> str:
    if server.headroom is None:
        return f"server: {size(server.used)} used, no limit of its own"
    return f"server: {size(server.used)} used, {size(server.headroom)} until it refuses to write"


def size(count: int) -> str:
    """Bytes with three digits or so: 812 B, 3.1 MB, 1,204 MB."""
    sign, value = ("-", float(-count)) if count < 0 else ("", float(count))
    for unit in ("B", "kB", "MB"):
        if value < 1_000 or unit == "MB":
            return f"{sign}{value:,.0f} {unit}" if value >= 10 else f"{sign}{value:.3g} {unit}"
        value /= 1_000
    raise AssertionError("unreachable: the last unit returns")


def _table(names: tuple[str, ...], *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in names:
        table.add_column(title, no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right")
    return table
