"""What was ever appended to a stream: counts and hash sums by minute, kept by the append calls.

A trim removes entries and leaves these, so that a count can be told from a loss afterwards. It
looks into no entry: type, message id and time are what an append says of itself.
"""

import hashlib

MINUTE_NS = 60_000_000_000
_HASH_BYTES = 5  # 40 bits: the sum of a million of them is exact in a double, in Lua and in SQL
_UNTYPED = "untyped"


def bucket_of(type: str, ts: int) -> str:
    """Where an entry is counted, `<minute>:<kind>`.

    The minute is that of its receipt (int ns UTC) since 1970; the kind is the first word of its
    type, `chain` of `chain.raw.v1`.
    """
    kind = type.partition(".")[0].replace(":", "_") or _UNTYPED
    return f"{ts // MINUTE_NS}:{kind}"


def identity(message_id: str) -> int:
    """The 40 bits by which an entry is summed: the start of the md5 of its raw message id.

    An enriched entry has those of the raw entry it came of, whatever revision it was made by.
    """
    raw_id, mark, revision = message_id.rpartition(":r")
    if not (mark and revision.isdigit() and revision.isascii()):
        raw_id = message_id
    digest = hashlib.md5(raw_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:_HASH_BYTES], "big")


def again_bucket_of(type: str, ts: int, who: str) -> str:
    """Where a copy of an entry counted before is counted, `<minute>:<kind>:again:<who>`.

    `who` is the group whose dead letter went back, or empty for a replay.
    """
    return f"{bucket_of(type, ts)}:again:{who.replace(':', '_')}"


def dead_bucket_of(type: str, ts: int, group: str) -> str:
    """Where an entry that a group set aside is counted, `<minute>:<kind>:dead:<group>`.

    Several groups may set the same entry aside; each counts for itself.
    """
    return f"{bucket_of(type, ts)}:dead:{group.replace(':', '_')}"
