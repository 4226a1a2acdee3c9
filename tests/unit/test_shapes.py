"""What the schemas say of the types, and that they agree with what the codecs write."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from pipeline import bodies, frames, models, shapes
from pipeline.compatibility import Level
from pipeline.documents import parse_document
from pipeline.shapes import SCHEMAS, Schema, schema_of
from tests.support import chains


class Signal(msgspec.Struct):
    """Buy or sell.

    A second paragraph.
    """

    chain: str
    side: int
    strength: float = 0.0


def test_every_type_of_an_entry_has_a_schema_with_subject_version_and_level() -> None:
    assert {name: (s.subject, s.version, s.level) for name, s in SCHEMAS.items()} == {
        "chain.raw.v1": ("chain.raw", 1, Level.BACKWARD_TRANSITIVE),
        "expiries.raw.v1": ("expiries.raw", 1, Level.BACKWARD_TRANSITIVE),
        "chain.enriched.v1": ("chain.enriched", 1, Level.FULL_TRANSITIVE),
        "expiries.enriched.v1": ("expiries.enriched", 1, Level.FULL_TRANSITIVE),
        "polls.raw.v1": ("polls.raw", 1, Level.BACKWARD_TRANSITIVE),
        "polls.enriched.v1": ("polls.enriched", 1, Level.FULL_TRANSITIVE),
    }
    assert set(shapes.RAW_TYPES) | set(shapes.ENRICHED_TYPES) == set(SCHEMAS)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_schemas_of_ours_are_well_formed(schema: Schema) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema.text))
    assert parse_document(schema.text) == json.loads(schema.page)


def test_schemas_agree_with_what_the_codecs_write() -> None:
    packed = msgspec.msgpack.decode(frames.encode_frame(chains.enriched(3)))
    validate(models.ENRICHED_CHAIN_TYPE, {"data": packed})
    document = SCHEMAS[models.ENRICHED_CHAIN_TYPE].document
    assert list(packed["c"]) == list(
        document["properties"]["data"]["properties"]["c"]["properties"]
    )
    del packed["h"]["years"]
    with pytest.raises(jsonschema.ValidationError):
        validate(models.ENRICHED_CHAIN_TYPE, {"data": packed})
    raw = bodies.raw_entry(models.RAW_CHAIN_TYPE, chains.request_context(), b"{}", 5)
    asked = msgspec.msgpack.decode(raw.meta)
    for kind in (models.RAW_CHAIN_TYPE, models.RAW_EXPIRIES_TYPE):
        validate(kind, {"meta": asked, "data": "{}"})


def validate(kind: str, entry: dict[str, Any]) -> None:
    # Bytes are no JSON; the columns' are checked by the codec.
    as_json = json.loads(msgspec.json.encode(entry))
    jsonschema.validate(as_json, SCHEMAS[kind].document, jsonschema.Draft202012Validator)


def test_schema_of_a_type_speaks_of_the_field_data() -> None:
    schema = schema_of("signals", 2, Signal, level="FULL", says="What to do.")
    assert (schema.type, schema.subject, schema.version) == ("signals.v2", "signals", 2)
    assert schema.level is Level.FULL
    document = schema.document
    assert document["properties"] == {"data": {"$ref": "#/$defs/Signal"}}
    assert document["required"] == ["data"]
    assert document["description"] == "What to do."
    assert document["$defs"]["Signal"]["description"] == "Buy or sell."
    validator = jsonschema.Draft202012Validator(document)
    assert validator.is_valid({"data": msgspec.to_builtins(Signal("NIFTY-20260127", 1))})
    assert not validator.is_valid({"data": {"chain": "NIFTY-20260127"}})


@pytest.mark.parametrize(
    ("subject", "version", "level"),
    [
        ("", 1, "FULL"),
        ("a b", 1, "FULL"),
        ("a{b}", 1, "FULL"),
        (".a", 1, "FULL"),
        ("a:b", 1, "FULL"),
        ("a" * 129, 1, "FULL"),
        ("a", 0, "FULL"),
        ("a", -1, "FULL"),
        ("a", 2**31, "FULL"),
        ("a", 1, "SOMEHOW"),
    ],
)
def test_impossible_subject_version_or_level_is_refused(
    subject: str, version: int, level: str
) -> None:
    with pytest.raises(ValueError, match=r"is no type|not a valid Level"):
        schema_of(subject, version, Signal, level=level)
