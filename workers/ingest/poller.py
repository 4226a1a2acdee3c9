"""Keeps the polls of the nearest chains going, each request in its slot of the budget.

Every answer that holds data goes to the outbox as it came; what it holds is none of its concern.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import date

from pipeline import calendar
from pipeline.bodies import raw_entry
from pipeline.dhan import DhanUnderlying, map_expiries, request_context
from pipeline.errors import (
    BusUnavailable,
    DecodeError,
    ProviderError,
    ProviderUnreachable,
)
from pipeline.limits import Budget
from pipeline.models import RAW_CHAIN_TYPE, RAW_EXPIRIES_TYPE, RequestContext, chain_symbol
from pipeline.runtime import Context, cancel, pause
from pipeline.streams import Outbox
from pipeline.streams.offers import Fate
from workers.ingest import schedule
from workers.ingest.books import BUDGET
from workers.ingest.breaker import Breaker
from workers.ingest.dhan_rest import Answer, DhanRest
from workers.ingest.reporting import Reporter


class Poller:
    """Keeps a poll running for each of the nearest chains of each underlying."""

    def __init__(
        self, context: Context, rest: DhanRest, outbox: Outbox, reporter: Reporter
    ) -> None:
        self._context = context
        self._rest = rest
        self._outbox = outbox
        self._reporter = reporter
        outbox.listen(self._say_state)
        self._received = context.telemetry.counter("bodies_received", "answers with data")
        self._errors = context.telemetry.counter("provider_errors", "answers without data")
        self._record_age = context.telemetry.histogram("age_raw", "from receipt to the raw entry")
        self._troubled: dict[str, str] = {}
        self._lines: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_line: dict[str, set[str]] = defaultdict(set)

    async def follow(self, underlying: DhanUnderlying) -> None:
        """Poll the nearest chains of an underlying, whichever they come to be."""
        settings, clock = self._context.settings, self._context.clock
        polls: dict[date, asyncio.Task[None]] = {}
        breaker = Breaker()
        try:
            while not self._context.stopping.is_set():
                listed = await self._list(underlying, breaker)
                if listed is None:
                    continue
                now = clock.now_ns()
                wanted = schedule.nearest(listed, now, settings.expiries_per_underlying)
                symbols = [chain_symbol(underlying.symbol, expiry) for expiry in wanted]
                self._reporter.leave(underlying.symbol, symbols)
                for expiry in polls.keys() - set(wanted):
                    await cancel(polls.pop(expiry))
                    # What was wrong with a chain that is polled no more is wrong no more.
                    self._troubled.pop(chain_symbol(underlying.symbol, expiry), None)
                for expiry, symbol in zip(wanted, symbols, strict=True):
                    if expiry not in polls:
                        self._reporter.follow(symbol, underlying.exchange)
                        polls[expiry] = asyncio.create_task(self._poll(underlying, expiry))
                wait_s = schedule.seconds_to_relist(listed, now)
                await self._pause(clock.wall_seconds(wait_s), polls)
        finally:
            await cancel(*polls.values())

    async def _pause(self, seconds: float, polls: dict[date, asyncio.Task[None]]) -> None:
        """Wait for the next listing; a poll that failed for good brings the worker down."""
        waiting = asyncio.create_task(pause(self._context.stopping, seconds))
        done, _pending = await asyncio.wait(
            (waiting, *polls.values()), return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        for task in done:
            if not task.cancelled():
                task.result()

    async def _list(self, underlying: DhanUnderlying, breaker: Breaker) -> list[date] | None:
        """The expiries listed, newly asked for; None when the provider would not say."""
        answer = await self._ask(
            f"{underlying.symbol} expiries",
            underlying.symbol,
            breaker,
            lambda: self._rest.expiry_list(underlying),
        )
        if answer is None:
            return None
        context = self._request_context(underlying, None, answer)
        now = self._context.clock.now_ns()
        await self._append(RAW_EXPIRIES_TYPE, context, answer, now)
        try:
            return list(map_expiries(answer.body, context, now).expiries)
        except DecodeError as error:
            self._reporter.failed({underlying.symbol}, error)
            self._context.telemetry.log.warning("expiries_undecodable", error=str(error))
            await pause(self._context.stopping, schedule.RELIST_AFTER_FAILURE_S)
            return None

    async def _poll(self, underlying: DhanUnderlying, expiry: date) -> None:
        """Ask for one chain, over and over."""
        context, breaker = self._context, Breaker()
        symbol = chain_symbol(underlying.symbol, expiry)
        while not context.stopping.is_set():
            answer = await self._ask(
                symbol, symbol, breaker, lambda: self._rest.option_chain(underlying, expiry)
            )
            if answer is None:
                continue
            now = context.clock.now_ns()
            request = self._request_context(underlying, expiry, answer)
            fate: Fate = "spooled"  # as soon as it is put, also where stopping cuts the wait short
            try:
                fate = await self._append(RAW_CHAIN_TYPE, request, answer, now)
            finally:
                self._reporter.received(symbol, now, answer.body, fate)
            if not (
                context.settings.poll_closed_market or calendar.is_open(now, underlying.exchange)
            ):
                wait_s = schedule.closed_pause_s(now, underlying.exchange)
                await pause(context.stopping, context.clock.wall_seconds(wait_s))

    async def _ask(
        self, what: str, budget_key: str, breaker: Breaker, call: Callable[[], Awaitable[Answer]]
    ) -> Answer | None:
        """One answer within the budget; None after an error, when the wait for it is over."""
        try:
            answer = await self._in_turn(budget_key, breaker, what, call)
        except ProviderError as error:
            self._reporter.failed({budget_key}, error)
            await self._leave_alone(what, breaker, error)
            return None
        if answer is not None:
            breaker.succeeded()
            self._received.add()
            self._troubled.pop(what, None)
            self._say_state()
        return answer

    async def _in_turn(
        self, key: str, breaker: Breaker, what: str, call: Callable[[], Awaitable[Answer]]
    ) -> Answer | None:
        """One call in its slot of the budget, an unreachable provider tried until it is there.

        The provider counts from the instant it took the last request, which lies between our
        sending it and its answer: the next one keeps its distance from the answer as well.
        """
        settings = self._context.settings
        scope = key if settings.chain_budget == "chain" else "account"
        spacing_s = self._context.clock.wall_seconds(settings.chain_spacing_s)
        name = f"dhan:{settings.dhan_client_id}:{scope}"
        budget = Budget(self._context.redis, self._context.topics, name, spacing_s)
        in_line = self._in_line[scope]
        in_line.add(key)
        try:
            async with self._lines[scope]:
                if not await self._slot(budget, spacing_s, key):
                    return None
                try:
                    while True:
                        try:
                            return await call()
                        except ProviderUnreachable as error:
                            self._reporter.failed(in_line, error)  # nobody in it can ask
                            await self._leave_alone(what, breaker, error)
                            if self._context.stopping.is_set():
                                return None
                finally:
                    with contextlib.suppress(BusUnavailable):
                        await budget.hold(spacing_s * schedule.DISTANCE_FROM_ANSWER)
        finally:
            in_line.discard(key)

    async def _leave_alone(self, what: str, breaker: Breaker, error: ProviderError) -> None:
        """Say what went wrong and wait as long as it asks for."""
        wait_s = breaker.failed(error)
        self._errors.add()
        self._context.telemetry.log.warning(
            "provider_error",
            what=what,
            kind=type(error).__name__,
            code=error.code,
            error=str(error)[:200],
            wait_s=round(wait_s, 2),
        )
        if breaker.is_trouble(error):
            self._troubled[what] = f"{what}: {type(error).__name__}"
            self._say_state()
        await pause(self._context.stopping, wait_s)

    async def _slot(self, budget: Budget, spacing_s: float, key: str) -> bool:
        """Wait for the next slot of a budget; False when stopping instead."""
        try:
            wait_s = await budget.take(600.0)
        except BusUnavailable:
            wait_s = spacing_s  # alone we keep to the spacing; the budget is shared again later
        if wait_s is None:
            self._reporter.failed({key}, BUDGET)
        else:
            self._reporter.promised(key, wait_s)
        await pause(self._context.stopping, spacing_s if wait_s is None else wait_s)
        return not self._context.stopping.is_set() and wait_s is not None

    async def _append(
        self, kind: str, request: RequestContext, answer: Answer, ts_ingest: int
    ) -> Fate:
        context = self._context
        with context.telemetry.span("ingest") as traceparent:
            entry = raw_entry(kind, request, answer.body, ts_ingest, traceparent)
            stream = context.topics.raw(context.topics.shard_of(request.underlying))
            fate = await self._outbox.put(stream, entry)
        self._record_age((context.clock.now_ns() - ts_ingest) / 1e9)
        return fate

    def _request_context(
        self, underlying: DhanUnderlying, expiry: date | None, answer: Answer
    ) -> RequestContext:
        return request_context(
            underlying,
            expiry,
            provider=self._context.settings.provider,
            path=answer.path,
            status=answer.status,
            http_date=answer.http_date,
        )

    def _say_state(self) -> None:
        troubles = [self._outbox.trouble, *sorted(self._troubled.values())]
        reason = "; ".join([trouble for trouble in troubles if trouble][:3])
        self._context.telemetry.set_state("degraded" if reason else "ready", reason)
