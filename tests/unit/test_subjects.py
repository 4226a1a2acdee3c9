"""How a schema comes into its subject: against whom it is checked, at which level."""

import itertools
import json
from typing import Any

import msgspec
import pytest

from pipeline.compatibility import Level
from pipeline.errors import DecodeError, SchemaConflict
from pipeline.models import ENRICHED_CHAIN_TYPE
from pipeline.shapes import SCHEMAS, Schema, schema_of
from pipeline.subjects import Admission, Revision, Subject, admit, claim, ids, objections

X = ("x", int)


def signal(version: int, *fields: Any, level: Level = Level.FULL_TRANSITIVE) -> Schema:
    return schema_of("signals", version, msgspec.defstruct("Signal", list(fields)), level=level)


def holding(*schemas: Schema, level: Level | None = None) -> Subject:
    """A subject in which these were registered, in this order; each became the current one."""
    revisions = [
        Revision(number, schema.version, schema.text.decode())
        for number, schema in enumerate(schemas, 1)
    ]
    current = {one.version: one.schema for one in revisions}
    kept = level or (schemas[0].level if schemas else None)
    return Subject("signals", kept, tuple(revisions), current)


def test_first_schema_of_a_subject_is_let_in() -> None:
    assert admit(holding(), signal(1, X)) is Admission.NEWEST
    assert admit(holding(), signal(7, X)) is Admission.NEWEST


def test_schema_that_stands_there_is_known_also_as_an_earlier_revision() -> None:
    first, grown = signal(1, X), signal(1, X, ("y", int, 0))
    assert admit(holding(first, grown), first) is Admission.KNOWN
    assert admit(holding(first, grown), grown) is Admission.KNOWN


def test_schema_that_says_less_than_the_current_one_comes_in_beside_it() -> None:
    grown = signal(1, X, ("y", int, 0))
    assert admit(holding(grown), signal(1, X)) is Admission.OLDER
    assert admit(holding(signal(1, X)), grown) is Admission.NEWEST


def test_older_writer_of_an_earlier_version_is_let_in() -> None:
    subject = holding(signal(1, X, ("y", int, 0)), signal(2, X, ("z", int, 0)))
    assert admit(subject, signal(1, X)) is Admission.OLDER
    with pytest.raises(SchemaConflict, match=r"version 2.*data\.z: type"):
        admit(subject, signal(1, X, ("z", str, "")))


def test_change_inside_a_version_is_checked_against_every_version() -> None:
    subject = holding(signal(1, X, ("y", int, 0)), signal(2, X))
    with pytest.raises(SchemaConflict, match=r"signals\.v2: .*version 1 \(id 1\): data\.y: type"):
        admit(subject, signal(2, X, ("y", str, "")))


def test_new_version_is_checked_against_every_revision_of_every_version() -> None:
    subject = holding(signal(1, X, ("y", int, 0)), signal(1, X), signal(2, X))
    with pytest.raises(SchemaConflict, match=r"signals\.v3: .*version 1 \(id 1\): data\.y: type"):
        admit(subject, signal(3, X, ("y", str, "")))
    assert admit(subject, signal(3, X, ("y", int, 0))) is Admission.NEWEST


@pytest.mark.parametrize(
    ("level", "is_refused"),
    [
        (Level.NONE, False),
        (Level.BACKWARD, False),
        (Level.BACKWARD_TRANSITIVE, True),
        (Level.FORWARD, False),
        (Level.FORWARD_TRANSITIVE, True),
        (Level.FULL, False),
        (Level.FULL_TRANSITIVE, True),
    ],
)
def test_only_transitive_levels_look_beyond_the_newest(level: Level, is_refused: bool) -> None:
    subject = holding(
        signal(1, X, ("y", int, 0), level=level), signal(2, X, level=level), level=level
    )
    candidate = signal(3, X, ("y", str, ""), level=level)
    if is_refused:
        with pytest.raises(SchemaConflict):
            admit(subject, candidate)
    else:
        assert admit(subject, candidate) is Admission.NEWEST


@pytest.mark.parametrize(
    ("level", "more", "less"),
    [
        (Level.BACKWARD, False, True),
        (Level.FORWARD, True, False),
        (Level.FULL, False, False),
        (Level.NONE, True, True),
    ],
)
def test_required_field_may_come_and_go_as_the_level_says(
    level: Level, more: bool, less: bool
) -> None:
    small, large = signal(1, X, level=level), signal(1, X, ("y", int), level=level)
    for held, candidate, is_let_in in ((small, large, more), (large, small, less)):
        subject = holding(held, level=level)
        if is_let_in:
            assert admit(subject, candidate) in (Admission.NEWEST, Admission.OLDER)
        else:
            with pytest.raises(SchemaConflict, match=r"data\.y: required"):
                admit(subject, candidate)


def test_another_level_than_the_subjects_is_refused() -> None:
    subject = holding(signal(1, X))
    with pytest.raises(SchemaConflict, match=r"asks for level NONE.*FULL_TRANSITIVE"):
        admit(subject, signal(1, X, level=Level.NONE))


def test_refusal_says_three_reasons_and_counts_the_rest() -> None:
    names = ("a", "b", "c", "d", "e")
    subject = holding(signal(1, *((name, int) for name in names), level=Level.BACKWARD))
    changed = signal(1, *((name, str) for name in names), level=Level.BACKWARD)
    with pytest.raises(SchemaConflict) as caught:
        admit(subject, changed)
    assert str(caught.value).count("type:") == 3
    assert str(caught.value).endswith("; and 2 more")


def test_registered_text_that_is_no_schema_is_an_error() -> None:
    subject = Subject("signals", None, (Revision(1, 1, "{"),), {1: "{"})
    with pytest.raises(DecodeError):
        admit(subject, signal(1, X))


def test_objections_of_one_version_leave_the_others_out() -> None:
    subject = holding(signal(1, X, ("y", int, 0)), signal(2, X))
    document = signal(3, X, ("y", str, "")).document
    assert list(objections(subject.only(2), 2, document, Level.FULL_TRANSITIVE)) == []
    assert len(list(objections(subject.only(1), 1, document, Level.FULL_TRANSITIVE))) == 2


def test_column_left_out_is_refused_unless_it_was_among_the_last() -> None:
    chain = SCHEMAS[ENRICHED_CHAIN_TYPE]
    older = json.loads(chain.text)
    columns = older["properties"]["data"]["properties"]["c"]["properties"]
    columns.pop("greeks_source")
    assert admit(holding(chain), Schema(chain.type, older, chain.level)) is Admission.OLDER
    columns.pop("iv")
    with pytest.raises(SchemaConflict, match=r"data\.c\.iv: column removed"):
        admit(holding(chain), Schema(chain.type, older, chain.level))


def test_ids_are_the_same_everywhere_and_above_zero() -> None:
    first = list(itertools.islice(ids("signals", 1, "{}"), 3))
    assert first == list(itertools.islice(ids("signals", 1, "{}"), 3))
    assert first == [1589824472, 1405448956, 1334058760]
    assert len(set(first)) == 3
    assert all(0 < number < 2**31 for number in first)
    others = [next(ids(*of)) for of in (("signal", 1, "{}"), ("signals", 2, "{}"))]
    assert not set(first) & set(others)
    assert claim("signals", 1, "{}").split()[:2] == ["signals", "1"]
