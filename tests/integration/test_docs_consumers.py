"""The consumers that the documents show run as they stand, on a real server."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import redis

from stockify.page import node_program
from tests.support import bus, chains, documents, enriched, servers
from tests.support.rooms import CHECKOUT

PAGE = CHECKOUT / "docs/consumers.md"
EXAMPLES = CHECKOUT / "docs/examples"
STREAM = "stream:enriched"
DEADLINE_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of its own with the examples, as a user would copy them."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "mine"))


async def append(url: str, *numbers: int, shards: int = 1, underlying: str = "NIFTY") -> None:
    async with bus.context(url, shards=shards, log_level="error") as context:
        await enriched.append_chains(context, *numbers, underlying=underlying)


@contextlib.contextmanager
def running(
    folder: Path, url: str, *command: str, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the folder, writing to the file `out`; killed at the end if it still runs."""
    own = {"STOCKIFY_REDIS_URL": url, "STOCKIFY_STATE_DIR": str(folder / "state")}
    own |= {"STOCKIFY_LEASE_MS": "500"} | settings  # a killed one is followed soon
    with (folder / "out").open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | own | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def stockify_run(worker: str) -> tuple[str, ...]:
    return (sys.executable, "-W", "error", "-m", "stockify", "run", worker)


def wait_for(process: subprocess.Popen[bytes], folder: Path, text: str, times: int = 1) -> str:
    """The output, once it holds the text that often."""
    deadline = time.monotonic() + DEADLINE_S
    while (shown := (folder / "out").read_text()).count(text) < times:
        assert process.poll() is None, shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
    return shown


def wait_for_group(url: str, group: str, *, pending: int | None = None) -> None:
    """Until the group is there and has, if asked, nothing to read and so many pending."""
    deadline = time.monotonic() + DEADLINE_S
    held: dict[str, Any] = {}
    with redis.Redis.from_url(url) as client:
        while True:
            if client.exists(STREAM):
                newest = client.xinfo_stream(STREAM)["last-generated-id"]
                groups: Any = client.xinfo_groups(STREAM)
                held = {one["name"].decode(): one for one in groups}
            if group in held and (
                pending is None
                or (held[group]["pending"], held[group]["last-delivered-id"]) == (pending, newest)
            ):
                return
            assert time.monotonic() < deadline, held
            time.sleep(0.02)


