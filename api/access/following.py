"""Keeps the verifier's knowledge fresh beside the requests: revocations, and another's keys.

Ends only when it is cancelled. Never looks at a token.
"""

import asyncio

from structlog.typing import FilteringBoundLogger

from api.access.auth import Verifier
from api.access.keys import KeySet
from api.access.revoked import POLL_S, Revoked
from pipeline.errors import BusUnavailable
from pipeline.runtime import side_by_side

_KEYS_POLL_S = 1.0


async def refresh(verifier: Verifier) -> bool:
    """Read what was revoked and apply it; whether Redis answered."""
    if verifier.revoked is not None:
        try:
            if await verifier.revoked.refresh():
                verifier.apply()
        except BusUnavailable:
            return False
    return True


async def follow(verifier: Verifier, log: FilteringBoundLogger) -> None:
    """Refresh both for ever; a line in the log when Redis goes away and when it is back."""
    parts = []
    if verifier.revoked is not None:
        parts.append(_follow_revocations(verifier, verifier.revoked, log))
    if verifier.keyring.key_set is not None:
        parts.append(_follow_keys(verifier, verifier.keyring.key_set))
    if not parts:
        await asyncio.Event().wait()
    await side_by_side(*parts)


async def _follow_revocations(
    verifier: Verifier, revoked: Revoked, log: FilteringBoundLogger
) -> None:
    was_read = True
    while True:
        is_read = await refresh(verifier)
        if is_read != was_read:
            log.warning("revocations", is_read=is_read)
        was_read = is_read
        await asyncio.sleep(POLL_S)


async def _follow_keys(verifier: Verifier, key_set: KeySet) -> None:
    was_stale = key_set.is_stale
    while True:
        if key_set.is_due and await key_set.refresh():
            verifier.forget()
        if key_set.is_stale != was_stale:
            was_stale = key_set.is_stale
            verifier.forget()
        await asyncio.sleep(_KEYS_POLL_S)
