import asyncio
import fnmatch
import gc
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.live import patterns
from api.live.channels import Refused
from api.live.patterns import Patterns, fits, parse_pattern, pinned
from pipeline.errors import BusUnavailable
from pipeline.latest import Catalog, ChainCard, UnderlyingCard


class Shelf:
    """The catalog, as far as patterns ask for it."""

    def __init__(self) -> None:
        self.chains: dict[str, ChainCard] = {}
        self.listed: dict[str, UnderlyingCard] = {}
        self.is_away = False
        self.asked = 0

    async def catalog(self) -> Catalog:
        self.asked += 1
        if self.is_away:
            raise BusUnavailable("away")
        return Catalog(dict(self.chains), dict(self.listed))

    def put(self, symbol: str, n: int = 10) -> None:
        self.chains[symbol] = ChainCard(
            underlying=symbol[:-9], expiry="2026-01-27", ts_ingest=1, lot=1, n=n, provider="test"
        )


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **_: Any) -> None:
        self.events.append(event)

    error = warning


class Follows:
    """Somebody who looks, as long as nothing is in the way."""

    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self.error = error

    async def look_again(self) -> None:
        self.looks += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def shelf() -> Shelf:
    found = Shelf()
    found.put("NIFTY-20260127")
    return found


@pytest.fixture
def told(shelf: Shelf) -> Patterns:
    return Patterns(shelf.catalog, Log())


async def test_follower_looks_once_and_again_when_there_is_a_new_symbol(
    shelf: Shelf, told: Patterns
) -> None:
    follower = Follows()
    told.follow(follower)
    for _ in range(3):
        await told.look()
    assert follower.looks == 1
    shelf.put("BANKNIFTY-20260127")
    await told.look()
    shelf.put("BANKNIFTY-20260127", n=12)  # more contracts
    await told.look()
    shelf.listed["FINNIFTY"] = UnderlyingCard(
        underlying="FINNIFTY", expiries=("2026-01-27",), ts_ingest=1
    )
    await told.look()
    assert follower.looks == 4


async def test_follower_that_comes_when_all_was_seen_looks_too(told: Patterns) -> None:
    first, second = Follows(), Follows()
    told.follow(first)
    await told.look()
    told.follow(second)
    await told.look()
    assert (first.looks, second.looks) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [BusUnavailable("away"), Refused("x", "no"), RuntimeError("closed")],
    ids=["redis away", "refused", "unexpected"],
)
async def test_follower_that_fails_keeps_nobody_from_looking_and_tries_again(
    told: Patterns, error: Exception
) -> None:
    failing, *others = Follows(error), *(Follows() for _ in range(40))
    for follower in (*others[:20], failing, *others[20:]):
        told.follow(follower)
    await told.look()
    assert {follower.looks for follower in others} == {1}
    failing.error = None
    await told.look()
    await told.look()
    assert failing.looks == 2
    assert {follower.looks for follower in others} == {1}


async def test_one_that_waits_does_not_keep_its_neighbours_waiting(told: Patterns) -> None:
    gate = asyncio.Event()

    class Waits(Follows):
        async def look_again(self) -> None:
            await gate.wait()
            await super().look_again()

    slow, quick = Waits(), [Follows() for _ in range(5)]
    for follower in (slow, *quick):
        told.follow(follower)
    looking = asyncio.create_task(told.look())
    while {follower.looks for follower in quick} != {1}:
        await asyncio.sleep(0)
    assert slow.looks == 0
    gate.set()
    await looking
    assert slow.looks == 1


async def test_catalog_that_cannot_be_read_is_asked_again(shelf: Shelf, told: Patterns) -> None:
    follower = Follows()
    told.follow(follower)
    shelf.is_away = True
    await told.look()
    shelf.is_away = False
    await told.look()
    assert follower.looks == 1


async def test_who_is_dismissed_while_it_fails_looks_no_more(shelf: Shelf, told: Patterns) -> None:
    class Leaves(Follows):
        async def look_again(self) -> None:
            self.looks += 1
            told.dismiss(self)
            raise BusUnavailable("away")

    follower = Leaves()
    told.follow(follower)
    for number in range(3):
        shelf.put(f"NIFTY-2026020{number + 1}")
        await told.look()
    assert follower.looks == 1


async def test_nothing_is_read_where_nobody_follows_or_all_have_gone(
    shelf: Shelf, told: Patterns
) -> None:
    await told.look()
    follower = Follows()
    told.follow(follower)
    del follower
    gc.collect()
    await told.look()
    assert shelf.asked == 0


async def test_everybody_looks_now_and_then_for_contracts_in_the_place_of_others(
    told: Patterns, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follows()
    told.follow(follower)
    await told.look()
    monkeypatch.setattr(patterns, "SWEEP_S", 0.0)
    await told.look()
    assert follower.looks == 2


_TEXT = st.text("ab-", max_size=12)


@given(st.text("ab-*", max_size=10), _TEXT)
def test_star_stands_for_any_text(pattern: str, text: str) -> None:
    assert fits(pattern, text) == bool(re.fullmatch(fnmatch.translate(pattern), text))


def test_pattern_of_many_stars_takes_no_longer_than_others() -> None:
    begun = time.process_time()
    assert not fits("*a" * 40, "a" * 39)
    assert not fits("*1" * 39 + "*X", "1" * 78)
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize(
    "rest",
    ["NIFTY-20260127-*", "M&M-20260127-*-CE", "BAJAJ-AUTO-20260127-9*", "NIFTY-nearest-*-PE"],
)
def test_pattern_of_contracts_names_its_chain(rest: str) -> None:
    assert parse_pattern("contract", rest) == rest


@pytest.mark.parametrize(
    "rest",
    ["*", "NIFTY-*", "NIFTY-20260127*", "NIFTY-2026*-25000-CE", "NIFTY-20269999-*", "*-nearest-*"],
)
def test_pattern_of_contracts_of_many_chains_is_refused(rest: str) -> None:
    with pytest.raises(Refused):
        parse_pattern("contract", rest)


@pytest.mark.parametrize("rest", ["N*\n", "*" * 81, "N *", "ä*", "N*/../x"])
def test_what_could_be_in_no_symbol_is_no_pattern(rest: str) -> None:
    with pytest.raises(Refused):
        parse_pattern("chain", rest)


def test_nearest_of_a_pattern_stays_the_chain_that_it_brought() -> None:
    brought = {"contract:BAJAJ-AUTO-20260127-9000-CE"}
    pattern = "contract:BAJAJ-AUTO-nearest-*-CE"
    assert pinned(pattern, brought) == "contract:BAJAJ-AUTO-20260127-*-CE"
    assert pinned(pattern, set()) == pattern
    assert pinned("chain:NIFTY-*", {"chain:NIFTY-20260127"}) == "chain:NIFTY-*"
