"""The worked example of the page on Greeks prints what the page says."""

import contextlib
import io
import math
import re

from tests.support.rooms import CHECKOUT

PAGE = (CHECKOUT / "docs/greeks.md").read_text()


def test_the_worked_example_prints_what_is_shown() -> None:
    shown = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(shown[1], "docs/greeks.md", "exec"), {})  # noqa: S102 - our own page
    assert printed.getvalue() == shown[2]


def test_the_numbers_by_hand_follow_from_each_other() -> None:
    years = 174_388 / (365 * 86_400)
    discount = math.exp(-0.065 * years)
    assert f"T = 48 h 26 min 28 s = 174,388 s, over 31,536,000: {years:.7f} years" in PAGE
    assert 48 * 3_600 + 26 * 60 + 28 == 174_388
    assert f"{discount:.8f}" in PAGE
    assert f"{23_000 + (129.65 - 149.125) / discount:,.2f}" in PAGE
    assert f"{149.125 - discount * (23_000 - 22_980.2086):.2f}" in PAGE
    s = 0.204344735 * math.sqrt(years)
    d1 = math.log(22_980.2086 / 23_000) / s + s / 2
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    tail = 0.5 * math.erfc(-d1 / math.sqrt(2))
    for number in (f"{s:.6f}", f"−{-d1:.5f}", f"{tail:.5f}", f"{discount * tail:.4f}"):
        assert number in PAGE, number
    assert f"{density:.5f}" in PAGE
    assert f"{22_980.2086 * density:,.1f}" in PAGE
