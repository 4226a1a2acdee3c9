"""Changes of latest keys, as the servers tell of them: the gateway's wake-up calls.

A server tells of its own keys alone. What was missed in between is told as a possible change. It
reads no value.
"""

from collections.abc import Callable

from pipeline.latest import shard_of
from pipeline.listening import Listening, Lost
from pipeline.runtime import Redis
from pipeline.topics import Topics

Changed = Callable[[str, int], None]


class Watch:
    """Tells which symbols changed, through restarts and failovers, for as long as `run` runs.

    The client given is used for subscriptions alone, and should not retry on its own. Every
    (re)subscription reports its symbol as changed, so that nothing in between goes unseen.
    """

    def __init__(self, redis: Redis, topics: Topics) -> None:
        def channel_of(symbol: str) -> str:
            return topics.keyspace_event(topics.latest(symbol, shard_of(topics, symbol)))

        self._listening = Listening(redis, topics, channel_of)
        self.add = self._listening.add
        self.remove = self._listening.remove

    @property
    def is_connected(self) -> bool:
        """Whether every subscription stands."""
        return self._listening.is_connected

    async def run(self, changed: Changed, lost: Lost) -> None:
        """Call `changed(symbol, times)` for every change, 0 times where it may have changed.

        Never returns. A lost subscription is tried again and again by itself, while the others
        stand: `lost(why, attempt)` is called each time.
        """

        def heard(symbol: str, event: bytes | None) -> None:
            if event is None:
                changed(symbol, 0)
            elif event == b"set":
                changed(symbol, 1)

        await self._listening.run(heard, lost)
