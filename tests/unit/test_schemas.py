"""What a schema may become without a new version, and that old bytes decode for ever."""

import json
import math
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from pipeline import bodies, frames, models, schemas
from pipeline.models import LEG_COLUMNS, NULL_INTEGER, ChainHeader, RequestContext
from pipeline.schemas import SCHEMAS, conflict
from tests.support import chains
from tests.support.rooms import CHECKOUT

GOLDEN = CHECKOUT / "tests/data/frames"
# Oldest first; a frame is added whenever the layout grows, and none is ever written again.
GOLDEN_CHAINS = ("chain.enriched.v1", "chain.enriched.v1.smile")
Change = Callable[[dict[str, Any]], object]


def document(kind: str = models.ENRICHED_CHAIN_TYPE) -> dict[str, Any]:
    """A copy of a schema to be changed."""
    copy: dict[str, Any] = msgspec.json.decode(SCHEMAS[kind].text)
    return copy


def header(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = changed["$defs"]["ChainHeader"]
    return found


def columns(changed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = changed["properties"]["data"]["properties"]["c"]["properties"]
    return found


def reordered(fields: dict[str, Any]) -> None:
    first = next(iter(fields))
    fields[first] = fields.pop(first)


def add_before(fields: dict[str, Any], name: str, added: object) -> None:
    others = dict(fields)
    fields.clear()
    fields.update({name: added} | others)


def change_strike(changed: dict[str, Any], **words: str) -> None:
    columns(changed)["strike"].update(words)


GROWTH: dict[str, Change] = {
    "nothing": lambda changed: None,
    "column at the end": lambda changed: columns(changed).update(new={"x-dtype": "<f8"}),
    "optional field at the end": lambda changed: header(changed)["properties"].update(new={}),
    "definition": lambda changed: changed["$defs"].update(New={"type": "object"}),
    "description": lambda changed: change_strike(changed, description="otherwise said"),
}
BREACHES: dict[str, Change] = {
    "column removed": lambda changed: columns(changed).pop("iv"),
    "column first": lambda changed: add_before(columns(changed), "new", {"x-dtype": "<f8"}),
    "columns re-ordered": lambda changed: reordered(columns(changed)),
    "other dtype": lambda changed: change_strike(changed, **{"x-dtype": "<f4"}),
    "other unit": lambda changed: change_strike(changed, **{"x-unit": "paise"}),
    "field renamed": lambda changed: header(changed)["properties"].update(
        years_left=header(changed)["properties"].pop("years")
    ),
    "field of another type": lambda changed: header(changed)["properties"]["n"].update(
        type="string"
    ),
    "added field required": lambda changed: (
        header(changed)["properties"].update(new={}),
        header(changed)["required"].append("new"),
    ),
    "field no longer required": lambda changed: header(changed)["required"].remove("spot"),
    "definition removed": lambda changed: changed["$defs"].pop("ChainAggregates"),
}


def test_every_type_of_an_entry_has_a_schema_with_subject_and_version() -> None:
    assert {name: (s.subject, s.version) for name, s in SCHEMAS.items()} == {
        "chain.raw.v1": ("chain.raw", "1"),
        "expiries.raw.v1": ("expiries.raw", "1"),
        "chain.enriched.v1": ("chain.enriched", "1"),
        "expiries.enriched.v1": ("expiries.enriched", "1"),
    }
    assert set(schemas.RAW_TYPES) | set(schemas.ENRICHED_TYPES) == set(SCHEMAS)
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(document(schema.type))


@pytest.mark.parametrize("change", GROWTH.values(), ids=GROWTH.keys())
def test_growth_at_the_end_needs_no_new_version(change: Change) -> None:
    grown = document()
    change(grown)
    assert conflict(document(), grown) == ""


@pytest.mark.parametrize("change", BREACHES.values(), ids=BREACHES.keys())
def test_anything_else_is_a_conflict_that_names_its_place(change: Change) -> None:
    changed = document()
    change(changed)
    assert changed != document() or list(columns(changed)) != list(columns(document()))
    assert "/" in conflict(document(), changed)


def test_schemas_agree_with_what_the_codecs_write() -> None:
    packed = msgspec.msgpack.decode(frames.encode_frame(chains.enriched(3)))
    validate(models.ENRICHED_CHAIN_TYPE, {"data": packed})
    assert list(packed["c"]) == list(columns(document()))
    del packed["h"]["years"]
    with pytest.raises(jsonschema.ValidationError):
        validate(models.ENRICHED_CHAIN_TYPE, {"data": packed})
    raw = bodies.raw_entry(models.RAW_CHAIN_TYPE, chains.request_context(), b"{}", 5)
    asked = msgspec.msgpack.decode(raw.meta)
    for kind in schemas.RAW_TYPES:
        validate(kind, {"meta": asked, "data": "{}"})


def validate(kind: str, entry: dict[str, Any]) -> None:
    # Bytes are no JSON; the columns' are checked by the codec.
    as_json = json.loads(msgspec.json.encode(entry))
    jsonschema.validate(as_json, document(kind), jsonschema.Draft202012Validator)


# --- bytes written once decode for ever --------------------------------------------------------


@pytest.mark.parametrize("golden", GOLDEN_CHAINS)
def test_golden_frame_decodes_to_the_values_it_was_written_with(golden: str) -> None:
    chain = frames.decode_frame((GOLDEN / f"{golden}.bin").read_bytes())
    said = json.loads((GOLDEN / f"{golden}.json").read_text())
    assert kept(chain.header, said["header"]) == said["header"]
    assert list(said["columns"]) == [spec.name for spec in LEG_COLUMNS][: len(said["columns"])]
    for name, column in said["columns"].items():
        assert chain.legs[name].dtype == np.dtype(column["dtype"]), name
        assert [absent_as_none(value) for value in chain.legs[name].tolist()] == column["values"]


def test_newest_golden_frame_has_every_field_there_is() -> None:
    said = json.loads((GOLDEN / f"{GOLDEN_CHAINS[-1]}.json").read_text())
    assert list(said["header"]) == list(ChainHeader.__struct_fields__)
    assert list(said["header"]["aggregates"]) == list(models.ChainAggregates.__struct_fields__)
    assert list(said["header"]["smile"]) == list(models.Smile.__struct_fields__)
    assert list(said["columns"]) == [spec.name for spec in LEG_COLUMNS]


def test_fields_that_came_after_a_golden_frame_are_absent_in_it() -> None:
    header = frames.decode_frame((GOLDEN / f"{GOLDEN_CHAINS[0]}.bin").read_bytes()).header
    assert header.smile is None
    assert header.aggregates.skew_25_delta is None
    assert header.aggregates.gamma_exposure is None
    assert header.aggregates.expected_move is None


def test_golden_expiries_decode_to_the_values_they_were_written_with() -> None:
    expiries = frames.decode_expiries((GOLDEN / "expiries.enriched.v1.bin").read_bytes())
    said = json.loads((GOLDEN / "expiries.enriched.v1.json").read_text())
    assert kept(expiries, said) == said


def test_golden_request_context_decodes_to_the_values_it_was_written_with() -> None:
    data = (GOLDEN / "chain.raw.v1.meta.bin").read_bytes()
    said = json.loads((GOLDEN / "chain.raw.v1.meta.json").read_text())
    assert kept(msgspec.msgpack.decode(data, type=RequestContext), said) == said


def kept(value: ChainHeader | models.Expiries | RequestContext, said: dict[str, Any]) -> Any:
    """The value as JSON, less the fields that did not exist when `said` was written."""
    return _less_new_fields(json.loads(msgspec.json.encode(value)), said)


def _less_new_fields(value: Any, said: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(said, dict):
        return value
    return {
        name: _less_new_fields(item, said[name]) for name, item in value.items() if name in said
    }


def absent_as_none(value: float) -> float | None:
    return None if value == NULL_INTEGER or math.isnan(value) else value
