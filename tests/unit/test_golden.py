"""Bytes written once decode for ever: golden files of every type, version and revision.

`tests/data/schemas` has each schema a type ever had, `tests/data/frames` bytes written under it and
the values that they stand for. Files are added, never written again.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from pipeline import bodies, frames, models, polls
from pipeline.compatibility import check
from pipeline.documents import branches, parse_document, resolve
from pipeline.entries import Entry
from pipeline.models import LEG_COLUMNS, NULL_INTEGER
from pipeline.shapes import SCHEMAS
from tests.support.rooms import CHECKOUT

DATA = CHECKOUT / "tests/data"
DIGESTS = DATA / "golden.sha256"
PARTS = {"raw": ("meta", "data"), "enriched": ("",)}  # of an entry, by the end of its subject
BARE = {"polls.raw"}  # raw entries of which nothing was asked: they have no `meta`
# `chain.enriched.v1.smile`: a type, and the word of its revision; the first has none.
_STEM = re.compile(r"(?P<type>(?P<subject>[a-z.]+)\.v\d+)(?:\.(?P<word>[a-z0-9_]+))?")


@dataclass(frozen=True)
class Golden:
    """One golden file; `stem` names the schema it was written under, `part` the entry's field."""

    path: Path
    stem: str
    part: str

    @property
    def type(self) -> str:
        return parsed(self.stem)["type"]

    @property
    def said(self) -> Any:
        """The values as they were when the file was written."""
        return json.loads(self.path.with_suffix(".json").read_text())


def parsed(stem: str) -> dict[str, str]:
    match = _STEM.fullmatch(stem)
    assert match, f"{stem}: no type and version"
    return match.groupdict()


def golden(path: Path) -> Golden:
    stem, _, last = path.stem.rpartition(".")
    return Golden(path, stem, last) if last in PARTS["raw"] else Golden(path, path.stem, "")


FILES = [golden(path) for path in sorted((DATA / "frames").glob("*.bin"))]
STEMS = {path.name.removesuffix(".json") for path in (DATA / "schemas").glob("*.json")}


def document(stem: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "schemas" / f"{stem}.json").read_text())
    return found


# --- reading -----------------------------------------------------------------------------------


def chain_values(data: bytes) -> dict[str, Any]:
    chain = frames.decode_frame(data)
    columns = {
        name: {
            "dtype": column.dtype.str,
            "values": [absent_as_none(value) for value in column.tolist()],
        }
        for name, column in chain.legs.items()
    }
    return {"header": json.loads(msgspec.json.encode(chain.header)), "columns": columns}


def expiries_values(data: bytes) -> Any:
    return json.loads(msgspec.json.encode(frames.decode_expiries(data)))


def polls_values(data: bytes) -> Any:
    return json.loads(msgspec.json.encode(polls.decode_report(data)))


def meta_values(data: bytes) -> Any:
    return msgspec.to_builtins(bodies.context_of(entry(meta=data)))


def body_values(data: bytes) -> dict[str, str]:
    # An entry says so in `enc`; here the first bytes of zstd do.
    enc = "zstd" if data.startswith(b"\x28\xb5\x2f\xfd") else ""
    return {"enc": enc, "body": bodies.body_of(entry(data=data, enc=enc)).decode()}


def entry(**fields: Any) -> Entry:
    given = {"meta": b"", "data": b"", "enc": ""} | fields
    return Entry(
        stream_id="1-0",
        id="",
        type="",
        key="",
        ts=0,
        te=None,
        seq=1,
        epoch="e",
        traceparent="",
        attempts=1,
        **given,
    )


def absent_as_none(value: float) -> float | None:
    return None if value == NULL_INTEGER or math.isnan(value) else value


READ: dict[tuple[str, str], Callable[[bytes], Any]] = {
    ("chain.enriched.v1", ""): chain_values,
    ("expiries.enriched.v1", ""): expiries_values,
    ("polls.enriched.v1", ""): polls_values,
    ("polls.raw.v1", ""): polls_values,
    ("chain.raw.v1", "meta"): meta_values,
    ("expiries.raw.v1", "meta"): meta_values,
    ("chain.raw.v1", "data"): body_values,
    ("expiries.raw.v1", "data"): body_values,
}


def less_new_fields(value: Any, said: Any) -> Any:
    """The value without the fields that did not exist when `said` was written."""
    if not isinstance(value, dict) or not isinstance(said, dict):
        return value
    return {name: less_new_fields(item, said[name]) for name, item in value.items() if name in said}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path.stem)
def test_golden_file_decodes_to_the_values_it_was_written_with(file: Golden) -> None:
    assert (file.type, file.part) in READ, f"say here how a {file.type} is read"
    value = READ[file.type, file.part](file.path.read_bytes())
    assert less_new_fields(value, file.said) == file.said


def test_fields_that_came_after_a_golden_frame_are_absent_in_it() -> None:
    header = frames.decode_frame((DATA / "frames/chain.enriched.v1.bin").read_bytes()).header
    assert header.smile is None
    assert header.aggregates.skew_25_delta is None
    assert header.aggregates.gamma_exposure is None
    assert header.aggregates.expected_move is None


# --- nothing is missing ------------------------------------------------------------------------


def missing(stems: Iterable[str], files: Iterable[Golden]) -> list[str]:
    """Golden files that a schema asks for and that are not there."""
    there = {(file.stem, file.part) for file in files}
    return [
        f"{stem}.{part}.bin" if part else f"{stem}.bin"
        for stem in sorted(stems)
        for part in parts_of(parsed(stem)["subject"])
        if (stem, part) not in there
    ]


