"""A day of contracts as Arrow over REST, beside the COPY of the server read by a plain client."""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import psycopg

from pipeline.queries import statement
from stockify.bench.gateway.asking import Fetched
from stockify.bench.gateway.rig import Rig, Server
from stockify.bench.report import Line
from stockify.bench.storage import past, servers

LEAST_BYTES = 100  # of a row in Arrow: fewer, and something is missing
SAMPLE_S = 0.02


class Size(msgspec.Struct, frozen=True):
    """How much is measured; a snapshot is eight hundred rows."""

    rounds: int = 3
    snapshots: int = 6_250


QUICK = Size(rounds=1, snapshots=50)


class Turn(msgspec.Struct, frozen=True):
    """Seconds of an export and of the COPY right beside it, and the gateway's memory, in MB."""

    export_s: float
    copy_s: float
    size: int
    rss_mb: float


def measure_exports(rig: Rig, size: Size, say: Callable[[str], None]) -> list[Line]:
    """Turns of both on a plain PostgreSQL, in changing order."""
    held = past.Past(days=1, snapshots=size.snapshots)
    directory = rig.folder / "postgres"
    directory.mkdir(mode=0o755)
    with servers.running(directory, (servers.PLAIN,)) as urls:
        url = urls[servers.PLAIN]
        past.fill(url, held, say, beside=False)
        gateway = rig.gateway(url)
        _export(rig, gateway, held, days=0)  # everything is loaded that an idle gateway has not
        idle_mb = gateway.rss_mb
        turns = []
        for number in range(size.rounds):
            say(f"exports, round {number + 1} of {size.rounds} …")
            copy_s = _copy(url, held.legs) if number % 2 == 0 else 0.0
            with _peak(gateway) as peak:
                fetched = _export(rig, gateway, held)
            copy_s = copy_s or _copy(url, held.legs)
            if fetched.size < held.legs * LEAST_BYTES:
                raise RuntimeError(f"{fetched.size} bytes are not {held.legs} rows")
            turns.append(Turn(fetched.wall_s, copy_s, fetched.size, max(peak) - idle_mb))
    return _lines(turns, held.legs)


def _export(rig: Rig, gateway: Server, held: past.Past, days: int = 1) -> Fetched:
    """The first so many days; of none, the day before them."""
    first, last = (held.day(number) for number in ((0, 1) if days else (-1, 0)))
    path = f"/v1/exports/option_contracts?format=arrow&start={first}&end={last}"
    url = f"http://{gateway.address}{path}"
    return rig.load.ask(Fetched, do="fetch", url=url, token=rig.token)


def _copy(url: str, rows: int) -> float:
    """Seconds of a COPY of every row, thrown away as it comes."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        with cursor.copy(statement("bench_copy_out")) as copy:
            count = sum(1 for _ in copy)
        took = time.perf_counter() - began
    if count < rows:
        raise RuntimeError(f"{count} of {rows} rows came by COPY")
    return took


@contextlib.contextmanager
def _peak(server: Server) -> Iterator[list[float]]:
    """What a server holds in memory, now and again while the block runs."""
    seen, done = [server.rss_mb], threading.Event()

    def look() -> None:
        while not done.wait(SAMPLE_S):
            seen.append(server.rss_mb)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def _lines(turns: list[Turn], rows: int) -> list[Line]:
    return [
        Line(
            "export_fraction",
            f"{rows:,} rows as Arrow over REST, to COPY TO binary",
            statistics.median(turn.copy_s / turn.export_s for turn in turns),
            "",
            2,
            "≥ 0.5",
        ),
        Line(
            "export_rss_mb",
            "the gateway's memory above its idle one",
            max(turn.rss_mb for turn in turns),
            "MB",
            0,
            "< 200",
        ),
        Line(
            "export_rows_per_s",
            "rows exported",
            statistics.median(rows / turn.export_s for turn in turns),
            "rows/s",
        ),
        Line(
            "copy_rows_per_s",
            "rows by COPY",
            statistics.median(rows / turn.copy_s for turn in turns),
            "rows/s",
        ),
    ]
