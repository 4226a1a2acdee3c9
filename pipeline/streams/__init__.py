"""The bus: producers and consumers over Redis Streams, and what keeps streams in order.

Mechanism only: entries are bytes here, and which stream carries what stands in `topics`.
"""

from pipeline.streams.consumer import Consumer
from pipeline.streams.outbox import Outbox, open_outbox
from pipeline.streams.producer import Producer
from pipeline.streams.trimming import Trimmed, stream_bytes, trim

__all__ = ["Consumer", "Outbox", "Producer", "Trimmed", "open_outbox", "stream_bytes", "trim"]