def stopped(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(DEADLINE_S)


def test_page_shows_every_example_as_it_stands() -> None:
    paths = [path for path in EXAMPLES.iterdir() if path.is_file() and path.stem != "client"]
    written = {path.name: path.read_text() for path in paths}  # clients are the gateway's
    assert documents.files_shown(PAGE) == written
    assert len(written) == 5


@pytest.mark.parametrize(
    ("command", "group"),
    [
        pytest.param(python("plain.py"), "my-strategy", id="redis-py"),
        pytest.param((str(node_program()), "frames.mjs"), "my-node", id="node"),
    ],
)
async def test_consumer_without_our_package_reads_each_chain_and_goes_on_after_a_restart(
    valkey: str, folder: Path, command: tuple[str, ...], group: str
) -> None:
    chain = chains.enriched(5)
    line = f"{chain.header.chain} {chain.header.n} legs 25000 0.12"
    with running(folder, valkey, *command) as process:
        wait_for_group(valkey, group)
        await append(valkey, 1)
        wait_for(process, folder, line)
        wait_for_group(valkey, group, pending=0)
    await append(valkey, 2, 3)  # while it is away
    with running(folder, valkey, *command) as process:
        wait_for(process, folder, line, times=3)
        wait_for_group(valkey, group, pending=0)
    assert (folder / "out").read_text().count(line) == 3


async def test_node_reads_what_it_was_given_before_it_was_killed(valkey: str, folder: Path) -> None:
    async with bus.context(valkey) as context:
        await context.redis.xgroup_create(STREAM, "my-node", "0", mkstream=True)
        await enriched.append_chains(context, 1, 2)
        await context.redis.xreadgroup("my-node", "worker-1", {STREAM: ">"}, count=1)
    with running(folder, valkey, str(node_program()), "frames.mjs") as process:
        wait_for(process, folder, "10 legs", times=2)
        wait_for_group(valkey, "my-node", pending=0)


async def test_node_logs_in_with_the_password_of_the_url(tmp_path: Path, folder: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with (
        servers.running(servers.valkey_binary(), data) as server,
        redis.Redis(port=server.port) as client,
    ):
        client.config_set("requirepass", "p@ss/word")
        url = server.url.replace("//", "//:p%40ss%2Fword@")
        with running(folder, url, str(node_program()), "frames.mjs") as process:
            wait_for_group(url, "my-node")
            await append(url, 1)
            wait_for(process, folder, "10 legs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_script_prints_what_comes_and_ends_cleanly_when_asked(
    valkey: str, folder: Path, number: signal.Signals
) -> None:
    with running(folder, valkey, *python("-W", "error", "watch.py")) as process:
        wait_for_group(valkey, "my-watch")
        await append(valkey, 1, underlying="BANKNIFTY")
        await append(valkey, 2)
        wait_for(process, folder, "NIFTY-20260127-25050-PE")
        code = stopped(process, number)
    shown = (folder / "out").read_text()
    assert code == 0, shown
    assert "BANKNIFTY" not in shown
    assert "{" not in shown, "a script's own output has no log lines in it"
    with redis.Redis.from_url(valkey) as client:
        assert client.xpending(STREAM, "my-watch")["pending"] == 0
        left: Any = client.hgetall("lease:my-watch")
        assert not [field for field in left if b"owner" in field or b"slot" in field]


async def test_engine_killed_at_any_point_writes_each_signal_once(
    valkey: str, folder: Path
) -> None:
    a_run, runs = 80, 3
    with redis.Redis.from_url(valkey) as client:
        for run in range(runs):
            await append(valkey, *range(run * a_run, (run + 1) * a_run))
            written = client.xlen("stream:signals")
            with running(folder, valkey, *stockify_run("engine:straddle")) as process:
                async with asyncio.timeout(DEADLINE_S):
                    while client.xlen("stream:signals") == written:
                        assert process.poll() is None, (folder / "out").read_text()
                        await asyncio.sleep(0.001)
                if run == runs - 1:
                    wait_for_group(valkey, "my-engine", pending=0)
                    assert stopped(process) == 0, (folder / "out").read_text()
        found: Any = client.xrange("stream:signals")
    count = runs * a_run
    assert [int(fields[b"seq"]) for _id, fields in found] == list(range(1, 2 * count + 1))
    ids = [fields[b"id"].decode() for _id, fields in found]
    assert ids == [f"NIFTY-{n}:my-engine:{leg}" for n in range(count) for leg in (0, 1)]
    signals = [msgspec.json.decode(fields[b"data"]) for _id, fields in found[:2]]
    assert [one["contract"] for one in signals] == [
        "NIFTY-20260127-25000-CE",
        "NIFTY-20260127-25000-PE",
    ]
    assert {one["side"] for one in signals} == {"sell"}


async def test_features_have_a_row_for_each_chain_also_after_a_kill(
    valkey: str, folder: Path
) -> None:
    names, count = ("NIFTY", "SENSEX"), 60
    for name in names:
        await append(valkey, *range(count), shards=2, underlying=name)
    files = folder / "features"
    row = np.dtype([("seq", "<i8"), ("ts_ingest", "<i8"), ("chain", "S32"), ("rest", "<f8", 5)])
    command = stockify_run("features:write")
    for is_last in (False, True):
        with running(folder, valkey, *command, STOCKIFY_SHARDS="2") as process:
            wanted = 2 * count if is_last else 20
            deadline = time.monotonic() + DEADLINE_S
            while sum(path.stat().st_size for path in files.glob("*.rows")) < wanted * row.itemsize:
                assert process.poll() is None, (folder / "out").read_text()
                assert time.monotonic() < deadline
                await asyncio.sleep(0.002)
            if is_last:
                assert stopped(process) == 0, (folder / "out").read_text()
            else:
                process.kill()
                process.wait(DEADLINE_S)
                for path in files.glob("*.rows"):
                    path.write_bytes(path.read_bytes() + b"half a row")  # as a torn write leaves
    written = np.concatenate([np.fromfile(path, row) for path in sorted(files.glob("*.rows"))])
    found = sorted((one["chain"].decode(), int(one["ts_ingest"])) for one in written)
    assert found == sorted(
        (f"{name}-20260127", chains.TS_INGEST + n) for name in names for n in range(count)
    )
    assert np.isfinite(written["rest"][:, :2]).all()
