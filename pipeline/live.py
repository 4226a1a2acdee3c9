"""Live channels: every text that the realtime worker publishes, as it comes.

Pub/Sub brings a text once or never. Each names the one before it, so whoever listens can tell; and
each (re)subscription is told, since what came before it was not heard.
"""

from pipeline.listening import Heard, Listening, Lost
from pipeline.runtime import Redis
from pipeline.topics import Topics


class Live:
    """The live channels of symbols, through restarts and failovers, for as long as `run` runs.

    The client given is used for subscriptions alone, and should not retry on its own. On a cluster
    a channel is listened to at the owner of its symbol's shard, where it is published.
    """

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self._listening = Listening(redis, topics, topics.live)
        self.add = self._listening.add
        self.remove = self._listening.remove

    @property
    def is_connected(self) -> bool:
        """Whether every subscription stands."""
        return self._listening.is_connected

    async def run(self, heard: Heard, lost: Lost) -> None:
        """Call `heard(symbol, text)` for every text, with None for every (re)subscription.

        Never returns. A lost subscription is tried again and again by itself, while the others
        stand: `lost(why, attempt)` is called each time.
        """
        await self._listening.run(heard, lost)
