"""What is revoked, as this process knows it: read each second, asked at every token.

While Redis is away the last known holds for a while, then nobody is let in; a process that has
never heard of any lets nobody in either. What it once heard of it never forgets before its time,
also where Redis lost it.
"""

import asyncio
import time
from collections.abc import Callable

from api.errors import RETRY_AFTER_S, ApiError
from pipeline.credentials import Principal
from pipeline.errors import BusUnavailable
from pipeline.revocations import Place, Revocations, is_revoked

POLL_S = 1.0
APPLIED_S = 2  # within so many seconds every gateway that reaches Redis refuses what was revoked
_CALL_S = 2.0


class Revoked:
    """The revocations that this process has heard of; `grace_s` without Redis are forgiven."""

    def __init__(
        self,
        revocations: Revocations,
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._revocations = revocations
        self._grace_s = grace_s
        self._clock = clock
        self._place = Place()
        self._tokens: dict[str, int] = {}
        self._subjects: dict[str, tuple[int, int]] = {}
        self._turn = asyncio.Lock()
        self._known_until = clock()  # nothing is known yet

    async def refresh(self) -> bool:
        """Read what was added; whether there was anything. Raises BusUnavailable."""
        async with self._turn:
            began = self._clock()
            try:
                async with asyncio.timeout(_CALL_S):
                    news = await self._revocations.read(self._place)
            except TimeoutError:
                raise BusUnavailable("no revocations in time") from None
            self._known_until = began + POLL_S + _CALL_S + self._grace_s
            is_new = bool(news.tokens or news.subjects)
            self._place = news.place
            self._tokens |= news.tokens
            for subject, (before, until) in news.subjects.items():
                held = self._subjects.get(subject, (0, 0))
                self._subjects[subject] = max(held, (before, until))
            if is_new:
                self._forget_expired()
            return is_new

    def holds(self, principal: Principal) -> bool:
        """Whether a principal's token is revoked."""
        return is_revoked(principal, self._tokens, self._subjects)

    def demand_known(self) -> None:
        """Raises ApiError 503 while it is not known what is revoked."""
        if self._clock() >= self._known_until:
            raise ApiError(
                503,
                "redis_unavailable",
                "which tokens were revoked is not known",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )

    def _forget_expired(self) -> None:
        now = time.time()
        self._tokens = {name: until for name, until in self._tokens.items() if until > now}
        self._subjects = {name: known for name, known in self._subjects.items() if known[1] > now}
