"""The kinds of channels whose states this process makes itself: candles and its own health."""

from api.live.candles import parse_rest
from api.live.channels import Kind, Lookup, Reader, Refused
from api.live.messages import State


def _candle(rest: str) -> str:
    parse_rest(rest)
    return rest


async def _opened(rest: str, lookup: Lookup) -> list[str]:
    if not await lookup.open_candles(rest):
        raise Refused("unknown_symbol", "nothing is known of it")
    return [rest]


def _health(rest: str) -> str:
    if rest:
        raise Refused("malformed_channel", "it is named health alone")
    return rest


def _nothing(rest: str) -> None:
    return None


def _unread(rest: str) -> Reader:
    def read(text: bytes) -> State | None:
        return None

    return read


def _always(rest: str, lookup: Lookup) -> bool:
    return True


CANDLE = Kind("candle", _candle, _nothing, _unread, _always, resolve=_opened)
HEALTH = Kind("health", _health, _nothing, _unread, _always)
