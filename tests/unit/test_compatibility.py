"""What a schema may become at each level: changes of a type and of a document, one by one."""

import enum
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
import pytest

from pipeline import models, shapes
from pipeline.compatibility import Level, check
from pipeline.errors import DecodeError
from pipeline.shapes import SCHEMAS

BOTH = ""
BACK = "FORWARD"  # breaks the levels that hold forward: later readers read what came earlier
FORTH = "BACKWARD"
NEITHER = "BACKWARD FORWARD"


def struct(*fields: Any, **options: Any) -> Any:
    return msgspec.defstruct("Signal", list(fields), **options)


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class WiderSide(enum.Enum):
    BUY = "buy"
    SELL = "sell"
    HOLD = "hold"


def tagged(name: str, *fields: Any) -> Any:
    return msgspec.defstruct(name, list(fields), tag=True)


def listed(*fields: Any) -> Any:
    return struct(*fields, array_like=True)


A, B = tagged("A", ("x", int)), tagged("B", ("y", int))
X = ("x", int)

# name: (earlier type, later type, the half of a level that it breaks, a rule that is named)
CHANGES: dict[str, tuple[Any, Any, str, str]] = {
    "nothing": (struct(X), struct(X), BOTH, ""),
    "field added with default": (struct(X), struct(X, ("y", int, 0)), BOTH, ""),
    "optional field added": (struct(X), struct(X, ("y", int | None, None)), BOTH, ""),
    "field added first with default": (
        struct(X, kw_only=True),
        struct(("y", int, 0), X, kw_only=True),
        BOTH,
        "",
    ),
    "required field added": (struct(X), struct(X, ("y", int)), FORTH, "y: required"),
    "optional field removed": (struct(X, ("y", int, 0)), struct(X), BOTH, ""),
    "required field removed": (struct(X, ("y", int)), struct(X), BACK, "y: required"),
    "field renamed": (struct(X, ("y", int)), struct(X, ("z", int)), NEITHER, "required"),
    "now optional": (struct(X), struct(("x", int, 0)), BACK, "x: required"),
    "now required": (struct(("x", int, 0)), struct(X), FORTH, "x: required"),
    "other type": (struct(X), struct(("x", str)), NEITHER, "x: type"),
    "integer to number": (struct(X), struct(("x", float)), BACK, "x: type"),
    "number to integer": (struct(("x", float)), struct(X), FORTH, "x: type"),
    "now nullable": (struct(X), struct(("x", int | None)), BACK, "x: type"),
    "no longer nullable": (struct(("x", int | None)), struct(X), FORTH, "x: type"),
    "union wider": (struct(("x", int | str)), struct(("x", int | str | None)), BACK, "x: type"),
    "anything": (struct(X), struct(("x", Any)), BACK, "x: type"),
    "other default": (struct(("x", int, 1)), struct(("x", int, 2)), NEITHER, "x: default"),
    "text to date": (struct(("x", str)), struct(("x", date)), FORTH, "x: format"),
    "text to bytes": (struct(("x", str)), struct(("x", bytes)), NEITHER, "x: contentEncoding"),
    "list of another type": (
        struct(("x", list[int])),
        struct(("x", list[str])),
        NEITHER,
        "x[]: type",
    ),
    "map of another type": (
        struct(("x", dict[str, int])),
        struct(("x", dict[str, str])),
        NEITHER,
        "x{}: type",
    ),
    "tuple longer": (
        struct(("x", tuple[int, str])),
        struct(("x", tuple[int, str, int])),
        NEITHER,
        "Items",
    ),
    "enumeration wider": (struct(("x", Side)), struct(("x", WiderSide)), BACK, "x: values"),
    "enumeration narrower": (struct(("x", WiderSide)), struct(("x", Side)), FORTH, "x: values"),
    "enumeration to text": (struct(("x", Side)), struct(("x", str)), BACK, "x: values"),
    "one literal": (struct(("x", str)), struct(("x", Literal["a"])), FORTH, "x: values"),
    "bound tighter": (
        struct(("x", Annotated[int, msgspec.Meta(ge=0)])),
        struct(("x", Annotated[int, msgspec.Meta(ge=1)])),
        FORTH,
        "x: minimum",
    ),
    "bound added": (
        struct(X),
        struct(("x", Annotated[int, msgspec.Meta(lt=10)])),
        FORTH,
        "x: exclusiveMaximum",
    ),
    "pattern added": (
        struct(("x", str)),
        struct(("x", Annotated[str, msgspec.Meta(pattern="^a")])),
        FORTH,
        "x: pattern",
    ),
    "step": (
        struct(("x", Annotated[int, msgspec.Meta(multiple_of=10)])),
        struct(("x", Annotated[int, msgspec.Meta(multiple_of=5)])),
        BACK,
        "x: multipleOf",
    ),
    "branch added": (A | B, A | B | tagged("C", ("z", int)), BACK, "type"),
    "branch removed": (A | B, A, FORTH, "type"),
    "field in a branch": (A | B, A | tagged("B", ("y", int), ("w", int, 0)), BOTH, ""),
    "type in a branch": (A | B, A | tagged("B", ("y", str)), NEITHER, "y: type"),
    "closed": (struct(X), struct(X, forbid_unknown_fields=True), BOTH, ""),
    "closed, with a field more": (
        struct(X, forbid_unknown_fields=True),
        struct(X, ("y", int, 0), forbid_unknown_fields=True),
        BACK,
        "y: closed",
    ),
    "element added at the end with default": (listed(X), listed(X, ("y", int, 0)), BOTH, ""),
    "element added at the end": (listed(X), listed(X, ("y", int)), FORTH, "minItems"),
    "elements swapped": (
        listed(X, ("y", str)),
        listed(("y", str), X),
        NEITHER,
        "[0]: type",
    ),
    "struct to list": (struct(X), listed(X), NEITHER, "type"),
}


