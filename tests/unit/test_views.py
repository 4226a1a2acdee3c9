"""A consumer's view of a chain: its columns and legs, cut as selected."""

import msgspec
import numpy as np
import pytest

from pipeline import frames
from pipeline.entries import Entry
from pipeline.errors import DecodeError
from pipeline.frames import Leg
from pipeline.models import LEG_COLUMNS, ChainHeader, EnrichedChain
from pipeline.selection import selection
from pipeline.views import view
from tests.support import chains

CHAIN = chains.enriched(21)


def entry(data: bytes) -> Entry:
    return Entry(
        stream_id="1-1",
        id="id",
        type="chain.enriched.v1",
        key="NIFTY-20260127",
        ts=1,
        te=2,
        seq=1,
        epoch="e",
        traceparent="",
        enc="",
        meta=b"",
        data=data,
        attempts=1,
    )


FRAME = entry(frames.encode_frame(CHAIN))


def test_whole_chain_has_every_column_of_the_frame() -> None:
    chain = view(FRAME, selection())
    assert isinstance(chain.header, ChainHeader)
    assert chain.entry is FRAME
    assert len(chain) == CHAIN.header.n
    assert list(chain.columns) == [spec.name for spec in LEG_COLUMNS]
    for name, column in CHAIN.legs.items():
        np.testing.assert_array_equal(chain.columns[name], column, name)


def test_selected_legs_are_cut_out_of_every_column_and_the_header_stays() -> None:
    chain = view(FRAME, selection(band_strikes=2, kind="put"))
    kept = np.arange(17, 27, 2)
    assert len(chain) == 5
    assert chain.header.n == CHAIN.header.n
    for name, column in CHAIN.legs.items():
        np.testing.assert_array_equal(chain.columns[name], column[kept], name)
    assert chain.symbols() == [f"NIFTY-20260127-{25_000 + 50 * n}-PE" for n in range(-2, 3)]


def test_legs_say_what_the_rows_of_the_client_json_say() -> None:
    chain = view(FRAME, selection())
    assert [msgspec.structs.asdict(leg) for leg in chain.legs()] == frames.leg_rows(CHAIN)
    assert Leg.__struct_fields__ == frames.ROW_FIELDS


def test_leg_without_a_value_says_none() -> None:
    legs = {name: column.copy() for name, column in CHAIN.legs.items()}
    legs["iv"][0] = np.nan
    gappy = entry(frames.encode_frame(EnrichedChain(CHAIN.header, legs)))
    first, second = view(gappy, selection()).legs()[:2]
    assert first.iv is None
    assert second.iv == pytest.approx(legs["iv"][1])
    with pytest.raises(AttributeError, match="immutable"):
        first.iv = 0.1


def test_plain_text_of_a_contract_reads_as_the_leg_it_was() -> None:
    leg = view(FRAME, selection()).legs()[3]
    text = {name: str(value) for name, value in msgspec.structs.asdict(leg).items()}
    assert msgspec.convert(text, Leg, strict=False) == leg


def test_column_an_older_frame_lacks_is_absent_and_an_unknown_name_is_an_error() -> None:
    packed = msgspec.msgpack.decode(FRAME.data)
    del packed["c"]["iv_fit"]
    chain = view(entry(msgspec.msgpack.encode(packed)), selection(band_strikes=0))
    assert np.isnan(chain.columns["iv_fit"]).tolist() == [True, True]
    with pytest.raises(KeyError):
        chain.columns["ivfit"]


def test_bytes_that_are_no_frame_are_refused_before_anybody_reads_a_column() -> None:
    packed = msgspec.msgpack.decode(FRAME.data)
    packed["c"]["rho"] = packed["c"]["rho"][:-1]
    with pytest.raises(DecodeError, match="rho"):
        view(entry(msgspec.msgpack.encode(packed)), selection())


def test_chain_without_a_forward_has_no_leg_in_a_band() -> None:
    header = msgspec.structs.replace(CHAIN.header, forward=None)
    unknown = entry(frames.encode_frame(EnrichedChain(header, CHAIN.legs)))
    assert len(view(unknown, selection(band_percent=5))) == 0
    assert view(unknown, selection(band_percent=5)).legs() == []
    assert len(view(unknown, selection())) == 42
