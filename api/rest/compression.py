"""Compression of answers: zstd where the client takes it, else gzip; never of what has its own.

Levels are low on purpose: higher ones cost ten times as much for a fifth less.
"""

import zlib
from functools import lru_cache
from typing import Any, Protocol

import zstandard

from api.rest.formats import weights

LEAST_BYTES = 4 * 1024  # below, a packet is a packet
ZSTD_LEVEL = 3
GZIP_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_CODINGS = ("zstd", "gzip")


class Compressor(Protocol):
    """Compresses a body piece by piece."""

    def compress(self, data: Any, /) -> bytes:
        """What comes of the next piece."""

    def flush(self) -> bytes:
        """What is left at the end."""


@lru_cache(maxsize=512)
def coding_of(accept_encoding: str) -> str | None:
    """The coding that a client takes: `zstd`, `gzip`, or None for the body as it is."""
    said = dict(weights(accept_encoding))
    taken = [(said.get(name, said.get("*", 0.0)), name) for name in _CODINGS]
    best = max(weight for weight, _ in taken)
    if best <= 0 or said.get("identity", 0.0) > best:
        return None
    return next(name for weight, name in taken if weight == best)


def compressor_of(coding: str) -> Compressor:
    """A compressor for one body."""
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)


def compressed(body: bytes, coding: str) -> bytes:
    """A whole body."""
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
    compressor = compressor_of(coding)
    return compressor.compress(body) + compressor.flush()
