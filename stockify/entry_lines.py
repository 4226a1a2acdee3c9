"""What an entry says, for people: one line of it, or all.

It knows our own types and shows of any other what can be shown. What does not decode is said, not
raised.
"""

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from pipeline import bodies, frames, polls
from pipeline.clock import to_rfc3339
from pipeline.entries import Entry, decode_entry
from pipeline.errors import DecodeError
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    RAW_CHAIN_TYPE,
    RAW_EXPIRIES_TYPE,
    RAW_POLLS_TYPE,
)
from stockify.bus_view import size

_RAW = (RAW_CHAIN_TYPE, RAW_EXPIRIES_TYPE)
_POLLS = (RAW_POLLS_TYPE, ENRICHED_POLLS_TYPE)
_SHOWN_LEGS = 6
_SHOWN_COLUMNS = ("strike", "kind", "last", "bid", "ask", "open_interest", "iv", "delta", "iv_fit")
_LONGEST_TEXT = 400

Fields = Mapping[bytes, bytes]


def line(stream_id: str, fields: Fields) -> str:
    """One line: stream id, sequence, type, key, time of receipt, and what the payload comes to."""
    entry = decode_entry(stream_id.encode(), dict(fields))
    if not entry.type:
        return f"{stream_id}  #{entry.seq}  {_plain(fields)}"
    when = to_rfc3339(entry.ts) if entry.ts else "-"
    about = _dead(fields) if b"reason" in fields and b"source_id" in fields else _about(entry)
    return f"{stream_id}  #{entry.seq}  {entry.type}  {entry.key or '-'}  {when}  {about}".rstrip()


def full(stream_id: str, fields: Fields) -> Iterator[str]:
    """Lines: every field that is text, then the payload as far as it can be decoded."""
    yield stream_id
    for name, value in fields.items():
        if name not in (b"data", b"meta"):
            yield f"  {name.decode('utf-8', 'replace'):<11}{_text(value)}"
    entry = decode_entry(stream_id.encode(), dict(fields))
    if entry.meta:
        yield from _meta(entry)
    if b"data" in fields:
        yield f"  data       {size(len(entry.data))}{f', {entry.enc}' if entry.enc else ''}"
        try:
            yield from (f"    {text}" for text in _payload(entry))
        except DecodeError as error:
            yield f"    not decoded: {error}"


def _about(entry: Entry) -> str:
    held = f"{size(len(entry.data))}{f' {entry.enc}' if entry.enc else ''}"
    try:
        if entry.type == ENRICHED_CHAIN_TYPE:
            header, _columns = frames.open_frame(entry.data)
            found = [f"{header.n} contracts"]
            found += [
                f"{name} {value:.6g}"
                for name, value in (("spot", header.spot), ("forward", header.forward))
                if value is not None
            ]
            if header.aggregates.atm_iv is not None:
                found.append(f"iv {header.aggregates.atm_iv:.1%}")
            return f"{', '.join(found)}  {held}"
        if entry.type == ENRICHED_EXPIRIES_TYPE:
            return f"{len(frames.decode_expiries(entry.data).expiries)} expiries  {held}"
        if entry.type in _POLLS:
            report = polls.decode_report(entry.data)
            return f"{report.answered} of {report.due} polls answered  {held}"
        if entry.type in _RAW:
            asked = bodies.context_of(entry)
            return f"{asked.provider} {asked.path} {asked.status}  {held}"
    except DecodeError as error:
        return f"{held}  not decoded: {error}"
    return held


def _dead(fields: Fields) -> str:
    said = {name: _text(fields.get(name, b"")) for name in (b"group", b"reason", b"error")}
    attempts = _text(fields.get(b"attempts", b"?"))
    return f"{said[b'reason']} in {said[b'group']} after {attempts}: {said[b'error'][:120]}"


def _plain(fields: Fields) -> str:
    """Fields of an entry without a type, such as a contract in plain text."""
    shown = (
        f"{name.decode('utf-8', 'replace')}={_text(value)}"
        for name, value in fields.items()
        if name not in (b"seq", b"epoch", b"src")
    )
    text = " ".join(shown)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _meta(entry: Entry) -> Iterator[str]:
    try:
        values = msgspec.msgpack.decode(entry.meta)
    except msgspec.MsgspecError as error:
        yield f"  meta       {size(len(entry.meta))}, not msgpack: {error}"
        return
    named = values.items() if isinstance(values, dict) else enumerate(values)
    yield "  meta"
    for name, value in named:
        yield f"    {name}: {value}"


def _payload(entry: Entry) -> Iterator[str]:
    if entry.type in _RAW:
        yield _shortened(bodies.body_of(entry))
    elif entry.type == ENRICHED_CHAIN_TYPE:
        chain = frames.decode_frame(entry.data)
        for name, value in msgspec.to_builtins(chain.header).items():
            yield f"{name}: {value}"
        yield from _legs(chain.legs)
    elif entry.type == ENRICHED_EXPIRIES_TYPE:
        listed = frames.decode_expiries(entry.data)
        yield ", ".join(day.isoformat() for day in listed.expiries)
    elif entry.type in _POLLS:
        for name, value in msgspec.to_builtins(polls.decode_report(entry.data)).items():
            yield f"{name}: {value}"
    else:
        yield _shortened(entry.data)


def _legs(legs: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield "  ".join(f"{name:>13}" for name in _SHOWN_COLUMNS)
    count = len(legs["strike"])
    for row in range(min(count, _SHOWN_LEGS)):
        yield "  ".join(f"{legs[name][row]:>13.6g}" for name in _SHOWN_COLUMNS)
    if count > _SHOWN_LEGS:
        yield f"… {count - _SHOWN_LEGS} more legs"


def _shortened(data: bytes) -> str:
    text = _text(data[: 2 * _LONGEST_TEXT])
    return text if len(data) <= len(text.encode()) else f"{text} …"


def _text(value: bytes) -> str:
    """Text as it stands; what is none as its escapes."""
    text = value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
