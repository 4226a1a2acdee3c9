"""How long to leave the provider alone after an error. Pure but for the jitter.

Backing off is by kind: a rate limit asks for more patience than a lost connection, and an account
without a data plan is only looked at again now and then.
"""

from pipeline.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from pipeline.runtime import jittered

RATE_LIMIT_FIRST_S, RATE_LIMIT_CAP_S = 3.0, 300.0
UNAVAILABLE_FIRST_S, UNAVAILABLE_CAP_S = 0.2, 30.0
NEW_TOKEN_S = 30.0
NO_PLAN_S = 300.0
REJECTED_S = 60.0
TROUBLE_AFTER = 3  # errors in a row before a retryable kind is called trouble


class Breaker:
    """The errors in a row of one target."""

    def __init__(self) -> None:
        self.failures = 0

    def succeeded(self) -> None:
        """Forget what went wrong."""
        self.failures = 0

    def failed(self, error: ProviderError) -> float:
        """Count an error; seconds of the wall clock to wait before the next request."""
        self.failures += 1
        match error:
            case RateLimited():
                return jittered(self.failures, first_s=RATE_LIMIT_FIRST_S, cap_s=RATE_LIMIT_CAP_S)
            case ProviderUnavailable():
                return jittered(self.failures, first_s=UNAVAILABLE_FIRST_S, cap_s=UNAVAILABLE_CAP_S)
            case AuthenticationFailed():
                # The first time a token just replaced on disk may help at once.
                return 0.0 if self.failures == 1 else NEW_TOKEN_S
            case AccessDenied():
                return NO_PLAN_S
            case _:
                return REJECTED_S

    def is_trouble(self, error: ProviderError) -> bool:
        """Whether somebody should be told: at once where waiting alone mends nothing."""
        return not error.retryable or self.failures >= TROUBLE_AFTER
