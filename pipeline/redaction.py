"""The last net under logs and error answers: what looks like a secret is blotted out.

Nobody is to rely on it; whoever writes a line leaves secrets out. Knows forms, no secret itself.
"""

import re

BLOT = "***"
# A JWT: header, a dot, claims, and mostly a signature.
_JWT = r"\beyJ[\w-]{8,}\.[\w-]{2,}(?:\.[\w-]*)?"
# API keys and stream tickets: twelve hexadecimal digits at least, and whatever follows.
_KEY = r"\b(?P<kind>s[kt]_)[0-9a-f]{12}[0-9A-Za-z_-]*"
# The password in a URL: it may hold anything but what ends it.
_IN_URL = r"(?P<before>://[^/\s:@\"']{0,64}:)[^@/\s\"']{1,256}(?=@)"
_SECRET = re.compile(f"{_JWT}|{_KEY}|{_IN_URL}", re.ASCII)


def blotted(text: str) -> str:
    """The text without tokens, keys, tickets and the passwords of URLs."""
    return _SECRET.sub(_blot, text)


def _blot(found: re.Match[str]) -> str:
    return f"{found['kind'] or found['before'] or ''}{BLOT}"
