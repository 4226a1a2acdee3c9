"""Which definitions change when a snapshot is seen, in whatever order of time."""

import msgspec

from pipeline.instruments import Changes, Definition, Known, decide

EVER = 2**63 - 1
CALL = Definition("NIFTY-20260127-25000-CE", 25_000.0, "call", 40_001, 65)


def known(instrument_id: int = 1, **changes: int | None) -> Known:
    fields: dict[str, int | None] = {
        "security_id": 40_001,
        "lot": 65,
        "valid_from": 100,
        "valid_to": EVER,
    }
    return msgspec.convert({"instrument_id": instrument_id} | fields | changes, Known)


def decided(at: int, *versions: Known, definition: Definition = CALL) -> Changes:
    return decide([definition], {definition.symbol: list(versions)}, at)


def test_unknown_contract_is_added_for_ever() -> None:
    assert decided(500) == Changes(add=[(CALL, EVER)])


def test_known_contract_changes_nothing() -> None:
    assert not decided(500, known())


def test_what_the_provider_does_not_say_matches() -> None:
    silent = msgspec.structs.replace(CALL, security_id=None, lot=None)
    assert not decided(500, known(), definition=silent)


def test_what_was_not_said_before_is_filled_in() -> None:
    assert decided(500, known(security_id=None, lot=None)) == Changes(complete=[(1, 40_001, 65)])


def test_filling_in_one_keeps_the_other() -> None:
    silent = msgspec.structs.replace(CALL, lot=None)
    assert decided(500, known(security_id=None), definition=silent) == Changes(
        complete=[(1, 40_001, 65)]
    )


def test_another_lot_ends_one_definition_and_begins_the_next() -> None:
    assert decided(500, known(lot=75)) == Changes(end=[1], add=[(CALL, EVER)])


def test_definition_between_two_others_ends_where_the_later_begins() -> None:
    versions = (known(1, lot=75, valid_to=900), known(2, lot=30, valid_from=900))
    assert decided(500, *versions) == Changes(end=[1], add=[(CALL, 900)])


def test_earlier_snapshot_of_the_same_definition_extends_it() -> None:
    assert decided(50, known()) == Changes(extend=[1])


def test_earlier_snapshot_of_another_definition_is_added_before() -> None:
    assert decided(50, known(lot=75)) == Changes(add=[(CALL, 100)])


def test_of_two_definitions_at_one_instant_the_last_said_holds() -> None:
    assert decided(100, known(lot=75)) == Changes(complete=[(1, 40_001, 65)])
