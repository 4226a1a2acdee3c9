"""Messages and frames: shapes, and that both encodings say the same."""

import json

import msgspec
import pytest

from api.live.messages import (
    chain_state,
    contract_reader,
    encode_message,
    join_frame,
    select_fields,
    snapshot_packet,
    underlying_state,
    update_packet,
)
from api.live.wire import Pong
from pipeline import frames
from pipeline.models import market_snapshot
from tests.support import chains

CHAIN = chains.enriched(strikes=3)
POSITION = frames.Position("e1", 7, 1)
TEXTS = frames.encode_client_json(CHAIN, market_snapshot(CHAIN.header), POSITION)


def test_chain_text_becomes_rows_by_symbol() -> None:
    state = chain_state(TEXTS.chain)
    assert list(state.rows) == list(TEXTS.contracts)
    assert state.ts_ingest == chains.TS_INGEST
    assert state.position == POSITION


def test_contract_and_underlying_have_one_row() -> None:
    symbol, text = next(iter(TEXTS.contracts.items()))
    contract = contract_reader(symbol)(text)
    assert list(contract.rows) == [symbol]
    assert contract.rows[symbol] == chain_state(TEXTS.chain).rows[symbol]
    assert list(underlying_state(TEXTS.underlying).rows) == ["NIFTY"]


def test_contracts_of_a_chain_have_the_header_and_position_of_its_text() -> None:
    states = [contract_reader(symbol)(text) for symbol, text in TEXTS.contracts.items()]
    header = CHAIN.header
    assert [list(state.rows) for state in states] == [[symbol] for symbol in TEXTS.contracts]
    assert {(state.position, state.ts_ingest) for state in states} == {(POSITION, header.ts_ingest)}
    assert json.loads(states[-1].header or b"") == {
        "chain": header.chain,
        "ts_ingest": header.ts_ingest,
        "ts_event": header.ts_event,
        "spot": header.spot,
        "forward": header.forward,
    }


def test_contract_text_of_another_shape_is_refused() -> None:
    (symbol, text), (_, of_another), *_ = TEXTS.contracts.items()
    for wrong in (b"", b"{}", text[:-1], text[:-2], text + b"x", text[50:], of_another):
        with pytest.raises(msgspec.MsgspecError):
            contract_reader(symbol)(wrong)


def test_updates_with_and_without_more_to_say_are_alike() -> None:
    symbol, text = next(iter(TEXTS.contracts.items()))
    before = contract_reader(symbol)(text)
    after = msgspec.structs.replace(before, position=frames.Position("e1", 9, 2))
    for channel in ("contract:X", "band:X:atm±2"):
        plain = json.loads(update_packet(channel, before, after, after.rows.values(), [], 2).json)
        more = update_packet(channel, before, after, after.rows.values(), ["gone"], 2)
        assert list((plain | {"removed": ["gone"]}).items()) == list(json.loads(more.json).items())
        assert plain["channel"] == channel


def test_snapshot_has_the_whole_state() -> None:
    state = chain_state(TEXTS.chain)
    message = json.loads(snapshot_packet("chain:X", state, state.rows).json)
    assert message["seq"] == 7
    assert message["as_of"] == "2026-01-25T10:00:00.000000Z"
    assert message["header"]["chain"] == "NIFTY-20260127"
    assert [row["symbol"] for row in message["rows"]] == list(TEXTS.contracts)


def test_update_says_what_it_follows_and_what_is_gone() -> None:
    before = chain_state(TEXTS.chain)
    after = msgspec.structs.replace(before, position=frames.Position("e1", 9, 2))
    packet = update_packet("chain:X", before, after, [], ["NIFTY-20260127-25050-CE"], 2)
    message = json.loads(packet.json)
    assert (message["prev"], message["seq"], message["n"], message["rows"]) == (7, 9, 2, [])
    assert message["removed"] == ["NIFTY-20260127-25050-CE"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300])
def test_both_encodings_are_arrays_of_the_same_messages(count: int) -> None:
    pongs = [Pong(id=number, ts="") for number in range(count)]
    messages = [{"type": "pong", "id": number, "ts": ""} for number in range(count)]
    text = join_frame([encode_message(pong, False) for pong in pongs], False)
    packed = join_frame([encode_message(pong, True) for pong in pongs], True)
    assert json.loads(text) == messages == msgspec.msgpack.decode(packed)


def test_packet_says_the_same_in_both_encodings() -> None:
    state = chain_state(TEXTS.chain)
    packet = snapshot_packet("chain:X", state, state.rows)
    assert msgspec.msgpack.decode(packet.encoded(True)) == json.loads(packet.encoded(False))


def test_selected_row_keeps_its_symbol() -> None:
    row = next(iter(chain_state(TEXTS.chain).rows.values()))
    assert set(json.loads(select_fields(row, ("iv", "last")))) == {"symbol", "iv", "last"}
