"""Which documents are well formed, and what a schema inside one allows."""

import json
from typing import Any

import pytest

from pipeline.documents import (
    DEEPEST,
    FORMS_MAXIMUM,
    branches,
    parse_document,
    parts,
    resolve,
    types_of,
)
from pipeline.errors import DecodeError


def deep(levels: int) -> str:
    return '{"items":' * levels + "{}" + "}" * levels


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"type":"object"}',
        '{"type":["string","null"]}',
        '{"$ref":"#/$defs/a","$defs":{"a":{"type":"integer"}}}',
        '{"properties":{"a":{"$ref":"#"}}}',
        '{"properties":{"a/b":{"type":"null"},"c":{"$ref":"#/properties/a~1b"}}}',
        '{"additionalProperties":false,"items":true}',
        deep(DEEPEST),
    ],
)
def test_well_formed_document_is_read(text: str) -> None:
    assert parse_document(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\ud800", "not JSON"),
        ("[" * 5_000, "not JSON"),
        ("3", "is an object"),
        ("true", "is an object"),
        ('{"type":"text"}', "#/type"),
        ('{"type":[]}', "#/type"),
        ('{"type":{}}', "#/type"),
        ('{"properties":[]}', "#/properties"),
        ('{"properties":{"a":3}}', "#/properties/a"),
        ('{"$defs":{"a":{"type":"text"}}}', "#/$defs/a/type"),
        ('{"required":"a"}', "#/required"),
        ('{"required":[1]}', "#/required"),
        ('{"enum":1}', "#/enum"),
        ('{"anyOf":[]}', "#/anyOf"),
        ('{"anyOf":[3]}', "#/anyOf/0"),
        ('{"items":[{}]}', "#/items"),
        ('{"minimum":"1"}', "#/minimum"),
        ('{"maxLength":true}', "#/maxLength"),
        ('{"multipleOf":0}', "#/multipleOf"),
        ('{"$ref":"#/$defs/a"}', "leads nowhere"),
        ('{"$ref":"other.json"}', "leads out"),
        ('{"$ref":"#"}', "leads back"),
        ('{"$ref":3}', "leads out"),
        ('{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}', "leads back"),
        (deep(DEEPEST + 1), "nested deeper"),
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode(),
)
def test_what_is_wrong_with_a_document_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_document(text)
    assert says in str(caught.value)


def test_forms_of_a_union_are_opened_through_references() -> None:
    document: dict[str, Any] = {
        "anyOf": [{"$ref": "#/$defs/a"}, {"type": ["null", "string"], "maxLength": 3}],
        "$defs": {"a": {"oneOf": [{"type": "integer"}, {"enum": ["x", 1]}]}},
    }
    forms = branches(document, document)
    assert [types_of(form) for form in forms] == [
        ("integer",),
        ("string", "integer"),
        ("null",),
        ("string",),
    ]
    assert forms[2] == {"type": "null"}
    assert forms[3] == {"type": "string", "maxLength": 3}
    assert branches(True, {}) == [{}]
    assert branches(False, {}) == []


def test_words_beside_a_reference_are_kept() -> None:
    document = {"$defs": {"a": {"type": "string"}}}
    schema = {"$ref": "#/$defs/a", "maxLength": 3, "description": "prose"}
    assert resolve(schema, document) == {"type": "string", "maxLength": 3}


def test_union_that_doubles_at_each_step_is_refused() -> None:
    steps: dict[str, Any] = {
        f"n{n}": {"anyOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(40)
    }
    document = {"$ref": "#/$defs/n0", "$defs": steps | {"n40": {"type": "null"}}}
    with pytest.raises(DecodeError, match=str(FORMS_MAXIMUM)):
        branches(document, document)


def test_parts_leave_out_prose_and_what_is_required() -> None:
    schema = {"title": "a", "required": ["x"], "properties": {"title": {"type": "string"}}}
    assert parts(schema) == {
        "",
        "/properties",
        "/properties/title",
        "/properties/title/type='string'",
    }
    assert parts(schema) < parts(schema | {"items": {}})
