"""How many polls of each chain were due, and why some brought no snapshot. Pure.

A poll is due when the budget has a slot for it: a spacing after the last answer, times the chains
that share the budget's line; that is its cadence. A slow provider is waited for, and what it
answers is one poll, however long it took; from the first that fails to the next answer, each
cadence that passes is one poll missed. So what was due is what was answered and what was missed.
Nothing is missed while the exchange is closed or after the expiry; what was answered then was due.

Times are int ns UTC of the instance's clock and are given, never read. The books are closed each
minute; what they hold can be kept as bytes and taken up by a later run, to which the time in
between is missed because of us.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Self

import msgspec

from pipeline import calendar
from pipeline.clock import SECOND_NS, expiry_ns
from pipeline.errors import (
    AccessDenied,
    AuthenticationFailed,
    DecodeError,
    ProviderUnavailable,
    ProviderUnreachable,
    RateLimited,
    StockifyError,
)
from pipeline.models import Cause, ChainId, PollGap, PollReport, parse_symbol
from pipeline.polls import MINUTE_NS

LONGEST_ABSENCE_NS = 7 * 86_400 * SECOND_NS  # an outage of our own is told that far back
_SHORTEST_NS = 1_000  # a microsecond: what Postgres can tell apart

Why = tuple[Cause, str]
NOT_RUNNING: Why = ("us", "not_running")
STALLED: Why = ("us", "stalled")
BUDGET: Why = ("us", "budget")
SPOOL_FULL: Why = ("us", "spool_full")
UNDECODABLE: Why = ("upstream", "undecodable")
_WHY: dict[type[StockifyError], Why] = {  # the more special ones first
    ProviderUnreachable: ("upstream", "unreachable"),
    ProviderUnavailable: ("upstream", "unavailable"),
    RateLimited: ("upstream", "rate_limited"),
    DecodeError: UNDECODABLE,
    AuthenticationFailed: ("us", "token"),
    AccessDenied: ("us", "no_data_plan"),
}


def why(error: StockifyError) -> Why:
    """Whose fault an error is, and a word for it."""
    return next(
        (said for kind, said in _WHY.items() if isinstance(error, kind)), ("us", "rejected")
    )


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """By what is counted; of another provider or clock no books are taken up.

    `turn_ns` is the longest a chain may take in the line of its budget: beyond that nobody asked.
    """

    provider: str
    clock: str
    spacing_ns: int
    turn_ns: int
    is_shared: bool
    is_always_open: bool


class Trouble(msgspec.Struct):
    """Time without an answer: from the first poll due in it, told in gaps up to `told_ns`."""

    origin_ns: int
    told_ns: int
    cadence_ns: int
    cause: Cause
    detail: str
    open_ns: int = 0  # of what was told, with the exchange open
    missed: int = 0  # told


class Polled(msgspec.Struct):
    """A chain: what its open report has so far, and when its next poll is due."""

    chain: str
    exchange: str
    due_ns: int
    since_ns: int
    answered: int = 0
    gaps: list[PollGap] = []
    trouble: Trouble | None = None
    is_awaited: bool = False  # kept by an earlier run, not yet polled by this one


class Told(msgspec.Struct, frozen=True):
    """A report that nobody has yet, and when it was made, ns."""

    report: PollReport
    made_ns: int


class _Kept(msgspec.Struct, frozen=True):
    terms: Terms
    seen_ns: int
    chains: list[Polled]
    told: list[Told]


class Books:
    """The books of every chain that is polled, or was and is awaited."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._chains: dict[str, Polled] = {}
        self.told: list[Told] = []

    @classmethod
    def taken_up(cls, terms: Terms, kept: bytes, now_ns: int) -> Self:
        """The books that an earlier run kept; empty where it kept them on other terms."""
        books = cls(terms)
        try:
            earlier = msgspec.msgpack.decode(kept, type=_Kept)
        except msgspec.MsgspecError:
            return books
        said = earlier.terms
        is_other = (said.provider, said.clock) != (terms.provider, terms.clock)
        if is_other or earlier.seen_ns > now_ns:
            return books
        books.told = earlier.told
        floor_ns = now_ns - LONGEST_ABSENCE_NS
        for polled in earlier.chains:
            polled.is_awaited = True
            polled.due_ns = max(polled.due_ns, floor_ns)
            if polled.trouble is not None:
                polled.trouble.told_ns = max(polled.trouble.told_ns, floor_ns)
            books._chains[polled.chain] = polled
        for polled in earlier.chains:
            books._miss(polled, max(earlier.seen_ns, floor_ns), NOT_RUNNING, polled.due_ns)
        return books

    def kept(self, now_ns: int) -> bytes:
        """What a later run has to know."""
        held = _Kept(self._terms, now_ns, list(self._chains.values()), self.told)
        return msgspec.msgpack.encode(held)

    def follow(self, chain: str, exchange: str, now_ns: int) -> None:
        """Polls of this chain are due from now on."""
        known = self._chains.get(chain)
        if known is not None:
            known.is_awaited = False
        else:
            self._chains[chain] = Polled(chain, exchange, now_ns, now_ns)

    def leave(self, underlying: str, wanted: Collection[str], now_ns: int) -> None:
        """Of the chains of an underlying, only the wanted ones are due any more."""
        for polled in list(self._chains.values()):
            if _underlying(polled.chain) == underlying and polled.chain not in wanted:
                self._close(polled, now_ns)
                del self._chains[polled.chain]

    def leave_others(self, underlyings: Collection[str]) -> None:
        """Forget chains of underlyings that are not polled any more."""
        for chain in [one for one in self._chains if _underlying(one) not in underlyings]:
            del self._chains[chain]

    def promised(self, chain: str, slot_ns: int) -> None:
        """The budget has its next slot for a chain then."""
        polled = self._chains.get(chain)
        if polled is not None:
            polled.due_ns = max(polled.due_ns, slot_ns)

    def answered(self, chain: str, at_ns: int) -> None:
        """A snapshot of a chain was received, and is on its way."""
        polled = self._chains.get(chain)
        if polled is None:
            return
        is_late = at_ns < polled.since_ns  # its minute was closed while it was put away
        if is_late:
            self._tell(polled, at_ns, at_ns + _SHORTEST_NS, 1, ())
        else:
            self._roll(polled, at_ns)
            polled.answered += 1
        self._notice(polled, at_ns)
        if polled.trouble is not None:
            self._extend(polled, polled.trouble, at_ns, is_end=True)
            polled.trouble = None
        polled.due_ns = at_ns + self._cadence_ns()

    def failed(self, names: Collection[str], at_ns: int, reason: Why) -> None:
        """Polls of these chains brought nothing; an underlying stands for those it awaits."""
        for polled in self._chains.values():
            if polled.chain in names or (polled.is_awaited and _underlying(polled.chain) in names):
                self._roll(polled, at_ns)
                self._notice(polled, at_ns)
                self._miss(polled, at_ns, reason, min(polled.due_ns, at_ns))

    def close(self, now_ns: int) -> None:
        """Close the books of every minute that has ended."""
        for polled in self._chains.values():
            self._notice(polled, now_ns)
            self._roll(polled, now_ns)

    def finish(self, now_ns: int) -> None:
        """Close the books of the minute that has not ended too."""
        self.close(now_ns)
        for polled in self._chains.values():
            self._close(polled, now_ns)

    def _cadence_ns(self) -> int:
        return self._terms.spacing_ns * (len(self._chains) if self._terms.is_shared else 1)

    def _open(self, polled: Polled, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """When polls of a chain were due in [start, end)."""
        end_ns = min(end_ns, _expiry_ns(polled.chain))
        if not self._terms.is_always_open:
            yield from calendar.open_between(start_ns, end_ns, polled.exchange)
        elif start_ns < end_ns:
            yield start_ns, end_ns

    def _notice(self, polled: Polled, now_ns: int) -> None:
        """That nobody asked for longer than the line can take."""
        line = len(self._chains) + 1 if self._terms.is_shared else 2  # and the list of expiries
        patience_ns = self._terms.turn_ns * line
        if polled.trouble is None and now_ns - polled.due_ns > patience_ns:
            open_ns = sum(b - a for a, b in self._open(polled, polled.due_ns, now_ns))
            if open_ns > patience_ns:
                self._miss(polled, polled.due_ns, STALLED, polled.due_ns)

    def _miss(self, polled: Polled, at_ns: int, reason: Why, origin_ns: int) -> None:
        cause, detail = reason
        trouble = polled.trouble
        if trouble is None:
            cadence_ns = self._cadence_ns()
            polled.trouble = Trouble(origin_ns, origin_ns, cadence_ns, cause, detail)
        elif trouble.cause != cause:
            self._extend(polled, trouble, at_ns)
            trouble.cause, trouble.detail = cause, detail

    def _extend(
        self, polled: Polled, trouble: Trouble, until_ns: int, *, is_end: bool = False
    ) -> None:
        """Tell a trouble up to an instant, in gaps in which polls were missed.

        Polls are counted over the whole of it, so that its parts round to no more. A part in which
        none was missed waits for the next; at the end it only makes the gap longer.
        """
        intervals = list(self._open(polled, trouble.told_ns, until_ns))
        if not intervals:
            trouble.told_ns = max(trouble.told_ns, until_ns)
        open_ns = trouble.open_ns
        for start_ns, end_ns in intervals:
            open_ns += end_ns - start_ns
            due = (2 * open_ns + trouble.cadence_ns) // (2 * trouble.cadence_ns)
            missed = max(0, due - trouble.missed)
            if missed or (is_end and trouble.missed):
                gap = PollGap(start_ns, end_ns, missed, trouble.cause, trouble.detail)
                polled.gaps.append(gap)
                trouble.told_ns, trouble.open_ns = end_ns, open_ns
                trouble.missed += missed

    def _roll(self, polled: Polled, now_ns: int) -> None:
        """Close the minutes of a chain that ended by then."""
        minute_ns = now_ns - now_ns % MINUTE_NS
        if minute_ns > polled.since_ns:
            self._close(polled, minute_ns)

    def _close(self, polled: Polled, until_ns: int) -> None:
        """Tell what is known up to an instant."""
        if until_ns <= polled.since_ns:
            return
        if polled.trouble is not None:
            self._extend(polled, polled.trouble, until_ns)
        self._tell(polled, polled.since_ns, until_ns, polled.answered, polled.gaps)
        polled.since_ns, polled.answered, polled.gaps = until_ns, 0, []

    def _tell(
        self, polled: Polled, since_ns: int, until_ns: int, answered: int, gaps: Iterable[PollGap]
    ) -> None:
        report = PollReport(
            chain=polled.chain,
            provider=self._terms.provider,
            since=since_ns,
            until=until_ns,
            answered=answered,
            gaps=tuple(gaps),
        )
        if report.answered or report.gaps:
            self.told.append(Told(report, until_ns))


def _underlying(chain: str) -> str:
    return chain.rpartition("-")[0]


def _expiry_ns(chain: str) -> int:
    found = parse_symbol(chain)
    return expiry_ns(found.expiry) if isinstance(found, ChainId) else 0
