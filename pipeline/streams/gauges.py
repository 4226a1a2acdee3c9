"""How far groups are behind, as metrics: of every group of every stream, told apart by labels.

One process samples them for all, so that they are there also while a group's own worker is not.
"""

from collections.abc import Iterable

from pipeline.runtime import Redis
from pipeline.streams.state import StreamState, read_state
from pipeline.telemetry import Telemetry

_Labels = tuple[tuple[str, str], ...]


class GroupGauges:
    """Lag, pending entries, age of the oldest of them and missed entries, as last sampled."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._lag: dict[_Labels, float] = {}
        self._pending: dict[_Labels, float] = {}
        self._age_s: dict[_Labels, float] = {}
        self._missed: dict[_Labels, float] = {}
        telemetry.labelled_gauge("group_lag", "entries not delivered to a group", lambda: self._lag)
        telemetry.labelled_gauge(
            "group_pending", "entries delivered and not finished", lambda: self._pending
        )
        telemetry.labelled_gauge(
            "group_oldest_pending_age",
            "time since the oldest unfinished entry of a group was appended",
            lambda: self._age_s,
            "s",
        )
        telemetry.labelled_gauge(
            "group_missed", "entries trimmed before a group had them", lambda: self._missed
        )

    async def sample(self, redis: Redis, streams: Iterable[str]) -> None:
        """Read how every group of these streams stands. Raises what redis-py raises."""
        states = [await read_state(redis, stream) for stream in streams]
        # Replaced as a whole: the scraping thread reads them, and a group may be gone.
        self._lag = _by_group(states, "lag")
        self._pending = _by_group(states, "pending")
        self._age_s = _by_group(states, "oldest_pending_age_s")
        self._missed = _by_group(states, "missed")


def _by_group(states: Iterable[StreamState], figure: str) -> dict[_Labels, float]:
    return {
        (("stream", state.name), ("group", group.name)): float(value)
        for state in states
        for group in state.groups
        if (value := getattr(group, figure)) is not None
    }
