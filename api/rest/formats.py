"""In which format an answer is told: what a request asks for, what there is, what a client takes.

`format=` wins over `Accept`, whose weights are those of RFC 9110. Encodes nothing.
"""

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache

from api.errors import ApiError, invalid_parameter

ACCEPT_CHARACTERS = 1_000  # what a browser says is a tenth of it
_TELLING = 2  # parts of a media type


class Format(Enum):
    """A format of answers: its media type, and the suffix of a file of it."""

    JSON = "application/json", "json"
    MSGPACK = "application/msgpack", "msgpack"
    CSV = "text/csv", "csv"
    NDJSON = "application/x-ndjson", "ndjson"
    ARROW = "application/vnd.apache.arrow.stream", "arrow"
    PARQUET = "application/vnd.apache.parquet", "parquet"

    def __init__(self, media_type: str, suffix: str) -> None:
        self.media_type = media_type
        self.suffix = suffix

    @property
    def content_type(self) -> str:
        """The media type with what it needs beside it."""
        return "text/csv; charset=utf-8" if self is Format.CSV else self.media_type

    @property
    def is_text(self) -> bool:
        """Whether it gets smaller by compression; Arrow and Parquet see to that by themselves."""
        return self not in (Format.ARROW, Format.PARQUET)


FORMATS = {kind.suffix: kind for kind in Format}
OF_LISTS = tuple(Format)
OF_OBJECTS = (Format.JSON, Format.MSGPACK, Format.NDJSON)

# Other names by which clients know the same.
_ALIASES = {
    "application/x-msgpack": Format.MSGPACK,
    "application/vnd.msgpack": Format.MSGPACK,
    "application/ndjson": Format.NDJSON,
    "application/jsonl": Format.NDJSON,
}


def negotiate(
    name: str | None, accept: str | None, possible: Sequence[Format], *, default: Format
) -> Format:
    """The format for an answer that can be had in some.

    `name` is that of the parameter `format`. Raises ApiError 400 where there is none of that name,
    and 406 where the answer cannot be had in it, or in none that `accept` takes.
    """
    if name is not None:
        wanted = FORMATS.get(name)
        if wanted is None:
            raise invalid_parameter("format", f"want one of {', '.join(FORMATS)}")
        if wanted not in possible:
            raise _not_acceptable(possible)
        return wanted
    if accept is None or accept in ("*/*", default.media_type):
        return default
    found = _accepted(accept[:ACCEPT_CHARACTERS], tuple(possible), default)
    if found is None:
        raise _not_acceptable(possible)
    return found


def weights(header: str) -> list[tuple[str, float]]:
    """What the elements of an Accept header name, in lower case, and how much it is wanted."""
    found = []
    for element in header.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = _weight(value.strip())
        if name:
            found.append((name, weight))
    return found


@lru_cache(maxsize=512)
def _accepted(accept: str, possible: tuple[Format, ...], default: Format) -> Format | None:
    """The format that is wanted most; of equals the first that is named, within a range the
    default."""
    said = weights(accept)
    ranked = []
    for kind in possible:
        names = [kind.media_type, *(name for name, known in _ALIASES.items() if known is kind)]
        weight, place = _wanted(said, names)
        if weight > 0:
            ranked.append((-weight, place, kind is not default, possible.index(kind), kind))
    return min(ranked)[-1] if ranked else None


def _wanted(said: Sequence[tuple[str, float]], names: Sequence[str]) -> tuple[float, int]:
    """How much a format of these names is wanted, and where it stands; the closest match speaks."""
    closest, weight, place = -1, 0.0, 0
    for index, (wanted, told) in enumerate(said):
        if wanted in names:
            closeness = _TELLING
        elif any(wanted == f"{name.partition('/')[0]}/*" for name in names):
            closeness = 1
        elif wanted == "*/*":
            closeness = 0
        else:
            continue
        if closeness > closest:
            closest, weight = closeness, told
            place = index if closeness == _TELLING else len(said)
    return weight, place


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def _not_acceptable(possible: Sequence[Format]) -> ApiError:
    kinds = ", ".join(kind.media_type for kind in possible)
    return ApiError(406, "not_acceptable", f"this can be had as {kinds}")
