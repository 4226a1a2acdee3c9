"""The simulator as a process of its own, on a free port, stopped by its pid."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CHECKOUT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 10.0


@dataclass
class Simulator:
    """A running simulator; `log` holds the lines it printed until it was ready."""

    process: subprocess.Popen[str]
    log: list[dict[str, Any]]

    @property
    def url(self) -> str:
        """Its base, to which `/optionchain` is added."""
        return str(next(line["url"] for line in self.log if line["event"] == "listening"))

    @property
    def root(self) -> str:
        """Its address without `/v2`."""
        return self.url.removesuffix("/v2")

    def order_fault(self, **fault: object) -> None:
        """Have the next chain answers spoilt."""
        httpx.post(f"{self.root}/_faults", json=fault, trust_env=False).raise_for_status()

    def report(self) -> dict[str, Any]:
        """State, counters and gauges, as its metrics port gives them."""
        port = next(line["metrics_port"] for line in self.log if line["event"] == "listening")
        report: dict[str, Any] = httpx.get(
            f"http://127.0.0.1:{port}/healthz", trust_env=False
        ).json()
        return report

    def stop(self) -> int:
        """Tell it to stop; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a process with these settings and no others of ours."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STOCKIFY_")}
    chosen = {"simulator_port": 0, "metrics_port": 0, **settings}
    return kept | {f"STOCKIFY_{name.upper()}": str(value) for name, value in chosen.items()}


def start(**settings: object) -> subprocess.Popen[str]:
    """The process, not yet ready."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "workers.simulator"],
        cwd=CHECKOUT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def running(**settings: object) -> Iterator[Simulator]:
    """A simulator that is ready, with these settings; stopped afterwards."""
    process = start(**settings)
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    log: list[dict[str, Any]] = []
    try:
        for text in process.stdout:
            log.append(json.loads(text))
            if log[-1].get("state") == "ready":
                break
            assert time.monotonic() < deadline, "the simulator was not ready in time"
        assert process.poll() is None, f"the simulator ended: {log}"
        yield Simulator(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
        process.stdout.close()
