"""The simulated exchange's rate limits: rolling windows by client, counted in market time.

The window is closed at its end too: a request exactly one window after the last one is refused,
as the provider does. A refused request does not lengthen the wait. Memory is bounded.
"""

from collections.abc import Hashable

from pipeline.clock import SECOND_NS

CHAIN_WINDOW_S = 3.0
QUOTE_WINDOW_S = 1.0
_MOST_KEYS = 4_096  # remembered at once; what has run out goes first


class Window:
    """One request in `window_s` seconds for each key."""

    def __init__(self, window_s: float) -> None:
        self._window_ns = int(window_s * SECOND_NS)
        self._latest: dict[Hashable, int] = {}

    def admit(self, key: Hashable, ts_ns: int) -> bool:
        """Whether a request of that key may pass at that instant; if so, it is counted."""
        latest_ns = self._latest.get(key)
        if latest_ns is not None and 0 <= ts_ns - latest_ns <= self._window_ns:
            return False
        self._latest.pop(key, None)
        self._latest[key] = ts_ns
        while len(self._latest) > _MOST_KEYS:
            self._latest.pop(next(iter(self._latest)))
        return True


class Limits:
    """The windows of the data endpoints; chains count each for itself, or all for the account."""

    def __init__(self, is_chain_limit_for_account: bool) -> None:
        self._is_for_account = is_chain_limit_for_account
        self._chains = Window(CHAIN_WINDOW_S)
        self._quotes = Window(QUOTE_WINDOW_S)

    def admit_chain(self, client: str, chain: Hashable, ts_ns: int) -> bool:
        """Whether the client may ask for that chain, or list of expiries, now."""
        key = client if self._is_for_account else (client, chain)
        return self._chains.admit(key, ts_ns)

    def admit_quote(self, client: str, ts_ns: int) -> bool:
        """Whether the client may ask any of the three quote endpoints now."""
        return self._quotes.admit(client, ts_ns)
