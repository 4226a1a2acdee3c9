import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.live.bands import MARGIN, Centre, band_reader, window
from api.live.channels import Refused
from api.live.kinds import parse_channel
from api.live.messages import State, update_packet
from pipeline import frames
from pipeline.models import EnrichedChain, market_snapshot
from tests.support import chains

STRIKES = [24_800.0 + 50 * number for number in range(9)]
CHAIN = chains.enriched(9)


def text_at(spot: float | None, seq: int = 1) -> bytes:
    header = msgspec.structs.replace(CHAIN.header, spot=spot)
    chain = EnrichedChain(header, CHAIN.legs)
    position = frames.Position("e1", seq, seq)
    return frames.encode_client_json(chain, market_snapshot(header), position).chain


def test_band_stays_until_spot_is_past_the_margin() -> None:
    centre = Centre()
    assert centre.follow(25_001.0, STRIKES) == 25_000.0
    assert centre.follow(25_025.0 + 50 * MARGIN, STRIKES) == 25_000.0
    assert centre.follow(25_025.1 + 50 * MARGIN, STRIKES) == 25_050.0
    assert centre.follow(25_024.0, STRIKES) == 25_050.0
    assert centre.follow(25_019.9, STRIKES) == 25_000.0


@given(st.lists(st.floats(25_020.1, 25_029.9), min_size=1, max_size=50))
def test_spot_between_two_strikes_never_moves_a_band(prices: list[float]) -> None:
    centre = Centre()
    first = centre.follow(prices[0], STRIKES)
    assert {centre.follow(price, STRIKES) for price in prices} == {first}


@given(st.lists(st.floats(24_000.0, 26_000.0), min_size=1, max_size=50))
def test_centre_is_never_further_than_the_margin_allows(prices: list[float]) -> None:
    centre = Centre()
    for price in prices:
        strike = centre.follow(price, STRIKES)
        inside = min(max(price, STRIKES[0]), STRIKES[-1])
        assert strike is not None
        assert abs(strike - inside) <= 50 * (0.5 + MARGIN) + 1e-9


def test_band_stays_while_there_is_no_price() -> None:
    centre = Centre()
    assert centre.follow(None, STRIKES) is None
    assert centre.follow(24_900.0, STRIKES) == 24_900.0
    assert centre.follow(None, STRIKES) == 24_900.0
    assert centre.follow(float("nan"), STRIKES) == 24_900.0


def test_band_moves_when_its_centre_is_listed_no_more() -> None:
    centre = Centre()
    centre.follow(25_000.0, STRIKES)
    assert centre.follow(25_001.0, [24_900.0, 25_100.0]) == 25_100.0


def test_window_is_cut_at_the_ends_of_the_chain() -> None:
    assert window(STRIKES, 24_850.0, 2) == (24_800.0, 24_850.0, 24_900.0, 24_950.0)
    assert window(STRIKES, 25_000.0, 0) == (25_000.0,)


def moved(spots: list[float | None]) -> list[State]:
    read = band_reader("NIFTY-20260127:atm±1")
    found = [read(text_at(spot, seq)) for seq, spot in enumerate(spots, 1)]
    return [state for state in found if state is not None]


def test_band_says_which_strikes_entered_and_left() -> None:
    before, after = moved([25_000.0, 25_060.0])
    rows = [row for name, row in after.rows.items() if name not in before.rows]
    removed = [name for name in before.rows if name not in after.rows]
    packet = update_packet("band:x", before, after, rows, removed, 1)
    message = msgspec.json.decode(packet.json)
    assert (message["entered"], message["left"]) == ([25_100.0], [24_950.0])
    assert message["removed"] == ["NIFTY-20260127-24950-CE", "NIFTY-20260127-24950-PE"]
    assert [row["symbol"] for row in message["rows"]] == [
        "NIFTY-20260127-25100-CE",
        "NIFTY-20260127-25100-PE",
    ]
    assert len(message["rows"][0]) > 20  # they come whole
    assert message["header"]["centre"] == 25_050.0


def test_band_that_did_not_move_says_nothing_of_it() -> None:
    before, after = moved([25_000.0, 25_029.0])
    message = msgspec.json.decode(update_packet("band:x", before, after, [], [], 1).json)
    assert "entered" not in message
    assert "left" not in message


def test_band_without_spot_is_round_the_forward() -> None:
    (state,) = moved([None])
    assert state.strikes == (24_950.0, 25_000.0, 25_050.0)


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("band:NIFTY-20260127:atm±10", "NIFTY-20260127:atm±10"),
        ("band:NIFTY-20260127:atm+-5", "NIFTY-20260127:atm±5"),
        ("band:NIFTY-nearest:atm±0", "NIFTY-nearest:atm±0"),
    ],
)
def test_names_of_bands(name: str, stands: str) -> None:
    assert parse_channel(name).symbol == stands


@pytest.mark.parametrize(
    "name",
    ["band:NIFTY-20260127", "band:NIFTY:atm±1", "band:NIFTY-20260127:atm±999", "band:", "band:x:y"],
)
def test_names_that_are_no_bands_are_refused(name: str) -> None:
    with pytest.raises(Refused):
        parse_channel(name)


def test_value_that_comes_behind_a_newer_one_moves_no_band() -> None:
    read = band_reader("NIFTY-20260127:atm±1")
    assert read(text_at(25_000.0, seq=3)) is not None
    assert read(text_at(25_045.0, seq=2)) is None
    assert read(text_at(25_000.0, seq=3)) is None
    state = read(text_at(25_022.0, seq=4))
    assert state is not None
    assert state.strikes == (24_950.0, 25_000.0, 25_050.0)
