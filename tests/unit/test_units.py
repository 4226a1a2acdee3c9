"""Units stand beside names, and only where there is one."""

from pipeline.models import LEG_COLUMNS, ChainAggregates
from pipeline.units import UNITS, unit_metadata

RATIOS = {"put_call_ratio_open_interest", "put_call_ratio_volume"}


def test_legs_have_the_units_of_their_layout() -> None:
    for column in LEG_COLUMNS:
        assert (unit_metadata(column.name) or {}).get("unit", "") == column.unit


def test_aggregates_have_units_but_for_ratios() -> None:
    assert set(ChainAggregates.__struct_fields__) - UNITS.keys() == RATIOS
    assert unit_metadata("put_call_ratio_volume") is None
