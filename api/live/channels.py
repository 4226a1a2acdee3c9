"""What a client may subscribe to: the names of channels, and how a kind of channel gets its states.

A kind of channel says how its names are read, of which latest value its states are made, and how.
Everything else, the snapshots, the differences, the sequence and the waiting, is the same for all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from api.live.messages import State
from api.live.wire import Id
from pipeline.latest import Catalog, Latest

# Makes a state of a latest text, or None where that text tells nothing new. Made once for each
# channel in use, so it may remember what it saw. Raises msgspec.MsgspecError.
Reader = Callable[[bytes], State | None]


class Refused(Exception):
    """The message asks for what does not exist; `code` and the text tell the client."""

    def __init__(self, code: str, detail: str, operation_id: Id = None) -> None:
        super().__init__(detail)
        self.code = code
        self.operation_id = operation_id


class Channel(msgspec.Struct, frozen=True):
    """What a client subscribes to: a kind and what the kind is asked for, often a symbol."""

    kind: str
    symbol: str

    @property
    def name(self) -> str:
        """As it stands in messages: `chain:NIFTY-20260127`."""
        return f"{self.kind}:{self.symbol}" if self.symbol else self.kind


class Form(NamedTuple):
    """How a channel's messages look; clients who agree in it get the very same ones."""

    interval_ms: int
    fields: tuple[str, ...] = ()
    is_delta: bool = False


class Lookup(NamedTuple):
    """What there is to know when channels are subscribed to.

    `open_candles` begins a series of candles, and says whether there is such a symbol.
    """

    latest: Latest
    catalog: Catalog
    underlyings: tuple[str, ...]
    now_ns: int
    open_candles: Callable[[str], Awaitable[bool]]


async def as_named(rest: str, lookup: Lookup) -> list[str]:
    """A name that means itself."""
    return [rest]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of channel; `rest` is what stands after the colon of its names.

    `parse` gives the rest as it shall stand, `resolve` the rests of the channels it means now; both
    raise Refused. `symbol` is the symbol whose latest value the states are made of; a kind without
    (None) is fed by `Hub.put`. `is_known` says whether a channel that has no value yet will have
    one. A kind that `resumes` makes its state of one text alone, so that earlier ones can be made
    again from the stream.
    """

    name: str
    parse: Callable[[str], str]
    symbol: Callable[[str], str | None]
    reader: Callable[[str], Reader]
    is_known: Callable[[str, Lookup], bool]
    resolve: Callable[[str, Lookup], Awaitable[list[str]]] = as_named
    takes_fields: bool = False
    resumes: bool = False

    def form(self, wanted: Form) -> Form:
        """The form of this kind's groups for what a client asked for."""
        return wanted if self.takes_fields else wanted._replace(fields=())
