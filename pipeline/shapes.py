"""What entries of each type hold, as JSON Schema made from the types that read and write them.

A type is a subject and a version: `chain.raw.v1` is version 1 of `chain.raw`. Its schema speaks of
the entry fields `meta` and `data`. Pure: what stands registered is the business of `schemas`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.compatibility import Level
from pipeline.documents import Document
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    ENRICHED_POLLS_TYPE,
    LEG_COLUMNS,
    RAW_CHAIN_TYPE,
    RAW_EXPIRIES_TYPE,
    RAW_POLLS_TYPE,
    ChainHeader,
    Expiries,
    PollReport,
    RequestContext,
)

RAW_TYPES = (RAW_CHAIN_TYPE, RAW_EXPIRIES_TYPE, RAW_POLLS_TYPE)
ENRICHED_TYPES = (ENRICHED_CHAIN_TYPE, ENRICHED_EXPIRIES_TYPE, ENRICHED_POLLS_TYPE)
# A raw body is read for ever by whoever enriches it again; frames are read by others, who may be
# older than the processor as well as newer.
RAW_LEVEL = Level.BACKWARD_TRANSITIVE
ENRICHED_LEVEL = Level.FULL_TRANSITIVE
DEFAULT_LEVEL = Level.BACKWARD_TRANSITIVE  # streams are read again from their start
VERSION_MAXIMUM = 2**31 - 1

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})\.v([1-9][0-9]{0,9})")


class Schema(msgspec.Struct, frozen=True):
    """What entries of a type hold: `document` is its JSON Schema, `level` its subject's.

    Raises ValueError for a type that is no subject and version, `name.v1`.
    """

    type: str
    document: Document
    level: Level = DEFAULT_LEVEL

    def __post_init__(self) -> None:
        match = _TYPE.fullmatch(self.type)
        if match is None or int(match[2]) > VERSION_MAXIMUM:
            raise ValueError(
                f"{self.type!r} is no type: want a subject and a version, 'signals.v1'"
            )

    @property
    def subject(self) -> str:
        """The type without its version."""
        return self.type.rpartition(".v")[0]

    @property
    def version(self) -> int:
        """The number at the type's end."""
        return int(self.type.rpartition(".v")[2])

    @property
    def text(self) -> bytes:
        """The document as it is registered."""
        return msgspec.json.encode(self.document)

    @property
    def page(self) -> bytes:
        """The document to be read by people; ends with a newline."""
        return msgspec.json.format(self.text, indent=2) + b"\n"


def schema_of(
    subject: str,
    version: int,
    data: Any,
    *,
    level: Level | str = DEFAULT_LEVEL,
    says: str = "",
) -> Schema:
    """The schema of entries whose field `data` holds a value of a type that msgspec encodes.

    `says` is a line for its readers. Raises ValueError for an impossible subject, version or level,
    TypeError for a type that JSON Schema cannot say.
    """
    (inner,), definitions = msgspec.json.schema_components([data], ref_template="#/$defs/{name}")
    chosen = Level(level)
    return _schema(f"{subject}.v{version}", says, {"data": inner}, definitions, chosen)


def _schema(
    kind: str, says: str, fields: Document, definitions: Mapping[str, Any], level: Level
) -> Schema:
    document = {
        "$schema": _DIALECT,
        "title": kind,
        "description": says,
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "$defs": {name: _one_line(definition) for name, definition in definitions.items()},
    }
    return Schema(kind, document, level)


def _one_line(definition: Document) -> Document:
    """The definition with its docstring's first paragraph for a description."""
    summary = str(definition.get("description", "")).partition("\n\n")[0]
    return {**definition, "description": " ".join(summary.split())}


def _definitions(types: Sequence[type]) -> Mapping[str, Any]:
    _, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return definitions


def _raw(kind: str, says: str) -> Schema:
    fields = {
        "meta": {
            "$ref": "#/$defs/RequestContext",
            "description": "msgpack: what was asked",
        },
        "data": {"description": "the body as received, compressed as field `enc` says"},
    }
    return _schema(kind, says, fields, _definitions([RequestContext]), RAW_LEVEL)


def _enriched_chain() -> Schema:
    columns = {
        column.name: {
            "description": column.meaning,
            "x-dtype": column.dtype,
            "x-unit": column.unit,
        }
        for column in LEG_COLUMNS
    }
    frame = {
        "description": "msgpack: a header and columns of n elements each, little-endian",
        "type": "object",
        "properties": {
            "h": {"$ref": "#/$defs/ChainHeader"},
            # None is required: a column that is not there reads as absent in every leg.
            "c": {"type": "object", "properties": columns},
        },
        "required": ["h", "c"],
    }
    says = "A chain with volatilities and Greeks, as a frame."
    definitions = _definitions([ChainHeader])
    return _schema(ENRICHED_CHAIN_TYPE, says, {"data": frame}, definitions, ENRICHED_LEVEL)


def _enriched_expiries() -> Schema:
    data = {"$ref": "#/$defs/Expiries", "description": "msgpack"}
    says = "The expiries that a provider lists for an underlying."
    definitions = _definitions([Expiries])
    return _schema(ENRICHED_EXPIRIES_TYPE, says, {"data": data}, definitions, ENRICHED_LEVEL)


def _polls(kind: str, level: Level) -> Schema:
    data = {"$ref": "#/$defs/PollReport", "description": "msgpack"}
    says = "How many polls of a chain were due in a minute, and why some brought no snapshot."
    return _schema(kind, says, {"data": data}, _definitions([PollReport]), level)


SCHEMAS: Mapping[str, Schema] = {
    schema.type: schema
    for schema in (
        _raw(RAW_CHAIN_TYPE, "A provider's answer for one chain."),
        _raw(RAW_EXPIRIES_TYPE, "A provider's answer for an underlying's expiries."),
        _enriched_chain(),
        _enriched_expiries(),
        _polls(RAW_POLLS_TYPE, RAW_LEVEL),
        _polls(ENRICHED_POLLS_TYPE, ENRICHED_LEVEL),
    )
}