def assert_breaks(earlier: Any, later: Any, broken: str, said: str) -> None:
    """The levels that hold a broken half refuse, naming what is said; the others do not."""
    for level in Level:
        found = check(earlier, later, level)
        halves = [half for half in ("BACKWARD", "FORWARD") if getattr(level, f"is_{half.lower()}")]
        assert bool(found) == any(half in broken for half in halves), (level, found)
        assert not found or any(said in line for line in found), (level, found)
        assert all(line.startswith("data") for line in found)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_change_of_a_type_is_refused_by_the_levels_it_breaks(
    change: tuple[Any, Any, str, str],
) -> None:
    earlier, later = (shapes.schema_of("signals", 1, one).document for one in change[:2])
    assert_breaks(earlier, later, *change[2:])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_codec_agrees_with_the_check(change: tuple[Any, Any, str, str]) -> None:
    """What is let through backward is decoded by msgspec from what it encoded."""
    earlier, later, broken, _rule = change
    if "BACKWARD" in broken:
        return
    for value in written_by(earlier):
        packed = msgspec.msgpack.encode(value)
        msgspec.msgpack.decode(packed, type=later)


def written_by(kind: Any) -> list[Any]:
    """A value of a type, or one of each of its branches."""
    if kind == A | B:
        return [A(1), B(2)]
    samples: dict[Any, Any] = {
        float: 1.5,
        str: "a",
        Any: "a",
        bytes: b"a",
        date: date(2026, 1, 27),
        Side: Side.SELL,
        WiderSide: WiderSide.HOLD,
    }
    return [kind(**{one.name: samples.get(one.type, 0) for one in msgspec.structs.fields(kind)})]


# --- frames ------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def document(kind: str = models.ENRICHED_CHAIN_TYPE) -> dict[str, Any]:
    """A copy of a schema to be changed."""
    copy: dict[str, Any] = msgspec.json.decode(SCHEMAS[kind].text)
    return copy


