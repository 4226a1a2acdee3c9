"""Rate limits: rolling windows by client."""

from pipeline.clock import SECOND_NS
from workers.simulator.limits import Limits, Window


def at(seconds: float) -> int:
    return int(1_000_000 * SECOND_NS + seconds * SECOND_NS)


def test_window_is_closed_at_its_end() -> None:
    window = Window(1.0)
    assert window.admit("a", at(0))
    assert not window.admit("a", at(1.0))
    assert window.admit("a", at(1.1))


def test_refused_request_does_not_lengthen_the_wait() -> None:
    window = Window(3.0)
    assert window.admit("a", at(0))
    assert not any(window.admit("a", at(s)) for s in (1.0, 2.0, 2.9))
    assert window.admit("a", at(3.1))


def test_each_chain_has_its_own_window_by_default() -> None:
    limits = Limits(is_chain_limit_for_account=False)
    assert limits.admit_chain("me", ("NIFTY", 1), at(0))
    assert limits.admit_chain("me", ("NIFTY", 2), at(0))
    assert not limits.admit_chain("me", ("NIFTY", 1), at(2))
    assert limits.admit_chain("you", ("NIFTY", 1), at(2))


def test_account_limit_counts_all_chains_together() -> None:
    limits = Limits(is_chain_limit_for_account=True)
    assert limits.admit_chain("me", ("NIFTY", 1), at(0))
    assert not limits.admit_chain("me", ("NIFTY", 2), at(2))
    assert limits.admit_chain("me", ("NIFTY", 2), at(3.1))


def test_quotes_do_not_count_as_chains() -> None:
    limits = Limits(is_chain_limit_for_account=True)
    assert limits.admit_chain("me", "NIFTY", at(0))
    assert limits.admit_quote("me", at(0))
    assert not limits.admit_quote("me", at(0.9))


def test_clock_that_went_back_does_not_lock_a_client_out() -> None:
    window = Window(3.0)
    assert window.admit("a", at(100))
    assert window.admit("a", at(0))


def test_memory_is_bounded() -> None:
    window = Window(3.0)
    for number in range(10_000):
        assert window.admit(number, at(number))
    assert len(window._latest) <= 4_096
