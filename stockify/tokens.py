"""Tokens for the user's own use, signed with the secret of the instance on this machine."""

import re
from collections.abc import Sequence

from pipeline.config import Settings
from pipeline.credentials import SCOPES, issue_token
from pipeline.errors import ConfigError
from stockify.instance import StateDirectory

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_ttl(text: str) -> int:
    """Seconds of a span like `30m`, `12h` or `7d`. Raises ConfigError."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"time to live {text!r}: want a number and s, m, h or d, such as 12h")
    return int(found[1]) * _UNITS_S[found[2]]


def local_token(
    settings: Settings, state: StateDirectory, scopes: Sequence[str], ttl_s: int
) -> str:
    """A token for this machine's instance, running or not.

    Raises ConfigError for an unknown scope, or where no instance was ever started.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    generated = state.secrets()
    secret = settings.jwt_secret or (generated.jwt_secret if generated else "")
    if not secret:
        raise ConfigError(f"no secret in {state.path}: start the instance once (stockify up)")
    return issue_token(secret, scopes=scopes, ttl_s=ttl_s)