def parts_of(subject: str) -> tuple[str, ...]:
    """The golden files of a schema, by the fields of the entry that they hold."""
    return ("",) if subject in BARE else PARTS[subject.rpartition(".")[2]]


def unsaid(schema: Any, value: Any, whole: Any, place: str) -> Iterator[str]:
    """Fields of a schema that a value leaves out, or has nothing in."""
    forms = [form for form in branches(schema, whole) if "properties" in form]
    for form in forms:
        if not isinstance(value, dict):
            yield f"{place} is empty"
            continue
        for name, inside in form["properties"].items():
            if name not in value:
                yield f"{place}.{name}"
            else:
                yield from unsaid(inside, value[name], whole, f"{place}.{name}")


def entry_said(file: Golden) -> dict[str, Any]:
    """The entry of a golden file as its schema speaks of it."""
    if file.type == models.ENRICHED_CHAIN_TYPE:
        return {"data": {"h": file.said["header"], "c": file.said["columns"]}}
    return {file.part or "data": file.said if file.part != "data" else file.said["body"]}


def without_prose(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_prose(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: without_prose(said)
        for name, said in schema.items()
        if not (name in ("title", "description") and isinstance(said, str))
    }


def test_every_schema_that_ever_was_has_golden_files() -> None:
    wanted = missing(STEMS, FILES)
    assert not wanted, f"write in tests/data/frames: {', '.join(wanted)}, each with its .json"
    strangers = sorted({file.stem for file in FILES} - STEMS)
    assert not strangers, f"write in tests/data/schemas: {', '.join(strangers)}"


def test_golden_file_that_is_missing_is_named() -> None:
    assert missing({"chain.enriched.v1.wings", *STEMS}, FILES) == ["chain.enriched.v1.wings.bin"]
    assert missing({"chain.raw.v2"}, FILES) == ["chain.raw.v2.meta.bin", "chain.raw.v2.data.bin"]


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_schema_of_today_is_kept_among_those_that_ever_were(schema: Any) -> None:
    today = without_prose(json.loads(schema.text))
    kept = [stem for stem in STEMS if parsed(stem)["type"] == schema.type]
    assert today in [without_prose(document(stem)) for stem in kept], (
        f"{schema.type} has changed: copy docs/schemas/{schema.type}.json to"
        f" tests/data/schemas/{schema.type}.<word>.json and write golden files of that name"
    )


@pytest.mark.parametrize("stem", sorted(STEMS))
def test_schema_of_today_is_compatible_with_every_earlier_one(stem: str) -> None:
    earlier = parse_document((DATA / "schemas" / f"{stem}.json").read_bytes())
    subject = parsed(stem)["subject"]
    todays = [schema for schema in SCHEMAS.values() if schema.subject == subject]
    assert todays
    for schema in todays:
        assert check(earlier, json.loads(schema.text), schema.level) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path.stem)
def test_golden_file_says_something_of_every_field_of_its_schema(file: Golden) -> None:
    schema, said = document(file.stem), entry_said(file)
    (name,) = said
    assert list(unsaid(schema["properties"][name], said[name], schema, name)) == []
    fields = {"type": "object", "properties": schema["properties"], "required": [name]}
    whole = fields | {"$defs": schema["$defs"]}
    jsonschema.validate(said, whole, jsonschema.Draft202012Validator)


def test_field_that_a_golden_file_leaves_out_is_named() -> None:
    schema = document("chain.enriched.v1.smile")
    said = json.loads((DATA / "frames/chain.enriched.v1.json").read_text())
    value = {"h": said["header"] | {"smile": None}, "c": said["columns"]}
    found = list(unsaid(schema["properties"]["data"], value, schema, "data"))
    assert "data.h.aggregates.skew_25_delta" in found
    assert "data.h.smile is empty" in found


def test_columns_of_a_golden_frame_are_those_of_its_schema_in_order() -> None:
    for file in FILES:
        if file.type != models.ENRICHED_CHAIN_TYPE:
            continue
        schema = document(file.stem)
        frame = resolve(schema["properties"]["data"], schema)
        declared = frame["properties"]["c"]["properties"]
        columns = file.said["columns"]
        assert list(columns) == list(declared)
        assert list(declared) == [column.name for column in LEG_COLUMNS][: len(declared)]
        for name, column in columns.items():
            assert np.dtype(column["dtype"]) == np.dtype(declared[name]["x-dtype"])


def test_every_calculation_revision_has_a_golden_frame() -> None:
    chains = [file.said for file in FILES if file.type == models.ENRICHED_CHAIN_TYPE]
    revisions = {said["header"]["rev"] for said in chains}
    lacking = set(range(1, models.CALCULATION_REVISION + 1)) - revisions
    assert not lacking, f"write a golden frame of chain.enriched with rev {sorted(lacking)}"


def test_golden_files_are_as_they_were_written() -> None:
    known = {name: digest for digest, name in map(str.split, DIGESTS.read_text().splitlines())}
    there = {
        str(path.relative_to(DATA)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("frames", "schemas")
        for path in sorted((DATA / folder).iterdir())
    }
    changed = [name for name, digest in known.items() if there.get(name) != digest]
    assert not changed, f"golden files are never written again: {changed}"
    added = [f"{there[name]}  {name}" for name in sorted(set(there) - set(known))]
    assert not added, "\n".join(["add to tests/data/golden.sha256:", *added])
