"""The bus: producers and consumers over Redis Streams, and what keeps streams in order.

Mechanism only: entries are bytes here, and which stream carries what stands in `topics`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.streams.consumer import Consumer
from pipeline.streams.outbox import Outbox, open_outbox
from pipeline.streams.producer import Producer
from pipeline.streams.trimming import Trimmed, stream_bytes, trim

if TYPE_CHECKING:
    from pipeline.frames import Leg
    from pipeline.streams.batch import Batch
    from pipeline.streams.handler import worker
    from pipeline.streams.kit import Consumption, consume
    from pipeline.views import Chain

__all__ = [
    "Batch",
    "Chain",
    "Consumer",
    "Consumption",
    "Leg",
    "Outbox",
    "Producer",
    "Trimmed",
    "consume",
    "open_outbox",
    "stream_bytes",
    "trim",
    "worker",
]

# Loaded when asked for: numpy and what looks into entries cost a process 10 MB and 0.2 s, and most
# of ours only move bytes.
_KIT = {
    "Batch": "pipeline.streams.batch",
    "Chain": "pipeline.views",
    "Consumption": "pipeline.streams.kit",
    "Leg": "pipeline.frames",
    "consume": "pipeline.streams.kit",
    "worker": "pipeline.streams.handler",
}


def __getattr__(name: str) -> Any:
    if name not in _KIT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_KIT[name]), name)
