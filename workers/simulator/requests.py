"""What a request says: its headers and body, checked as the provider checks them.

Pure. A request that is wrong ends as a Refused with the provider's own code.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

import msgspec

from workers.simulator import exchange
from workers.simulator.exchange import Underlying

MOST_INSTRUMENTS = 1_000
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=\-]+")
_CLIENT = re.compile(r"[A-Za-z0-9]{1,32}")
_EXPIRED, _INVALID = "expired", ("invalid", "bad")


class Refused(Exception):
    """The request is not answered; `code` is the provider's."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class ChainRequest(NamedTuple):
    """Which chain, or whose expiries (then `expiry` is None)."""

    underlying: Underlying
    segment: str
    expiry: date | None


def client_of(headers: Mapping[str, str], accepted_token: str) -> str:
    """The client id of an authenticated request. Raises Refused.

    With an accepted token, only that one passes. Without, every well-formed one does, except that
    those beginning with `expired`, `invalid` or `bad` get the errors they ask for.
    """
    token, client = headers.get("access-token", ""), headers.get("client-id", "")
    if not token or not client:
        raise Refused(808)
    if not _CLIENT.fullmatch(client):
        raise Refused(810)
    if token.startswith(_EXPIRED):
        raise Refused(807)
    if not _TOKEN.fullmatch(token) or token.startswith(_INVALID):
        raise Refused(809)
    if accepted_token and token != accepted_token:
        raise Refused(809)
    return client


def chain_request(body: bytes, has_expiry: bool) -> ChainRequest:
    """The request of an option chain or of a list of expiries. Raises Refused."""
    fields = _object(body)
    segment, text = fields.get("UnderlyingSeg"), fields.get("Expiry")
    if not isinstance(segment, str):
        raise Refused(814)
    underlying = exchange.BY_REQUEST.get((_id(fields.get("UnderlyingScrip")), segment))
    if underlying is None:
        raise Refused(813)
    if not has_expiry:
        return ChainRequest(underlying, segment, None)
    if not isinstance(text, str):
        raise Refused(814)
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise Refused(812)
    try:
        return ChainRequest(underlying, segment, date.fromisoformat(text))
    except ValueError:
        raise Refused(812) from None


def feed_request(body: bytes) -> dict[str, list[int]]:
    """The ids asked for, by segment; keys that are no segment are left out. Raises Refused."""
    wanted: dict[str, list[int]] = {}
    for segment, ids in _object(body).items():
        if segment not in exchange.KNOWN_SEGMENTS:
            continue
        if not isinstance(ids, list):
            raise Refused(814)
        wanted[segment] = [_id(one) for one in ids]
    if sum(map(len, wanted.values())) > MOST_INSTRUMENTS:
        raise Refused(804)
    return wanted


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise Refused(814) from None
    if not isinstance(fields, dict):
        raise Refused(814)
    return fields


def _id(value: object) -> int:
    """An id given as a number or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Refused(814)
