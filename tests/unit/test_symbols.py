"""What people type, as what a symbol must look like."""

import pytest

from pipeline.symbols import patterns


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("nifty", ["NIFTY%"]),
        ("nifty 25000 ce", ["NIFTY%", "%-25000%", "%-CE"]),
        ("bank 51500PE", ["BANK%", "%-51500-PE"]),
        ("nifty 27 jan 25000 put", ["%-____0127%", "NIFTY%", "%-25000%", "%-PE"]),
        ("27JAN2026", ["%-20260127%"]),
        ("3 february 26", ["%-20260203%"]),
        ("nifty feb", ["%-____02__%", "NIFTY%"]),
        ("maruti", ["MARUTI%"]),
        ("mar 2026", ["%-202603__%"]),
        ("2026-01-27 call", ["%-20260127%", "%-CE"]),
        ("20260127", ["%-20260127%"]),
        ("NIFTY-20260127-25000-CE", ["NIFTY-20260127-25000-CE%"]),
        ("M&M 100%", ["M&M%", r"%-100\%%"]),
        ("a_b", [r"A\_B%"]),
    ],
)
def test_words_become_patterns(text: str, wanted: list[str]) -> None:
    assert patterns(text) == wanted
