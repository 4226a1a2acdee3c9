import pytest

from pipeline.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RequestRejected,
)
from workers.ingest import breaker as rules
from workers.ingest.breaker import Breaker


def test_rate_limit_backs_off_further_each_time_up_to_its_cap() -> None:
    breaker = Breaker()
    waits = [breaker.failed(RateLimited("slow down")) for _ in range(12)]
    assert 3.0 <= waits[0] <= 6.0
    assert all(wait <= rules.RATE_LIMIT_CAP_S for wait in waits)
    assert waits[-1] >= rules.RATE_LIMIT_CAP_S / 2


def test_lost_connection_is_tried_again_within_a_second() -> None:
    assert Breaker().failed(ProviderUnavailable("gone")) < 1.0


def test_refused_token_is_tried_once_more_at_once_and_then_seldom() -> None:
    breaker = Breaker()
    assert breaker.failed(AuthenticationFailed("expired")) == 0.0
    assert breaker.failed(AuthenticationFailed("expired")) == rules.NEW_TOKEN_S


def test_success_forgets_the_failures() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(ProviderUnavailable("gone"))
    breaker.succeeded()
    assert breaker.failed(ProviderUnavailable("gone")) < 1.0


@pytest.mark.parametrize(
    ("error", "is_trouble"),
    [
        (ProviderUnavailable("gone"), False),
        (RateLimited("slow down"), False),
        (AccessDenied("no plan"), True),
        (RequestRejected("no such expiry"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_first_error_is_trouble_only_where_waiting_mends_nothing(
    error: ProviderError, is_trouble: bool
) -> None:
    breaker = Breaker()
    breaker.failed(error)
    assert breaker.is_trouble(error) is is_trouble
