import json
import math

import msgspec
import numpy as np
import pytest

from pipeline import frames
from pipeline.errors import DecodeError
from pipeline.frames import Position
from pipeline.models import LEG_COLUMNS, NULL_INTEGER, EnrichedChain, market_snapshot
from tests.support import chains

POSITION = Position("e1", 7, chains.TS_INGEST + 5)


def test_frame_comes_back_as_the_chain_it_was() -> None:
    chain = chains.enriched()
    again = frames.decode_frame(frames.encode_frame(chain))
    assert again.header == chain.header
    for spec in LEG_COLUMNS:
        np.testing.assert_array_equal(again.legs[spec.name], chain.legs[spec.name], spec.name)
        assert again.legs[spec.name].dtype.str == spec.dtype


def test_same_chain_always_gives_the_same_bytes() -> None:
    assert frames.encode_frame(chains.enriched()) == frames.encode_frame(chains.enriched())


def test_column_that_an_older_writer_did_not_know_is_absent() -> None:
    packed = msgspec.msgpack.decode(frames.encode_frame(chains.enriched(2)))
    del packed["c"]["iv_fit"], packed["c"]["security_id"]
    packed["c"]["of_tomorrow"] = b"1234"
    legs = frames.decode_frame(msgspec.msgpack.encode(packed)).legs
    assert np.isnan(legs["iv_fit"]).all()
    assert legs["security_id"].tolist() == [NULL_INTEGER] * 4
    assert "of_tomorrow" not in legs


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80", frames.encode_frame(chains.enriched())[:-9]]
)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        frames.decode_frame(data)


def test_column_of_another_length_is_refused_by_name() -> None:
    packed = msgspec.msgpack.decode(frames.encode_frame(chains.enriched(2)))
    packed["c"]["iv"] = packed["c"]["iv"][:-8]
    with pytest.raises(DecodeError, match="iv"):
        frames.decode_frame(msgspec.msgpack.encode(packed))


def test_client_json_says_null_for_what_is_absent_and_words_for_kinds() -> None:
    chain = chains.enriched(3)
    legs = {name: column.copy() for name, column in chain.legs.items()}
    legs["last"][0] = math.nan
    legs["volume"][0] = NULL_INTEGER
    texts = frames.encode_client_json(
        EnrichedChain(chain.header, legs), market_snapshot(chain.header), POSITION
    )
    whole = json.loads(texts.chain)
    assert whole["symbol"] == "NIFTY-20260127"
    assert whole["position"] == {"epoch": "e1", "seq": 7, "ts_enrich": chains.TS_INGEST + 5}
    first, second = whole["rows"][:2]
    assert tuple(first) == frames.ROW_FIELDS
    assert (first["last"], first["volume"]) == (None, None)
    assert (first["kind"], second["kind"]) == ("call", "put")
    assert first["symbol"] == "NIFTY-20260127-24950-CE"


def test_each_contract_text_holds_its_row_of_the_chain() -> None:
    chain = chains.enriched(3)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), POSITION)
    rows = {row["symbol"]: row for row in json.loads(texts.chain)["rows"]}
    assert set(texts.contracts) == set(rows)
    for symbol, text in texts.contracts.items():
        contract = json.loads(text)
        assert contract["row"] == rows[symbol]
        assert contract["forward"] == chain.header.forward


def test_provider_columns_read_as_the_digits_that_were_printed() -> None:
    row = frames.leg_rows(chains.enriched(1))[0]
    assert row["gamma_provider"] == 0.001
    assert row["theta_provider"] == -12.5
    assert row["iv_provider"] == 0.125
