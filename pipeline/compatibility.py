"""Whether entries written under one schema are read under another, and what a level asks. Pure.

A schema is a JSON Schema document, compared as our codecs read and write it: a reader passes over
what it does not know unless it is closed, fills in what is absent where that is optional, and takes
an integer for a number. A writer writes what it declares and nothing else. Words of JSON Schema
that no type of ours makes (`allOf`, `not`, …) are not weighed: the reader may drop one or keep it
as it is. It checks schemas, never entries.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from pipeline.documents import (
    LOWER_BOUNDS,
    PROSE,
    UPPER_BOUNDS,
    Document,
    branches,
    types_of,
    values_of,
)
from pipeline.errors import DecodeError


class Level(StrEnum):
    """What a subject's schemas owe each other; `_TRANSITIVE`: to all, otherwise to the newest."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def is_transitive(self) -> bool:
        """Every schema counts, not only the newest."""
        return self.endswith("_TRANSITIVE")

    @property
    def is_backward(self) -> bool:
        """A later reader reads what was written earlier."""
        return self.startswith(("BACKWARD", "FULL"))

    @property
    def is_forward(self) -> bool:
        """An earlier reader reads what is written later."""
        return self.startswith(("FORWARD", "FULL"))


class Breach(NamedTuple):
    """One reason why an entry would not be read as it was written; `place` names the field."""

    place: str
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place or 'entry'}: {self.rule}: {self.detail}"


def check(earlier: Document, later: Document, level: Level) -> list[str]:
    """What the later schema breaks of the level, a line each; empty where it keeps it.

    Raises DecodeError where a reference leads nowhere or the nesting is too deep to follow.
    """
    found: list[str] = []
    try:
        if level.is_backward:
            breaches = _Comparison(later, earlier, writer_is_later=False).breaches()
            found += [f"{breach} (earlier entries)" for breach in breaches]
        if level.is_forward:
            breaches = _Comparison(earlier, later, writer_is_later=True).breaches()
            found += [f"{breach} (earlier readers)" for breach in breaches]
    except RecursionError:
        raise DecodeError("the schema is nested too deeply") from None
    return list(dict.fromkeys(found))


_OF_OBJECTS = ("properties", "required", "additionalProperties")
_OF_ARRAYS = ("items", "prefixItems")
_WEIGHED = frozenset(
    (
        *("type", "enum", "const", "multipleOf", *_OF_OBJECTS, *_OF_ARRAYS),
        *(*LOWER_BOUNDS, *UPPER_BOUNDS),
    )
)
# msgpack carries bytes and instants in types of its own, which no reader of text takes.
_OWN_WIRE_TYPE = {"contentEncoding": None, "format": "date-time"}


