"""The check against the codec it speaks of: what it lets through, msgspec decodes."""

import itertools
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.compatibility import Level, check
from pipeline.shapes import schema_of

NUMBERS = itertools.count()  # msgspec tells types apart by their names
# Types that stand in for each other, in one direction or none.
FAMILIES = (
    (int, float, int | None, float | None, Literal[1], Literal[1, 2]),
    (str, bytes, str | None, Literal["a"], Literal["a", "z"], int | str),
    (bool, int, type(None)),
)
leaves = st.sampled_from(FAMILIES).flatmap(
    lambda family: st.tuples(st.sampled_from(family), st.sampled_from(family))
)


@st.composite
def structs(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    """A struct and what became of it: fields of other types, left out, added, made optional."""
    kinds = {name: draw(inner) for name in draw(st.sets(st.sampled_from("abc"), min_size=1))}
    is_array = draw(st.booleans())
    made = []
    for side in (0, 1):
        names = [name for name in sorted(kinds) if draw(st.integers(0, 3))]
        required = {name for name in names if draw(st.integers(0, 2))}
        fields = [(name, kinds[name][side]) for name in names if name in required]
        others = [name for name in names if name not in required]
        options = [(name, kinds[name][side] | None, None) for name in others]
        made.append(
            msgspec.defstruct(
                f"Struct{next(NUMBERS)}",
                [*fields, *options],
                array_like=is_array,
                forbid_unknown_fields=not draw(st.integers(0, 3)),
            )
        )
    return tuple(made)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        structs(inner),
        inner.map(lambda pair: tuple(list[kind] for kind in pair)),
        inner.map(lambda pair: tuple(dict[str, kind] for kind in pair)),
        inner.map(lambda pair: tuple(tuple[kind, int] for kind in pair)),
    )


pairs = structs(st.recursive(leaves, nested, max_leaves=3))


def value_of(kind: Any, draw: Any) -> Any:
    """A value of a type."""
    samples = {
        int: st.integers(-3, 3),
        float: st.sampled_from([0.5, 1.0]),
        str: st.sampled_from(["a", "z", "q"]),
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
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(pairs, st.data())
def test_what_the_check_lets_through_is_decoded(pair: Any, data: st.DataObject) -> None:
    earlier, later = (schema_of("signals", 1, kind).document for kind in pair)
    assert check(earlier, earlier, Level.FULL) == []
    backward = check(earlier, later, Level.BACKWARD)
    assert bool(backward) == bool(check(later, earlier, Level.FORWARD))  # the same two, turned
    if not backward:
        packed = msgspec.msgpack.encode(value_of(pair[0], data.draw))
        msgspec.msgpack.decode(packed, type=pair[1])
