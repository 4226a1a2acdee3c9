"""Keeps the books of polls beside the spool, and appends what they report to the raw stream.

What the books hold is on disk after every poll, so that a run after a crash goes on where this one
was cut; what a report says is kept until the outbox has it. A crash between those two appends it
twice under one id, and the ledger counts it once. It decides nothing of what counts.
"""

import contextlib
import os
from collections.abc import Collection
from urllib.parse import quote

import msgspec

from pipeline import polls
from pipeline.clock import SECOND_NS
from pipeline.errors import StockifyError
from pipeline.polls import MINUTE_NS
from pipeline.runtime import Context, pause
from pipeline.streams import Outbox
from pipeline.streams.offers import Fate
from workers.ingest.books import SPOOL_FULL, UNDECODABLE, Books, Terms, Why, why
from workers.ingest.dhan_rest import TIMEOUT

_parse = msgspec.json.Decoder(msgspec.Raw).decode  # looks at all of it and builds nothing


class Reporter:
    """The books of one ingest. Made once its outbox is open, which keeps other processes out."""

    def __init__(self, context: Context, outbox: Outbox) -> None:
        self._context = context
        self._outbox = outbox
        self._path = context.settings.state_path() / "polls" / quote(context.name, safe="")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.with_suffix(".new").unlink()
        kept = self._path.read_bytes() if self._path.exists() else b""
        self._books = Books.taken_up(_terms(context), kept, context.clock.now_ns())
        self._books.leave_others(context.settings.underlyings)

    async def work(self) -> None:
        """Report each minute when it has ended, until stopping."""
        stopping, clock = self._context.stopping, self._context.clock
        while not stopping.is_set():
            await self._report()
            left_s = (MINUTE_NS - clock.now_ns() % MINUTE_NS) / SECOND_NS
            await pause(stopping, clock.wall_seconds(left_s))
            self._books.close(clock.now_ns())

    async def finish(self) -> None:
        """Report all that is known, the minute that has not ended too."""
        self._books.finish(self._context.clock.now_ns())
        await self._report()

    def follow(self, chain: str, exchange: str) -> None:
        """Polls of this chain are due from now on."""
        self._books.follow(chain, exchange, self._context.clock.now_ns())
        self._keep()

    def leave(self, underlying: str, wanted: Collection[str]) -> None:
        """Of the chains of an underlying, only the wanted ones are due any more."""
        self._books.leave(underlying, wanted, self._context.clock.now_ns())
        self._keep()

    def promised(self, chain: str, wait_s: float) -> None:
        """The budget has its next slot for a chain in so many seconds of the wall clock."""
        clock = self._context.clock
        self._books.promised(chain, clock.now_ns() + round(wait_s * clock.speed * SECOND_NS))

    def received(self, chain: str, at_ns: int, body: bytes, fate: Fate) -> None:
        """An answer with data was received at an instant, and that became of its entry."""
        if fate == "dropped":
            self._books.failed({chain}, at_ns, SPOOL_FULL)
        elif not _is_json(body):
            self._books.failed({chain}, at_ns, UNDECODABLE)
        else:
            self._books.answered(chain, at_ns)
        self._keep()

    def failed(self, names: Collection[str], reason: StockifyError | Why) -> None:
        """Polls of these chains brought nothing; an underlying stands for those it awaits."""
        found = why(reason) if isinstance(reason, StockifyError) else reason
        self._books.failed(names, self._context.clock.now_ns(), found)
        self._keep()

    async def _report(self) -> None:
        """Append what is told; what the outbox does not take is told again later."""
        self._keep()
        topics = self._context.topics
        for told in list(self._books.told):
            underlying = told.report.chain.rpartition("-")[0]
            stream = topics.raw(topics.shard_of(underlying))
            entry = polls.raw_report(told.report, told.made_ns)
            if await self._outbox.put(stream, entry) != "dropped":
                self._books.told.remove(told)
        self._keep()

    def _keep(self) -> None:
        """Write the books to disk: all of them, or they stay as they were."""
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(self._books.kept(self._context.clock.now_ns()))
            os.replace(new, self._path)
        except OSError as error:
            self._context.telemetry.log.error("polls_not_kept", error=str(error))


def _terms(context: Context) -> Terms:
    settings, clock = context.settings, context.clock
    longest_s = (TIMEOUT.read or 0.0) + (TIMEOUT.connect or 0.0)
    spacing_ns = round(settings.chain_spacing_s * SECOND_NS)
    return Terms(
        provider=settings.provider,
        clock=settings.clock,
        spacing_ns=spacing_ns,
        turn_ns=spacing_ns + round(longest_s * clock.speed * SECOND_NS),
        is_shared=settings.chain_budget == "account",
        is_always_open=settings.poll_closed_market,
    )


def _is_json(body: bytes) -> bool:
    try:
        _parse(body)
    except msgspec.DecodeError:
        return False
    return True
