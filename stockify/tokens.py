"""Tokens for the user's own use, signed with the secret of the instance on this machine."""

import re
from collections.abc import Sequence

from pipeline.config import Settings
from pipeline.credentials import LONGEST_TTL_S, SCOPES, issue_token, signing_secrets
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

    Raises ConfigError for an unknown scope, for too long a time, or where no instance was ever
    started.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if ttl_s > LONGEST_TTL_S:
        raise ConfigError(f"a token holds for at most {LONGEST_TTL_S // 86_400} days")
    generated = state.secrets()
    given = signing_secrets(settings) or ((generated.jwt_secret,) if generated else ())
    if not given:
        raise ConfigError(f"no secret in {state.path}: start the instance once (stockify up)")
    return issue_token(given[0], scopes=scopes, ttl_s=ttl_s, audience=settings.jwt_audience)
