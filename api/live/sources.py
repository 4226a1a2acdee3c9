"""What feeds the channels that no latest value makes: candles as they form, and health.

Candles are made of every update that the live channels bring, on top of what Postgres has of them,
once for all clients. Their sequence is this process's own: they are never resumed.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from api.live.candles import KEPT, Series, parse_rest, quote_of
from api.live.hub import Hub
from api.live.messages import State
from pipeline.buckets import DAY_S, Candle
from pipeline.candles import contract_candles, underlying_candles
from pipeline.clock import SECOND_NS, Clock
from pipeline.database import Database
from pipeline.errors import BusUnavailable, StoreError
from pipeline.frames import Position
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.models import ContractId, parse_symbol
from pipeline.runtime import side_by_side

TICK_S = 0.25  # how late a candle is closed by the clock
HEALTH_S = 2.0
UNUSED_S = 10.0  # a series is kept so long without a client, who may be coming back
HEALTH = "health"
_PREFIX = "candle:"

Report = Callable[[], Awaitable[dict[str, Any]]]


class _Made:
    """A series in use, and the newest state of it."""

    def __init__(self, rest: str) -> None:
        self.rest = rest
        self.symbol, self.interval_s = parse_rest(rest)
        self.series = Series(self.interval_s)
        self.state: State | None = None
        self.unused_s = 0.0
        self.held = 0  # how many are about to enter
        self.opening = asyncio.Lock()
        self.is_open = False


class Sources:
    """Candles and health of this process; `run` must run for them to change."""

    def __init__(
        self,
        hub: Hub,
        latest: Latest,
        live: Live,
        database: Database | None,
        clock: Clock,
        log: Any,
    ) -> None:
        self._hub = hub
        self._latest = latest
        self._live = live
        self._database = database
        self._clock = clock
        self._log = log
        self._made: dict[str, _Made] = {}
        self._by_symbol: dict[str, list[_Made]] = {}
        self._unsure: set[str] = set()
        self._look = asyncio.Event()
        self._epoch = uuid.uuid4().hex
        self._seq = 0
        self._health: State | None = None

    @contextlib.contextmanager
    def entering(self) -> Iterator[Callable[[str], Awaitable[bool]]]:
        """Gives what begins a series of candles, unless it is there; False where nothing is known
        of it; it raises BusUnavailable. A series is kept at least until the block is over.
        """
        held: list[_Made] = []

        async def begin(rest: str) -> bool:
            made = await self._open(rest)
            if made is None:
                return False
            made.held += 1
            held.append(made)
            return True

        try:
            yield begin
        finally:
            for made in held:
                made.held -= 1

    async def _open(self, rest: str) -> _Made | None:
        while True:
            made = self._made.setdefault(rest, _Made(rest))
            async with made.opening:
                if self._made.get(rest) is not made:
                    continue  # whoever began it could not
                if not made.is_open:
                    try:
                        await self._begin(made)
                    finally:
                        if not made.is_open:
                            del self._made[rest]
                return made if made.is_open else None

    def show(self, channel: str) -> None:
        """Give a channel its state, where somebody has just entered it."""
        if channel == HEALTH and self._health is not None:
            self._hub.put(channel, self._health)
        made = self._made.get(channel.removeprefix(_PREFIX))
        if made is not None and made.state is not None and channel.startswith(_PREFIX):
            self._hub.put(channel, made.state)

    async def run(self, report: Report) -> None:
        """Listen, keep the time and look after the health until cancelled."""
        await side_by_side(
            self._listen(), self._compare(), self._tick(), self._watch_health(report)
        )

    async def _begin(self, made: _Made) -> None:
        past, day = await self._past(made)
        (text,) = await self._latest.texts([made.symbol])
        if text is None and not past:
            return
        made.series.begin(past, day, self._clock.now_ns())
        if text is not None:
            self._take(made, text)
        await self._live.add([made.symbol])  # what came since the text is looked at once it stands
        self._by_symbol.setdefault(made.symbol, []).append(made)
        made.is_open = True
        self._tell(made)

    async def _past(self, made: _Made) -> tuple[list[Candle], Candle | None]:
        """The last candles that Postgres has, and a contract's whole day; none where it is away."""
        if self._database is None:
            return [], None
        end_ns = self._clock.now_ns() + made.interval_s * SECOND_NS
        symbol, interval_s = made.symbol, made.interval_s
        try:
            if isinstance(parse_symbol(symbol), ContractId):
                of = partial(contract_candles, self._database, symbol, newest_first=True)
                found = await of(interval_s, 0, end_ns, KEPT)
                days = await of(DAY_S, 0, end_ns, 1) if found else []
                return found[::-1], next(iter(days), None)
            found = await underlying_candles(
                self._database, symbol, None, interval_s, 0, end_ns, KEPT, newest_first=True
            )
        except StoreError as error:
            self._log.warning("candles_unread", symbol=symbol, error=str(error))
            return [], None
        return found[::-1], None

    async def _listen(self) -> None:
        def lost(why: str, attempt: int) -> None:
            self._log.warning("redis_candles_lost", error=why, attempt=attempt)

        await self._live.run(self._heard, lost)

    def _heard(self, symbol: str, text: bytes | None) -> None:
        if text is None:
            self._unsure.add(symbol)
            self._look.set()
            return
        for made in self._by_symbol.get(symbol, ()):
            if self._take(made, text):
                self._tell(made)

    async def _compare(self) -> None:
        """Take the newest value where one may have gone by unheard; those between are missing."""
        while True:
            await self._look.wait()
            self._look.clear()
            symbols = list(self._unsure & self._by_symbol.keys())
            self._unsure.clear()
            try:
                texts = await self._latest.texts(symbols)
            except BusUnavailable:
                continue  # it is told again once there is a subscription
            for symbol, text in zip(symbols, texts, strict=True):
                if text is not None:
                    self._heard(symbol, text)

    def _take(self, made: _Made, text: bytes) -> bool:
        try:
            return made.series.add(*quote_of(text))
        except msgspec.MsgspecError as error:
            self._log.error("live_undecodable", symbol=made.symbol, error=str(error))
            return False

    def _tell(self, made: _Made) -> None:
        header = msgspec.json.encode({"symbol": made.symbol, "interval_s": made.interval_s})
        at = max(made.series.newest_ns, made.state.ts_ingest if made.state else 0)
        made.state = State(self._position(), at, header, made.series.rows())
        self._hub.put(_PREFIX + made.rest, made.state)

    def _position(self) -> Position:
        self._seq += 1
        return Position(self._epoch, self._seq, self._clock.now_ns())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = self._clock.now_ns()
            for made in list(self._made.values()):
                if made.is_open and made.series.pass_time(now_ns):
                    self._tell(made)
                is_held = made.held or not made.is_open
                if is_held or self._hub.is_used(_PREFIX + made.rest):
                    made.unused_s = 0.0
                else:
                    made.unused_s += TICK_S
                    if made.unused_s > UNUSED_S:
                        await self._drop(made)

    async def _drop(self, made: _Made) -> None:
        del self._made[made.rest]
        others = self._by_symbol[made.symbol]
        others.remove(made)
        if not others:
            del self._by_symbol[made.symbol]
            await self._live.remove([made.symbol])

    async def _watch_health(self, report: Report) -> None:
        while True:
            if self._hub.is_used(HEALTH):
                told = await report()
                rows = {
                    name: msgspec.json.encode({"symbol": name, **fresh})
                    for name, fresh in told.pop("data").items()
                }
                now_ns = self._clock.now_ns()
                header = msgspec.json.encode(told)
                self._health = State(self._position(), now_ns, header, rows)
                self._hub.put(HEALTH, self._health)
                await asyncio.sleep(HEALTH_S)
            else:
                self._health = None  # soon too old to be shown
                await asyncio.sleep(TICK_S)
