"""What `stockify audit` says after each fault: the same code, on the rig's servers."""

import time

from pipeline.config import Settings
from pipeline.database import Database
from pipeline.runtime import Redis
from pipeline.topics import Topics
from stockify.auditing import Auditor, interval

LASTS_S = 2.0  # for which something must be wrong to be a fault


class Audits:
    """Audits all since the rig began, and tells of each faulty minute once."""

    def __init__(
        self, settings: Settings, database: Database, redis: Redis, topics: Topics
    ) -> None:
        self._began_ns = time.time_ns()
        self._keep_s = settings.audit_keep_s
        self._auditor = Auditor(redis, database, topics)
        self._told: set[tuple[int, int, str]] = set()

    async def findings(self) -> list[str]:
        """The faults of minutes that were in order, or not there, when it was last asked."""
        minutes = interval(time.time_ns(), self._keep_s, self._began_ns, None)
        report = await self._auditor.audit(minutes, LASTS_S)
        fresh = [
            line for line in report.faults if (line.minute, line.shard, line.kind) not in self._told
        ]
        self._told |= {(line.minute, line.shard, line.kind) for line in fresh}
        return [
            f"minute {line.minute} of shard {line.shard}: {line.off.n} entries {line.verdict} "
            f"in {line.where} (raw {line.raw.n}, again {line.again}, dead {line.raw_dead}, "
            f"enriched {line.enriched.n}, stored {line.stored.n if line.stored else 0})"
            for line in fresh
        ]
