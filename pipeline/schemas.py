"""The schema registry: what entries of each type hold, as JSON Schema, kept in Redis.

A type is a subject and a version: `chain.raw.v1` is version 1 of `chain.raw`. Its schema speaks of
the entry fields `meta` and `data`, and is made from the types that read and write them. Whoever
writes a type registers it first and is refused when what stands there says something else. It
checks schemas, never entries.

Without a new version a schema may only grow: fields, columns and definitions are added at the end,
and an added field is optional or has a default, so that old entries still read and old readers
still read new ones. Everything else is a conflict: a field removed, renamed, re-ordered, of another
type, unit or default, or now required. Descriptions may change. A writer older than what stands
registered is let in; the newer schema stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline import topics
from pipeline.errors import SchemaConflict
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    LEG_COLUMNS,
    RAW_CHAIN_TYPE,
    RAW_EXPIRIES_TYPE,
    ChainHeader,
    Expiries,
    RequestContext,
)
from pipeline.runtime import Context, Redis, jittered, pause
from pipeline.streams import scripts
from pipeline.streams.links import AWAY

RAW_TYPES = (RAW_CHAIN_TYPE, RAW_EXPIRIES_TYPE)
ENRICHED_TYPES = (ENRICHED_CHAIN_TYPE, ENRICHED_EXPIRIES_TYPE)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SAYS_NOTHING = ("title", "description")  # of what is held; a change of them changes no entry
_MAPS = ("properties", "$defs")  # their keys are names, not words of JSON Schema

Document = Mapping[str, Any]


class Schema(msgspec.Struct, frozen=True):
    """What entries of a type hold; `document` is its JSON Schema."""

    type: str
    document: Document

    @property
    def subject(self) -> str:
        """The type without its version."""
        return self.type.rpartition(".v")[0]

    @property
    def version(self) -> str:
        """The number at the type's end."""
        return self.type.rpartition(".v")[2]

    @property
    def text(self) -> bytes:
        """The document as it is registered."""
        return msgspec.json.encode(self.document)

    @property
    def page(self) -> bytes:
        """The document to be read by people; ends with a newline."""
        return msgspec.json.format(self.text, indent=2) + b"\n"


async def announce(context: Context, types: Sequence[str]) -> None:
    """Register what a worker is about to write, waiting while Redis is away.

    Raises SchemaConflict, which is logged in a line of its own.
    """
    attempt = 0
    while not context.stopping.is_set():
        try:
            await register(context.redis, [SCHEMAS[name] for name in types])
        except AWAY as error:
            context.telemetry.set_state("starting", f"Redis is away: {type(error).__name__}")
        except SchemaConflict as error:
            context.telemetry.log.error("schema_refused", error=str(error))
            raise
        else:
            return
        await pause(context.stopping, jittered(attempt))
        attempt += 1


async def register(redis: Redis, schemas: Sequence[Schema]) -> None:
    """Store each schema that is new or has grown; all are checked before one is stored.

    Raises SchemaConflict, and then nothing was stored unless another writer came in between.
    """
    for schema in schemas:
        _accepted(schema, await _registered(redis, schema))
    for schema in schemas:
        seen = await _registered(redis, schema)
        while (text := _accepted(schema, seen)) != seen:
            # One step: it stores only over what was checked, and gives what stands there.
            arguments = (schema.version, seen, text)
            key = topics.schema(schema.subject)
            seen = await redis.eval(scripts.REGISTER, 1, key, *arguments)


def conflict(old: Any, new: Any, place: str = "") -> str:
    """Why `new` is no growth of `old`, naming the place; empty where it is one."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return "" if old == new else f"{place or 'schema'}: was {old!r}, is {new!r}"
    return next(filter(None, _conflicts(old, new, place)), "")


def _conflicts(old: Document, new: Document, place: str) -> Iterator[str]:
    for word in [*old, *(word for word in new if word not in old)]:
        inside = f"{place}/{word}" if place else word
        before, after = old.get(word), new.get(word)
        if word in _SAYS_NOTHING:
            continue
        if word == "required":
            yield _required_conflict(old, new, place)
        elif word in _MAPS and isinstance(before, Mapping) and isinstance(after, Mapping):
            if word == "properties" and list(after)[: len(before)] != list(before):
                yield f"{inside}: fields removed, renamed or re-ordered, was {', '.join(before)}"
            for name in before:
                yield conflict(before[name], after.get(name), f"{inside}/{name}")
        else:
            yield conflict(before, after, inside)


def _required_conflict(old: Document, new: Document, place: str) -> str:
    known = set(old.get("properties", ()))
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    changed = sorted((before ^ after) & known)
    added = sorted(after - known)
    if added:
        return f"{place}: added fields must be optional: {', '.join(added)}"
    return f"{place}: required or not has changed: {', '.join(changed)}" if changed else ""


async def _registered(redis: Redis, schema: Schema) -> bytes:
    found: Any = await redis.hget(topics.schema(schema.subject), schema.version)
    return bytes(found or b"")


def _accepted(schema: Schema, registered: bytes) -> bytes:
    """What shall stand in the registry: the new text, or the old one where it has grown since."""
    if not registered:
        return schema.text
    known, own = msgspec.json.decode(registered), msgspec.json.decode(schema.text)
    reason = conflict(known, own)
    if not reason:
        return schema.text
    if not conflict(own, known):
        return registered
    raise SchemaConflict(f"{schema.type} is registered otherwise: {reason}")


def _document(kind: str, says: str, fields: Document, types: Sequence[type]) -> Schema:
    _, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    described = {name: _one_line(definition) for name, definition in definitions.items()}
    document = {
        "$schema": _DIALECT,
        "title": kind,
        "description": says,
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "$defs": described,
    }
    return Schema(kind, document)


def _one_line(definition: Document) -> Document:
    """The definition with its docstring's first paragraph for a description."""
    summary = str(definition.get("description", "")).partition("\n\n")[0]
    return {**definition, "description": " ".join(summary.split())}


def _raw(kind: str, says: str) -> Schema:
    fields = {
        "meta": {
            "$ref": "#/$defs/RequestContext",
            "description": "msgpack: what was asked",
        },
        "data": {"description": "the body as received, compressed as field `enc` says"},
    }
    return _document(kind, says, fields, [RequestContext])


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
    return _document(
        ENRICHED_CHAIN_TYPE,
        "A chain with volatilities and Greeks, as a frame.",
        {"data": frame},
        [ChainHeader],
    )


def _enriched_expiries() -> Schema:
    data = {"$ref": "#/$defs/Expiries", "description": "msgpack"}
    return _document(
        ENRICHED_EXPIRIES_TYPE,
        "The expiries that a provider lists for an underlying.",
        {"data": data},
        [Expiries],
    )


SCHEMAS: Mapping[str, Schema] = {
    schema.type: schema
    for schema in (
        _raw(RAW_CHAIN_TYPE, "A provider's answer for one chain."),
        _raw(RAW_EXPIRIES_TYPE, "A provider's answer for an underlying's expiries."),
        _enriched_chain(),
        _enriched_expiries(),
    )
}
