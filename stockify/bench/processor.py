"""One processor process: raw entries of whole chains to enriched ones, beside the decoding alone.

The real worker on an embedded Valkey of its own. It is stopped while a slice of entries is
appended, then let go; the clock runs until the last of them is finished, and its CPU is that of
the process alone, start-up and warm-up left out. Between slices the same bodies are decoded here
by msgspec and nothing else, so that both meet the same moods of the machine; figures are medians
over the slices. Bodies are of many instants of a simulated day.
"""

import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

import msgspec
import psutil
import redis
import zstandard

from pipeline import bodies, dhan, dhan_chain
from pipeline.clock import IST, SECOND_NS, to_ns
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.models import RAW_CHAIN_TYPE
from pipeline.streams import Producer
from pipeline.topics import Topics, sequence
from stockify import plan, warm
from stockify.bench import embedded
from stockify.bench.report import Line, Report
from workers.simulator import answers, exchange
from workers.simulator.market import Market

UNDERLYING = dhan.UNDERLYINGS["NIFTY"]
OPENS_NS = to_ns(datetime(2026, 1, 22, 9, 30, tzinfo=IST))
INSTANTS = 60  # different bodies
APART_NS = 300 * SECOND_NS
SLICES = 15
CHAINS_A_SLICE = 240
DEADLINE_S = 240.0  # with a first compilation of every kernel


class _Slice(msgspec.Struct, frozen=True):
    """One slice, a chain: wall and CPU of the processor, CPU of each part measured here; µs."""

    wall: float
    process: float
    typed: float
    untyped: float
    decompress: float


def measure(say: Callable[[str], None], *, quick: bool = False) -> Report:
    """Run the worker over slices of entries, and the decoders between them."""
    slices, instants = (3, 6) if quick else (SLICES, INSTANTS)
    texts, expiry = _bodies(instants)
    legs = dhan_chain.chain_decoder.decode(texts[0]).data.oc
    contracts = 2 * len(legs)
    with tempfile.TemporaryDirectory(prefix="stockify-bench-") as directory:
        say("starting an embedded Valkey and the processor …")
        with _processing(Path(directory)) as work:
            work.run(_entries(texts, expiry, instants))
            say(f"{slices} slices of {CHAINS_A_SLICE} chains, {contracts} contracts each …")
            entries = _entries(texts, expiry, CHAINS_A_SLICE)
            taken = [_slice(work, entries, texts) for _ in range(slices)]
    size = statistics.fmean(len(text) for text in texts)
    return _report(taken, contracts, f"{len(texts)} bodies of {size / 1e3:,.0f} kB on average")


def _report(taken: list[_Slice], contracts: int, caption: str) -> Report:
    def median(of: Callable[[_Slice], float]) -> float:
        return statistics.median(of(one) for one in taken)

    process, typed = median(lambda one: one.process), median(lambda one: one.typed)
    decompress = median(lambda one: one.decompress)
    return Report(
        title="XREADGROUP → decode → enrich → XADD + XACK, one process",
        caption=caption,
        lines=[
            Line(
                "contracts_per_s",
                "contracts enriched",
                contracts / median(lambda one: one.wall) * 1e6,
                "contracts/s",
                target="≥ 250,000",
            ),
            Line(
                "ratio_decode",
                "its CPU to msgspec's typed decoding alone",
                median(lambda one: one.process / one.typed),
                "×",
                2,
                "≤ 2.8",
            ),
            Line(
                "ratio_decode_untyped",
                "the same to untyped decoding",
                median(lambda one: one.process / one.untyped),
                "×",
                2,
            ),
            Line("cpu_us", "CPU of the process", process, "µs a chain"),
            Line("decode_us", "of it decoding, typed", typed, "µs a chain"),
            Line("decompress_us", "of it decompressing", decompress, "µs a chain"),
            Line("rest_us", "of it all else", process - typed - decompress, "µs a chain"),
            Line("contracts_per_chain", "contracts in a chain", contracts, "contracts"),
        ],
    )