class _Comparison:
    """A reader's document against a writer's; `writer_is_later`: what is missing was removed."""

    def __init__(self, reader: Document, writer: Document, *, writer_is_later: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._writer_is_later = writer_is_later
        # Both by identity, so that a definition may hold itself; what they hold keeps its id.
        self._opened: dict[int, tuple[Any, list[Document]]] = {}
        self._known: dict[tuple[int, int], tuple[Document, Document, list[Breach]]] = {}

    def breaches(self) -> list[Breach]:
        return self._compare(self._reader, self._writer, "")

    def _compare(self, reader: Any, writer: Any, place: str) -> list[Breach]:
        """Two schemas at a place; each form that is written has to be read."""
        read = self._forms(reader, self._reader)
        return [
            breach
            for written in self._forms(writer, self._writer)
            for breach in self._readable(read, written, place)
        ]

    def _forms(self, schema: Any, document: Document) -> list[Document]:
        if id(schema) not in self._opened:
            self._opened[id(schema)] = (schema, branches(schema, document))
        return self._opened[id(schema)][1]

    def _readable(self, read: list[Document], written: Document, place: str) -> list[Breach]:
        """What is written in one form has to be read in one of the reader's."""
        tried = [self._fits(one, written, place) for one in read if _may_meet(one, written)]
        if tried:
            return min(tried, key=len)
        wanted = " or ".join(dict.fromkeys(_spoken(one) for one in read)) or "nothing"
        return [Breach(place, "type", f"{_spoken(written)} is written, {wanted} is read")]

    def _fits(self, reader: Document, writer: Document, place: str) -> list[Breach]:
        pair = (id(reader), id(writer))
        if pair not in self._known:
            found: list[Breach] = []
            self._known[pair] = (reader, writer, found)  # while it is weighed, too
            found += _type_breaches(reader, writer, place)
            found += _value_breaches(reader, writer, place)
            found += _bound_breaches(reader, writer, place)
            found += _word_breaches(reader, writer, place)
            found += self._object_breaches(reader, writer, place)
            found += self._array_breaches(reader, writer, place)
        return self._known[pair][2]

    def _object_breaches(self, reader: Document, writer: Document, place: str) -> Iterator[Breach]:
        if reader.keys().isdisjoint(_OF_OBJECTS):
            return
        read, written = reader.get("properties", {}), writer.get("properties", {})
        more_read = reader.get("additionalProperties", True)
        # A writer of named fields writes those alone; a bare mapping may hold any.
        more_written = writer.get("additionalProperties", "properties" not in writer)
        always = writer.get("required", ())
        for name in reader.get("required", ()):
            if name not in always:
                detail = "is not always written, and has no default where it is read"
                yield Breach(_inside(place, name), "required", detail)
        for name in dict.fromkeys((*written, *read)):
            there = _inside(place, name)
            if name not in read and isinstance(more_read, bool):
                if not more_read:
                    detail = "is written, and the reader takes no further field"
                    yield Breach(there, "closed", detail)
                continue
            found, given = read.get(name, more_read), written.get(name, more_written)
            breaches = self._compare(found, given, there)
            yield from breaches or (
                [] if name in always else _default_breaches(found, given, there)
            )
        yield from self._compare(more_read, more_written, f"{place}{{}}")
        yield from self._column_breaches(read, written, place)

    def _column_breaches(self, read: Document, written: Document, place: str) -> Iterator[Breach]:
        pair = (read, written) if self._writer_is_later else (written, read)
        earlier, later = ([name for name in one if _is_column(one[name])] for one in pair)
        kept = [name for name in earlier if name in later]
        if self._writer_is_later:
            for name in earlier:
                if name not in later:
                    detail = "earlier readers would find it absent in every leg"
                    yield Breach(_inside(place, name), "column removed", detail)
        for name, stands in zip(kept, later, strict=False):
            if name != stands:
                detail = f"{stands!r} stands where {name!r} was; columns are added at the end"
                yield Breach(_inside(place, stands), "column order", detail)
                break

    def _array_breaches(self, reader: Document, writer: Document, place: str) -> Iterator[Breach]:
        if reader.keys().isdisjoint(_OF_ARRAYS):
            return
        read, written = reader.get("prefixItems", ()), writer.get("prefixItems", ())
        more_read = reader.get("items", True)
        more_written = writer.get("items", "prefixItems" not in writer)
        for at in range(max(len(read), len(written))):
            there = f"{place}[{at}]"
            found = read[at] if at < len(read) else more_read
            given = written[at] if at < len(written) else more_written
            breaches = self._compare(found, given, there)
            is_always = at < writer.get("minItems", 0)
            yield from breaches or ([] if is_always else _default_breaches(found, given, there))
        yield from self._compare(more_read, more_written, f"{place}[]")


def _may_meet(reader: Document, writer: Document) -> bool:
    read, written = types_of(reader), types_of(writer)
    if read is None or written is None:
        return read is None
    return any(kind in read or (kind == "integer" and "number" in read) for kind in written)


def _type_breaches(reader: Document, writer: Document, place: str) -> Iterator[Breach]:
    read = types_of(reader)
    for kind in types_of(writer) or ():
        if read is not None and kind not in read and not (kind == "integer" and "number" in read):
            yield Breach(place, "type", f"{kind} is written, {' or '.join(read)} is read")


def _value_breaches(reader: Document, writer: Document, place: str) -> Iterator[Breach]:
    read, written = values_of(reader), values_of(writer)
    if read is None:
        return
    known = ", ".join(map(repr, read))
    if written is None:
        yield Breach(place, "values", f"any may be written, only {known} is read")
    else:
        for value in written:
            if value not in read:
                yield Breach(place, "values", f"{value!r} may be written, only {known} is read")


def _bound_breaches(reader: Document, writer: Document, place: str) -> Iterator[Breach]:
    for words, sign in ((LOWER_BOUNDS, 1), (UPPER_BOUNDS, -1)):
        for word in words:
            if word not in reader:
                continue
            # Lengths and counts begin at nothing.
            bound = writer.get(word, 0 if word.startswith("min") and word != "minimum" else None)
            if bound is None or (reader[word] - bound) * sign > 0:
                was = "no bound" if bound is None else bound
                yield Breach(place, word, f"{was} is kept in writing, {reader[word]} is read")
    step, written = reader.get("multipleOf"), writer.get("multipleOf")
    if step is not None and (written is None or written % step != 0):
        yield Breach(place, "multipleOf", f"{written} is kept in writing, {step} is read")


def _word_breaches(reader: Document, writer: Document, place: str) -> Iterator[Breach]:
    for word in dict.fromkeys((*reader, *writer)):
        if word in PROSE or word in _WEIGHED:
            continue
        read, written = reader.get(word), writer.get(word)
        is_meaning = word.startswith("x-") or (
            word in _OWN_WIRE_TYPE and _OWN_WIRE_TYPE[word] in (None, read, written)
        )
        if read != written and (is_meaning or word in reader):
            yield Breach(place, word, f"{_said(written)} is written, {_said(read)} is read")


def _default_breaches(reader: Any, writer: Any, place: str) -> Iterator[Breach]:
    if not (_has_default(reader) and _has_default(writer)):
        return
    if reader["default"] != writer["default"]:
        detail = f"absent meant {writer['default']!r}, and is read as {reader['default']!r}"
        yield Breach(place, "default", detail)


def _has_default(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "default" in schema


def _is_column(schema: Any) -> bool:
    return isinstance(schema, Mapping) and "x-dtype" in schema


def _spoken(schema: Document) -> str:
    return "/".join(types_of(schema) or ("anything",))


def _said(word: Any) -> str:
    return "nothing" if word is None else repr(word)


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
