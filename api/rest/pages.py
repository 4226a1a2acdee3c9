"""Lists that go on: the range that is asked for, cursors behind a row, and the page they make.

A cursor is the place of a row, not its number, so that a page is the same whatever is stored
meanwhile. It keeps the range of the first page, also where that ended "now", and it is bound to
its list: with other parameters it is refused, but for those that only shape the answer.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Response

from api.errors import invalid_parameter
from api.gateway import gateway_of
from api.rest.answers import AnyRequest, answer, decode_cursor, encode_cursor, with_instants
from api.rest.query import Parameter, choice, limit, listed, text, times
from api.rest.query import instant as instant_parameter

DEFAULT_SPAN_NS = 86_400 * 1_000_000_000  # what is given when nobody says from when
CURSOR_CHARACTERS = 300
_SHAPING = frozenset(("cursor", "limit", "fields", "ts", "format"))  # may change between pages
_DIGEST_BYTES = 8

Instant = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00]*$")]
Row = dict[str, Any]


class Place(NamedTuple):
    """Where a page begins: its range, ns UTC, and the position of the row before it."""

    start_ns: int
    end_ns: int
    after: tuple[Any, ...] | None


def range_parameters(*, default_start: str = "24 hours before `end`") -> tuple[Parameter, ...]:
    """`start` and `end`, as every history takes them."""
    return (
        instant_parameter("start", f"first instant; {default_start} where not given"),
        instant_parameter("end", "first instant no longer included; now where not given"),
    )


def page_parameters(*, is_ordered: bool = True) -> tuple[Parameter, ...]:
    """What every list takes: `limit`, `cursor`, `ts`, and `order` where it has two."""
    ordered = (choice("order", "oldest or newest first", "asc", "desc", default="asc"),)
    cursor = text("cursor", "`next` of the page before", at_most=CURSOR_CHARACTERS)
    return (limit(), *(ordered if is_ordered else ()), cursor, times())


def fields_parameter(known: Sequence[str]) -> Parameter:
    """Which fields the rows have."""
    return listed("fields", "fields of the rows", at_most=len(known), known=known)


def place_of(
    request: AnyRequest,
    query: Mapping[str, Any],
    *position: Any,
    default_span_ns: int = DEFAULT_SPAN_NS,
) -> Place:
    """The place that a request speaks of; `position` are the types of that of a row.

    Raises ApiError 400 where the range is empty or the cursor is of another list.
    """
    if query["cursor"] is not None:
        start_ns, end_ns, *after = _behind(request, query["cursor"], Instant, Instant, *position)
        return Place(start_ns, end_ns, tuple(after))
    end_ns = query["end"]
    if end_ns is None:
        end_ns = gateway_of(request).clock.now_ns() + 1_000
    start_ns = query["start"] if query["start"] is not None else max(0, end_ns - default_span_ns)
    if start_ns >= end_ns:
        raise invalid_parameter("start", "not before end")
    return Place(start_ns, end_ns, None)


def keyed_place(request: AnyRequest, query: Mapping[str, Any], *position: Any) -> Any:
    """The position in the cursor of a list that has no range; None where none is given."""
    if query["cursor"] is None:
        return None
    return _behind(request, query["cursor"], *position)


def cursor_at(request: AnyRequest, *position: int | str) -> str:
    """The cursor behind a position, for `keyed_place` of the same list."""
    return encode_cursor(_digest(request), *position)


def page(
    request: AnyRequest,
    rows: Sequence[Row],
    query: Mapping[str, Any],
    meta: Row,
    place: Place | None,
    position_of: Callable[[Row], tuple[int | str, ...]],
    told: Callable[[Row], Row] | None = None,
) -> Response[bytes]:
    """The answer to one row more than the page has; that it is there says that more follow.

    `told` makes of a row what the client sees; without it, its instants are put in their form.
    """
    shown = rows[: query["limit"]]
    following = None
    if len(rows) > len(shown):
        bounds = () if place is None else (place.start_ns, place.end_ns)
        following = encode_cursor(_digest(request), *bounds, *position_of(shown[-1]))
    meta["rows"] = len(shown)
    data = [told(row) if told else with_instants(row, query["ts"]) for row in shown]
    fields = query.get("fields")
    if fields:
        data = [{name: row[name] for name in fields} for row in data]
    return answer(request, data, meta, following=following)


def _behind(request: AnyRequest, cursor: str, *types: Any) -> tuple[Any, ...]:
    """What a cursor of this list says, in these types. Raises ApiError 400."""
    shape: Any = GenericAlias(tuple, (str, *types))
    digest, *parts = decode_cursor(cursor, shape)
    if digest != _digest(request):
        raise invalid_parameter("cursor", "of another list: its other parameters differ")
    return tuple(parts)


def _digest(request: AnyRequest) -> str:
    """What says which list it is: its path and the parameters that decide what is in it."""
    pairs = sorted(pair for pair in request.query_params.multi_items() if pair[0] not in _SHAPING)
    told = repr((request.url.path, pairs)).encode()
    return hashlib.blake2s(told, digest_size=_DIGEST_BYTES).hexdigest()