def header(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = changed["$defs"]["ChainHeader"]
    return found


def columns(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = changed["properties"]["data"]["properties"]["c"]["properties"]
    return found


def put_first(fields: dict[str, Any], name: str, added: object) -> None:
    others = {known: said for known, said in fields.items() if known != name}
    fields.clear()
    fields.update({name: added} | others)


COLUMN = {"x-dtype": "<f8", "x-unit": ""}
FRAME_CHANGES: dict[str, tuple[Change, str, str]] = {
    "column at the end": (lambda all: columns(all).update(new=COLUMN), BOTH, ""),
    "optional field": (lambda all: header(all)["properties"].update(new={}), BOTH, ""),
    "fields in another order": (
        lambda all: put_first(header(all)["properties"], "n", header(all)["properties"]["n"]),
        BOTH,
        "",
    ),
    "definition": (lambda all: all["$defs"].update(New={"type": "object"}), BOTH, ""),
    "description": (lambda all: columns(all)["strike"].update(description="k"), BOTH, ""),
    "column removed": (
        lambda all: columns(all).pop("iv"),
        BACK,
        "data.c.iv: column removed",
    ),
    "column first": (
        lambda all: put_first(columns(all), "new", COLUMN),
        NEITHER,
        "data.c.new: column order",
    ),
    "columns re-ordered": (
        lambda all: put_first(columns(all), "iv", columns(all)["iv"]),
        NEITHER,
        "data.c.iv: column order",
    ),
    "other dtype": (
        lambda all: columns(all)["strike"].update({"x-dtype": "<f4"}),
        NEITHER,
        "data.c.strike: x-dtype",
    ),
    "other unit": (
        lambda all: columns(all)["strike"].update({"x-unit": "paise"}),
        NEITHER,
        "data.c.strike: x-unit",
    ),
    "field of another type": (
        lambda all: header(all)["properties"]["n"].update(type="string"),
        NEITHER,
        "data.h.n: type",
    ),
    "field in a struct inside": (
        lambda all: all["$defs"]["Smile"]["properties"]["points"].update(type="string"),
        NEITHER,
        "data.h.smile.points: type",
    ),
}


@pytest.mark.parametrize("change", FRAME_CHANGES.values(), ids=FRAME_CHANGES.keys())
def test_change_of_a_frame_is_refused_by_the_levels_it_breaks(
    change: tuple[Change, str, str],
) -> None:
    alter, broken, place = change
    changed = document()
    alter(changed)
    assert msgspec.json.encode(changed) != SCHEMAS[models.ENRICHED_CHAIN_TYPE].text
    assert_breaks(document(), changed, broken, place)


# --- documents that no type of ours makes ------------------------------------------------------


def compared(earlier: Any, later: Any) -> list[str]:
    return check(earlier, later, Level.BACKWARD)


@pytest.mark.parametrize(
    ("earlier", "later", "holds"),
    [
        ({}, {}, True),
        ({"type": "object"}, {}, True),
        ({}, {"type": "object"}, False),
        ({"type": ["integer", "null"], "minimum": 1}, {"type": ["null", "number"]}, True),
        ({"type": ["integer", "null"]}, {"type": "integer"}, False),
        ({"anyOf": [{"type": "null"}, {"minimum": 2}]}, {"type": ["number", "null"]}, False),
        ({"const": 3}, {"type": "integer"}, True),
        ({"enum": [1, 2.5]}, {"type": "number"}, True),
        ({"enum": [1, None]}, {"type": "number"}, False),
        ({"not": {"type": "null"}}, {"not": {"type": "null"}}, True),
        ({"not": {"type": "null"}}, {}, True),
        ({}, {"not": {"type": "null"}}, False),
        ({"properties": {"a": False}}, {"properties": {"a": {"type": "string"}}}, True),
        ({"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}, False),
        ({"type": "array", "maxItems": 2}, {"type": "array", "maxItems": 3}, True),
        ({"type": "array", "maxItems": 3}, {"type": "array", "maxItems": 2}, False),
        ({"additionalProperties": {"type": "integer"}}, {"properties": {"a": {}}}, True),
        ({"type": "string", "x-unit": "rupees"}, {"type": "string"}, False),
    ],
    ids=str,
)
def test_documents_of_others_are_compared_word_by_word(
    earlier: Any, later: Any, holds: bool
) -> None:
    assert (compared(earlier, later) == []) is holds


def test_schema_that_holds_itself_is_compared_once() -> None:
    def tree(value: str) -> dict[str, Any]:
        node = {
            "type": "object",
            "properties": {
                "value": {"type": value},
                "left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
        }
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    assert compared(tree("integer"), tree("number")) == []
    (line,) = compared(tree("number"), tree("integer"))
    assert line.startswith("value: type")


def test_chain_of_references_beyond_following_is_an_error() -> None:
    many = {f"n{n}": {"properties": {"a": {"$ref": f"#/$defs/n{n + 1}"}}} for n in range(2_000)}
    document = {"$ref": "#/$defs/n0", "$defs": many | {"n2000": {"type": "null"}}}
    with pytest.raises(DecodeError, match="deep"):
        compared(document, document)