def _bodies(instants: int) -> tuple[list[bytes], date]:
    """Chains of one expiry at different instants, as the provider prints them."""
    market, underlying = Market(1), exchange.BY_NAME[UNDERLYING.symbol]
    expiry = exchange.expiries(underlying, OPENS_NS)[1]
    times = [OPENS_NS + place * APART_NS for place in range(instants)]
    return [answers.chain(market.chain(underlying, expiry, ts)).encode() for ts in times], expiry


def _entries(texts: list[bytes], expiry: date, count: int) -> list[NewEntry]:
    context = dhan.request_context(UNDERLYING, expiry, provider="simulator")
    entries = []
    for place in range(count):
        lap, instant = divmod(place, len(texts))
        ts = OPENS_NS + instant * APART_NS + lap
        entries.append(bodies.raw_entry(RAW_CHAIN_TYPE, context, texts[instant], ts))
    return entries


def _slice(work: "_Work", entries: list[NewEntry], texts: list[bytes]) -> _Slice:
    packed = [entry.data for entry in entries[: len(texts)]]
    untyped = msgspec.json.Decoder()
    typed_us = _cpu_us(dhan_chain.chain_decoder.decode, texts)
    untyped_us = _cpu_us(untyped.decode, texts)
    wall, process = work.run(entries)
    return _Slice(
        wall=wall * 1e6 / len(entries),
        process=process * 1e6 / len(entries),
        typed=(typed_us + _cpu_us(dhan_chain.chain_decoder.decode, texts)) / 2,
        untyped=(untyped_us + _cpu_us(untyped.decode, texts)) / 2,
        decompress=_cpu_us(zstandard.ZstdDecompressor().decompress, packed),
    )


def _cpu_us(call: Callable[[bytes], object], texts: list[bytes]) -> float:
    """CPU of one call, on average over the texts."""
    began = time.thread_time_ns()
    for text in texts:
        call(text)
    return (time.thread_time_ns() - began) / 1e3 / len(texts)


class _Work:
    """The processor process and the stream it is fed by."""

    def __init__(self, settings: Settings, process: psutil.Process, log: Path) -> None:
        self._settings = settings
        self._process = process
        self._log = log
        self._client = redis.Redis.from_url(settings.redis_url)
        self._finished = 0
        topics = Topics()
        shard = topics.shard_of(UNDERLYING.symbol)
        self._raw, self._enriched = topics.raw(shard), topics.enriched(shard)

    def run(self, entries: list[NewEntry]) -> tuple[float, float]:
        """Have entries processed; wall and CPU seconds from first to last."""
        self._process.suspend()
        try:
            asyncio.run(self._append(entries))
            before = self._cpu_s()
        finally:
            began = time.perf_counter()
            self._process.resume()
        self._wait(len(entries))
        wall, cpu = time.perf_counter() - began, self._cpu_s() - before
        self._client.xtrim(self._raw, maxlen=0, approximate=False)
        self._client.xtrim(self._enriched, maxlen=0, approximate=False)
        return wall, cpu

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    async def _append(self, entries: list[NewEntry]) -> None:
        producer = Producer(self._settings, "bench")
        for entry in entries:
            await producer.append(self._raw, entry)
        await producer.close()

    def _wait(self, entries: int) -> None:
        self._finished += entries
        deadline = time.monotonic() + DEADLINE_S
        while int(self._client.hget(sequence(self._enriched), "seq") or 0) < self._finished:
            if time.monotonic() > deadline or not self._process.is_running():
                raise RuntimeError(
                    f"not every entry was finished:\n{self._log.read_text()[-3_000:]}"
                )
            time.sleep(0.002)

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def _processing(directory: Path) -> Iterator[_Work]:
    """The worker, reading from a Valkey of its own; both are stopped afterwards."""
    if "processor" in warm.cold_roles():
        filling = warm.launch("processor")
        subprocess.run(filling.argv, env=dict(filling.env), check=True)
    with embedded.valkey(directory) as url:
        settings = Settings(redis_url=url)
        log = directory / "processor.log"
        with embedded.running(plan.launch("processor", settings), log) as pid:
            work = _Work(settings, psutil.Process(pid), log)
            with contextlib.closing(work):
                yield work
