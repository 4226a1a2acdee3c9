import pytest

from pipeline.clock import parse_instant
from pipeline.errors import ConfigError
from stockify.instants import Place, instant, place

NOW = parse_instant("2026-01-20T00:10:00+05:30")  # still the 19th in UTC


@pytest.mark.parametrize(
    ("text", "means"),
    [
        pytest.param("09:15", "2026-01-20T09:15:00+05:30", id="time of day: the exchange's day"),
        pytest.param("9:15:30", "2026-01-20T09:15:30+05:30", id="with seconds"),
        pytest.param("2026-01-19T09:15:00Z", "2026-01-19T09:15:00+00:00", id="RFC 3339"),
        pytest.param("2026-01-19T09:15", "2026-01-19T09:15:00+05:30", id="without offset: IST"),
    ],
)
def test_instant_is_read_as_people_type_it(text: str, means: str) -> None:
    assert instant(text, NOW) == parse_instant(means)
    assert place(text, NOW) == Place(ns=parse_instant(means))


@pytest.mark.parametrize("text", ["25:00", "soon", "", "12-0"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        place(text, NOW)


def test_stream_id_is_a_place_by_itself() -> None:
    at = place("1769000000000-3", NOW)
    assert not at.is_reached(10**19, "1769000000000-2")
    assert at.is_reached(0, "1769000000000-3")
    assert at.is_reached(0, "1769000000001-0")
    assert place("1769000000000", NOW).is_reached(0, "1769000000000-0")


def test_instant_is_compared_with_the_time_of_receipt() -> None:
    at = Place(ns=5)
    assert not at.is_reached(4, "9-9")
    assert at.is_reached(5, "0-1")
