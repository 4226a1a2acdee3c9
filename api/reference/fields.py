"""JSON Schemas of what answers hold: a field's type by its name, as in Arrow; the rest by example.

A field that nobody has declared has the type of its values, or null.
"""

from typing import Any

import msgspec

from api.access.tokens import Exchange, Revocation
from api.errors import Problem
from api.rest.arrow import is_instant, word_of
from pipeline.models import LEG_COLUMNS, ChainAggregates, Smile

_INSTANT = {
    "type": ["string", "integer", "null"],
    "description": "an instant: RFC 3339, or an integer with `ts=ns` or `ts=ms`",
}
_REQUEST_ID = {"type": "string", "description": "as in the header `X-Request-Id`"}


def schema_of(value: Any, name: str = "") -> dict[str, Any]:
    """The schema of a value that stands under a name."""
    if isinstance(value, dict):
        known = {key: schema_of(each, key) for key, each in value.items()}
        return {"type": ["object", "null"], "properties": known}
    if isinstance(value, list):
        items = [schema_of(each, name) for each in value[:1]]
        return {"type": ["array", "null"], **({"items": items[0]} if items else {})}
    if is_instant(name):
        return _INSTANT
    declared = word_of(name)
    if declared is not None and _fits(value, declared):
        return {"type": [declared, "null"], **_meaning(name)}
    return {"type": [_word(value), "null"]} if value is not None else {}


def answer_schema(example: Any) -> dict[str, Any]:
    """The schema of a whole success, from an example of it."""
    data = schema_of(example["data"])
    data["type"] = data["type"][0]
    meta = schema_of(example["meta"])
    meta |= {"type": "object", "required": ["request_id"]}
    meta["properties"]["request_id"] = _REQUEST_ID
    return {
        "type": "object",
        "required": ["data", "meta", "next"],
        "properties": {
            "data": data,
            "meta": meta,
            "next": {"type": ["string", "null"], "description": "cursor of the next page"},
        },
    }


def components() -> dict[str, Any]:
    """The named schemas, and the headers that every answer may have."""
    _, types = msgspec.json.schema_components(
        [Problem, ChainAggregates, Smile, Exchange, Revocation],
        ref_template="#/components/schemas/{name}",
    )
    registry = {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": {"type": "integer"}, "message": {"type": "string"}},
    }
    return {
        "schemas": {**types, "RegistryError": registry, "Leg": _leg()},
        "headers": {name: _header(text, example) for name, (text, example) in HEADERS.items()},
    }


HEADERS = {
    "X-Request-Id": ("names the request in the gateway's log", "5c8ae0b1f2d34a67"),
    "RateLimit": ("units left, seconds until it is full again", '"subject";r=1999;t=1'),
    "RateLimit-Policy": ("units at once, seconds until it is full", '"subject";q=2000;w=4'),
    "Retry-After": ("seconds to wait", "2"),
    "WWW-Authenticate": ("how to ask, and what was wrong", 'Bearer realm="stockify"'),
    "ETag": ("names this state, for `If-None-Match`", 'W/"5f1d7a84db6b"'),
    "Link": ("the next page, `rel=next`", '</v1/gaps?cursor=eyJ>; rel="next"'),
    "X-Meta": ("`meta` of formats that have rows alone", '{"rows":1}'),
    "Allow": ("the methods of the path", "GET, HEAD"),
}


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


def _leg() -> dict[str, Any]:
    properties: dict[str, Any] = {"symbol": {"type": "string"}}
    for column in LEG_COLUMNS:
        kind = "number" if column.dtype[1] == "f" else "integer"
        properties[column.name] = {"type": [kind, "null"], **_meaning(column.name)}
    properties["kind"] = {"type": "string", "enum": ["call", "put"]}
    return {"type": "object", "properties": properties}


def _meaning(name: str) -> dict[str, str]:
    text = _MEANINGS.get(name)
    return {} if text is None else {"description": text}


_MEANINGS = {
    column.name: f"{column.meaning} ({column.unit})" if column.unit else column.meaning
    for column in LEG_COLUMNS
}


def _fits(value: Any, word: str) -> bool:
    if value is None or word == _word(value):
        return True
    return word == "number" and _word(value) == "integer"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "number" if isinstance(value, float) else "string"
