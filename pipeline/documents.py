"""JSON Schema documents: whether they are well formed, and what a schema inside one allows. Pure.

Of draft 2020-12 it knows what the types of ours are written with, and passes over what it does not
know. References lead inside the document; nothing is ever fetched. It never looks at an entry.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.errors import DecodeError

DEEPEST = 64  # nested types have a tenth of that; a deeper document is made to do harm
FORMS_MAXIMUM = 64  # of one schema; unions inside unions double them at each step

Document = Mapping[str, Any]

# Words that say nothing of what is held, and those that are looked at where they belong.
PROSE = frozenset(
    (
        *("title", "description", "examples", "$comment", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$anchor", "$defs", "definitions", "discriminator", "default"),
    )
)
LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")

_NOT_BESIDE = PROSE | {"$ref"}
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_NUMBER_WORDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
_WORDS_OF_TYPE = {
    "integer": _NUMBER_WORDS,
    "number": _NUMBER_WORDS,
    "string": ("minLength", "maxLength", "pattern", "format", "contentEncoding"),
    "object": (
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        *("patternProperties", "propertyNames"),
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
}
_WORDS_OF_ANY_TYPE = frozenset(word for words in _WORDS_OF_TYPE.values() for word in words)
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties", "not", "contains", "propertyNames")


def parse_document(text: bytes | str) -> Document:
    """The document of a JSON text. Raises DecodeError where it is none, or not well formed."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise DecodeError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise DecodeError("a schema is an object")
    for wrong in _faults(document, document, "#", 0):
        raise DecodeError(wrong)
    return document


def branches(schema: Any, document: Document) -> list[Document]:
    """The forms a schema allows, each of at most one type: references followed, unions opened.

    Raises DecodeError where a reference leads nowhere or round in a circle, or where there are more
    than FORMS_MAXIMUM.
    """
    if isinstance(schema, bool):
        return [{}] if schema else []
    followed = resolve(schema, document)
    for word in ("anyOf", "oneOf"):
        if word in followed:
            beside = {
                name: said for name, said in followed.items() if name != word and name not in PROSE
            }
            forms: list[Document] = []
            for choice in followed[word]:
                inside = branches(choice, document)
                forms += [{**beside, **branch} for branch in inside] if beside else inside
                if len(forms) > FORMS_MAXIMUM:
                    raise DecodeError(f"a union of more than {FORMS_MAXIMUM} forms")
            return forms
    kinds = followed.get("type")
    return [_of_type(followed, kind) for kind in kinds] if isinstance(kinds, list) else [followed]


def resolve(schema: Document, document: Document) -> Document:
    """The schema with its reference followed. Raises DecodeError where that leads nowhere."""
    passed = set()
    while "$ref" in schema:
        reference = str(schema["$ref"])
        if reference in passed:
            raise DecodeError(f"$ref {reference!r} leads back to itself")
        passed.add(reference)
        if reference != "#" and not reference.startswith("#/"):
            raise DecodeError(f"$ref {reference!r} leads out of the schema")
        found: Any = document
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            raise DecodeError(f"$ref {reference!r} leads nowhere")
        beside = {name: said for name, said in schema.items() if name not in _NOT_BESIDE}
        schema = {**found, **beside} if beside else found
    return schema


def types_of(schema: Document) -> tuple[str, ...] | None:
    """The JSON types of a form; None where it may be of any."""
    kind = schema.get("type")
    if kind is not None:
        return (kind,)
    values = values_of(schema)
    return None if values is None else tuple(dict.fromkeys(map(_type_of_value, values)))


def values_of(schema: Document) -> Sequence[Any] | None:
    """The only values of a form; None where it may have any."""
    if "const" in schema:
        return [schema["const"]]
    values: Sequence[Any] | None = schema.get("enum")
    return values


def parts(schema: Any, place: str = "") -> frozenset[str]:
    """Every word of a document by its place, but for prose and for what is required."""
    if isinstance(schema, Mapping):
        inside = [
            parts(said, f"{place}/{word}")
            for word, said in schema.items()
            if not (word == "required" and isinstance(said, list))
            and not (word in ("title", "description") and isinstance(said, str))
        ]
        return frozenset((place,)).union(*inside)
    if isinstance(schema, list):
        return frozenset().union(*(parts(said, f"{place}/{n}") for n, said in enumerate(schema)))
    return frozenset((f"{place}={schema!r}",))


def _of_type(schema: Document, kind: str) -> Document:
    """One type of several, without the words that speak of the others."""
    words = _WORDS_OF_TYPE.get(kind, ())
    kept = {
        name: said
        for name, said in schema.items()
        if name in words or name not in _WORDS_OF_ANY_TYPE
    }
    return kept | {"type": kind}


def _type_of_value(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), "array" if isinstance(value, list) else "object")


def _faults(schema: Any, document: Document, place: str, depth: int) -> Iterator[str]:
    """What is wrong with a schema and those inside it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield f"{place}: want a schema"
        return
    if depth > DEEPEST:
        yield f"{place}: nested deeper than {DEEPEST}"
        return
    yield from _word_faults(schema, document, place)
    for word in _MAPS:
        inside = schema.get(word, {})
        if not isinstance(inside, dict):
            yield f"{place}/{word}: want schemas by name"
            continue
        for name, held in inside.items():
            yield from _faults(held, document, f"{place}/{word}/{name}", depth + 1)
    for word in _LISTS:
        listed = schema.get(word, [True])
        if not isinstance(listed, list) or not listed:
            yield f"{place}/{word}: want a list of schemas"
            continue
        for at, held in enumerate(listed):
            yield from _faults(held, document, f"{place}/{word}/{at}", depth + 1)
    for word in _SINGLES:
        if word in schema:
            yield from _faults(schema[word], document, f"{place}/{word}", depth + 1)


def _word_faults(schema: Document, document: Document, place: str) -> Iterator[str]:
    kind = schema.get("type", "null")
    kinds = kind if isinstance(kind, list) else [kind]
    if not kinds or any(one not in _TYPES for one in kinds):
        yield f"{place}/type: want one of {', '.join(_TYPES)}"
    names = schema.get("required", [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        yield f"{place}/required: want a list of names"
    if not isinstance(schema.get("enum", []), list):
        yield f"{place}/enum: want a list of values"
    for word in (*LOWER_BOUNDS, *UPPER_BOUNDS, "multipleOf"):
        bound = schema.get(word, 1)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            yield f"{place}/{word}: want a number"
        elif word == "multipleOf" and bound <= 0:
            yield f"{place}/{word}: want a number above zero"
    if "$ref" in schema:
        try:
            resolve(schema, document)
        except DecodeError as error:
            yield f"{place}: {error}"
