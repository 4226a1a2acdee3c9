from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from api.live.channels import Channel, Form
from api.live.deltas import delta_of
from api.live.groups import Group
from api.live.messages import State
from api.live.outbox import Outbox
from pipeline.frames import Position

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
)
FIELDS = st.dictionaries(st.sampled_from("abcdefgh"), VALUES)
CHAINS = st.lists(
    st.dictionaries(st.sampled_from(["X-CE", "X-PE", "Y-CE", "Y-PE"]), FIELDS),
    min_size=1,
    max_size=8,
)


def row(name: str, fields: dict[str, object]) -> bytes:
    return msgspec.json.encode({"symbol": name, **fields})


@given(st.fixed_dictionaries(dict.fromkeys("abc", VALUES)), FIELDS)
def test_delta_put_over_the_row_is_the_next_row(
    before: dict[str, object], changes: dict[str, object]
) -> None:
    held, after = row("X", before), row("X", before | changes)
    delta = delta_of(held, after)
    assert delta is not None
    assert msgspec.json.decode(held) | msgspec.json.decode(delta) == msgspec.json.decode(after)
    assert len(delta) <= len(after)


def test_delta_has_the_key_and_what_changed_alone() -> None:
    before = row("X", {"last": 1.5, "bid": 1.0, "ask": None})
    after = row("X", {"last": 1.5, "bid": None, "ask": 2.0})
    assert delta_of(before, after) == row("X", {"bid": None, "ask": 2.0})


def test_row_that_lost_a_field_has_no_delta() -> None:
    assert delta_of(row("X", {"last": 1, "bid": 2}), row("X", {"last": 1})) is None


@given(CHAINS)
def test_client_that_applies_deltas_holds_the_very_rows(steps: list[dict[str, Any]]) -> None:
    group = Group(Channel("chain", "X"), Form(100, is_delta=True), Outbox())
    held: dict[str, dict[str, object]] = {}
    for seq, step in enumerate(steps, 1):
        rows = {name: row(name, fields) for name, fields in step.items()}
        packet = group.advance(State(Position("e1", seq, seq), seq, None, rows), seq)
        whole = packet or group.snapshot()
        assert whole is not None
        message = msgspec.json.decode(whole.json)
        if message["type"] == "snapshot":
            held = {}
        for one in message["rows"]:
            name = one["symbol"]
            is_delta = message.get("delta") and name not in message.get("whole", ())
            held[name] = (held.get(name, {}) if is_delta else {}) | one
        for name in message.get("removed", ()):
            del held[name]
        assert held == {name: msgspec.json.decode(one) for name, one in rows.items()}
