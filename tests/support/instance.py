"""A whole instance for tests: the real `stockify up` on free ports, in a state directory."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import websockets.sync.client as websocket

from stockify import guard
from tests.support.servers import free_port

START_S = 120.0  # with a first compilation of every kernel on a busy machine
STOP_S = 60.0
WORKERS = ("ingest", "processor", "storage", "realtime", "trimmer", "gateway", "simulator")
_ADDRESS = re.compile(r"(http://\S+)/#token=(\S+)")


class Instance:
    """`stockify up` over one state directory; may be started again after it ended."""

    def __init__(self, state: Path, **settings: str) -> None:
        self.state = state
        self.output = state.with_name(f"{state.name}.out")
        ports = {"GATEWAY_PORT": free_port(), "SIMULATOR_PORT": free_port()}
        given = {"STATE_DIR": state, **ports, **settings}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STOCKIFY_")}
        self.environment = kept | {f"STOCKIFY_{name}": str(v) for name, v in given.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.gateway = self.token = ""

    def start(self, *arguments: str, umask: int = -1) -> None:
        """Start it and wait for the address of its page and the first chain."""
        with starting():
            with open(self.output, "wb") as output:
                self.process = subprocess.Popen(
                    (sys.executable, "-m", "stockify", "up", *arguments),
                    stdout=output,
                    stderr=output,
                    env=self.environment,
                    umask=umask,
                )
            until(self._is_up, START_S, self.said)
        found = _ADDRESS.search(self.said())
        assert found is not None
        self.gateway, self.token = found.groups()

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"stockify up ended with {self.process.returncode}: {self.said()}")
        return "✓ first chain" in self.said()

    def said(self) -> str:
        """What `stockify up` has printed."""
        return self.output.read_text()

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another command of `stockify` on this state."""
        return subprocess.run(
            (sys.executable, "-m", "stockify", *arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_S,
        )

    def status(self) -> dict[str, Any]:
        """What `stockify status --json` says."""
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def pid_of(self, name: str) -> int | None:
        """The pid of a running process, by name."""
        pid: int | None = self.status()["processes"][name].get("pid")
        return pid

    def get(self, path: str) -> httpx.Response:
        """A GET at the gateway with the page's token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.gateway}{path}", headers=headers, timeout=10)

    def chain(self, path: str = "/v1/chains/NIFTY/nearest") -> dict[str, Any] | None:
        """A chain as REST has it now; None while the gateway is away or has none."""
        with contextlib.suppress(httpx.HTTPError):
            answer = self.get(path)
            if answer.status_code == 200:
                body: dict[str, Any] = answer.json()
                return body
        return None

    def snapshot(self, channel: str) -> dict[str, Any]:
        """The first snapshot that a WebSocket client of a channel receives."""
        address = f"{self.gateway.replace('http', 'ws', 1)}/v1/ws"
        with websocket.connect(address, subprotocols=["stockify.v1"]) as socket:  # type: ignore[list-item]
            socket.send(json.dumps({"op": "auth", "id": 1, "token": self.token}))
            socket.send(json.dumps({"op": "subscribe", "id": 2, "channels": [channel]}))
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                for message in json.loads(socket.recv(timeout=20)):
                    if message["type"] == "snapshot":
                        found: dict[str, Any] = message
                        return found
        raise AssertionError(f"no snapshot of {channel}")

    def members(self) -> list[guard.Member]:
        """Every living process that belongs to the instance."""
        return guard.members(self.state / "run" / "marks")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop; gives its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        self.process = None
        return code

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)
        until(lambda: not self.members(), 15.0, self.said)
        place = self.state / "postgres" / "place.json"
        if place.exists():
            shutil.rmtree(json.loads(place.read_bytes())["base"], ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
        self.output.unlink(missing_ok=True)


@contextlib.contextmanager
def prepared(**settings: str) -> Iterator[Instance]:
    """An instance that is not started yet; its state lies where other users may pass through."""
    base = Path(tempfile.mkdtemp(prefix="stockify-test-"))
    base.chmod(0o711)
    instance = Instance(base / "state", **settings)
    try:
        yield instance
    finally:
        instance.end()
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """One instance at a time: each takes the engines' usual ports if nobody has them just then."""
    with open(Path(tempfile.gettempdir()) / f"stockify-tests-{os.getuid()}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def until(
    holds: Callable[[], bool], seconds: float, explain: Callable[[], str] = lambda: ""
) -> None:
    """Wait until it holds; fails with what `explain` gives."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s; {explain()}"
        time.sleep(0.1)


def instant(chain: dict[str, object] | None) -> str:
    """When a chain of REST was received; empty for none."""
    return str(chain["meta"]["ts_ingest"]) if chain else ""  # type: ignore[index]


def moves_on(instance: Instance, seconds: float = 40.0) -> None:
    """The chain of REST gets newer than it is now."""
    before = instant(instance.chain())
    until(lambda: instant(instance.chain()) > before, seconds, instance.said)
