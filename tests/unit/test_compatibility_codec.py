"""The check against the codec it speaks of: what it lets through, msgspec decodes."""

import itertools
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.compatibility import Level, check
from pipeline.shapes import schema_of

LEAVES = [int, float, str, bool, bytes, type(None), Literal["a"], Literal["a", "b"], Literal[1, 2]]
NUMBERS = itertools.count()  # msgspec tells types apart by their names

leaves = st.sampled_from(LEAVES)


@st.composite
def structs(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    names = draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
    required = [(name, draw(inner)) for name in names if draw(st.booleans())]
    known = {name for name, _kind in required}
    optional = [(name, draw(inner) | None, None) for name in names if name not in known]
    return msgspec.defstruct(
        f"Struct{next(NUMBERS)}",
        [*required, *optional],
        array_like=draw(st.booleans()),
        forbid_unknown_fields=draw(st.booleans()),
    )


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        pairs.map(lambda pair: tuple[pair]),
        st.sampled_from([int | str, int | None, float | None, bool | str, int | str | None]),
        structs(inner),
    )


types = st.recursive(leaves, nested, max_leaves=6)


def value_of(kind: Any, draw: Any) -> Any:
    """A value of a type."""
    samples = {
        int: st.integers(-3, 3),
        float: st.sampled_from([0.5, 1.0]),
        str: st.sampled_from(["a", "z"]),
        bool: st.booleans(),
        bytes: st.just(b"x"),
        type(None): st.none(),
    }
    origin, inside = get_origin(kind), get_args(kind)
    value: Any
    if kind in samples:
        value = draw(samples[kind])
    elif origin is Literal:
        value = draw(st.sampled_from(inside))
    elif origin in (Union, UnionType):
        value = value_of(draw(st.sampled_from(inside)), draw)
    elif origin is list:
        value = [value_of(inside[0], draw) for _ in range(draw(st.integers(0, 2)))]
    elif origin is dict:
        value = {key: value_of(inside[1], draw) for key in draw(st.sets(st.sampled_from("abcd")))}
    elif origin is tuple:
        value = tuple(value_of(one, draw) for one in inside)
    else:
        fields = msgspec.structs.fields(kind)
        value = kind(**{field.name: value_of(field.type, draw) for field in fields})
    return value


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(types, types, st.data())
def test_what_the_check_lets_through_is_decoded(
    earlier: Any, later: Any, data: st.DataObject
) -> None:
    pair = [schema_of("signals", 1, kind).document for kind in (earlier, later)]
    assert check(pair[0], pair[0], Level.FULL) == []
    backward = check(pair[0], pair[1], Level.BACKWARD)
    forward = check(pair[1], pair[0], Level.FORWARD)
    assert bool(backward) == bool(forward)  # the same reader and writer, named the other way
    if not backward:
        packed = msgspec.msgpack.encode(value_of(earlier, data.draw))
        msgspec.msgpack.decode(packed, type=later)
