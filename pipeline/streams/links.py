"""Connections of the bus, and which errors mean that the server is away."""

import time

from redis.exceptions import BusyLoadingError, ConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

AWAY = (ConnectionError, RedisTimeoutError, BusyLoadingError, OSError)


def new_epoch() -> str:
    """A name for a stream's numbering, unlike any before it; used if the stream has none."""
    return f"{time.time_ns():x}"
