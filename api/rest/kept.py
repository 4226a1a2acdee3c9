"""Answers kept as they went out, for as long as what they tell of is the newest.

Between two snapshots everybody who shows a chain asks for the same answer: the same but for its
`request_id`, which stands behind all else that changes.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

KEPT_BYTES = 16 * 1024 * 1024  # some two hundred whole chains; the one unused for longest goes
_ENTRY_BYTES = 1024  # what one costs beside its body
_BEFORE = b'"request_id":"'


class _Kept(NamedTuple):
    position: object
    headers: Mapping[str, str]
    head: bytes
    tail: bytes


class KeptAnswers:
    """JSON answers by what was asked, each of the position it was made from."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[object, _Kept] = OrderedDict()
        self._size = 0

    def get(
        self, key: object, position: object, request_id: str
    ) -> tuple[bytes, bytes, Mapping[str, str]] | None:
        """Body, in two parts, and headers for that request; None where nothing is kept of that
        position."""
        kept = self._kept.get(key)
        if kept is None or kept.position != position:
            return None
        self._kept.move_to_end(key)
        return kept.head, request_id.encode() + kept.tail, kept.headers

    def put(
        self,
        key: object,
        position: object,
        request_id: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> None:
        """Keep an answer in which that `request_id` stands in `meta`, the data before it."""
        begin = body.rfind(_BEFORE + request_id.encode() + b'"') + len(_BEFORE)
        if begin < len(_BEFORE):
            return
        self._forget(key)
        tail = body[begin + len(request_id) :]
        self._kept[key] = _Kept(position, dict(headers), body[:begin], tail)
        self._size += begin + len(tail) + _ENTRY_BYTES
        while self._size > self._kept_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: object) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept.head) + len(kept.tail) + _ENTRY_BYTES
