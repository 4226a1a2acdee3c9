"""What a run needs, each a process of its own: Valkey, the gateway, peers, a feeder, the clients.

It starts and stops them and reads their CPU and memory; it measures nothing itself.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import psutil

from pipeline.config import Settings
from pipeline.credentials import issue_token
from stockify import plan, warm
from stockify.bench import embedded
from stockify.bench.bus.children import Child
from stockify.bench.gateway import texts
from stockify.bench.gateway.progress import Progress
from stockify.bench.report import MissingPeer
from stockify.processes import Launch

PEER_PYTHON = Path(__file__).resolve().parents[3] / ".venv-bench" / "bin" / "python"
SECRET = "the secret of a bench, long enough for HS256"  # noqa: S105 - opens one short-lived gateway
START_S = 30.0
NEVER = 1_000_000.0  # units a second, of a limit that is on and that nobody reaches

Say = Callable[[str], None]
_PEERS = "import fastapi, hiredis, httptools, redis, uvicorn, uvloop, websockets.legacy.server"


class Server(msgspec.Struct, frozen=True):
    """A server's process, and where it listens: `host:port`."""

    pid: int
    address: str

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that it has taken so far, in the kernel too."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mb(self) -> float:
        """What it holds in memory now."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6


class Rig:
    """One run's processes; whatever is started ends with the run."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, redis_url: str) -> None:
        self.folder = folder
        self.sample = texts.make(folder / "sample")
        self.token = issue_token(SECRET, scopes=("live", "history", "export"))
        self._stack = stack
        self._settings = Settings(redis_url=redis_url, state_dir=str(folder / "state"))
        self._progress = folder / "progress"
        stack.callback(Progress(self._progress).close)
        progress = str(self._progress)
        self.load = self._child("load", sys.executable, "-m", _module("load"), progress)
        self.feeder = self._child(
            *("feeder", sys.executable, "-m", _module("feeder"), str(folder / "sample"), progress)
        )

    def gateway(self, database_url: str = "") -> Server:
        """The gateway as `stockify up` starts it, but for limits that nobody reaches."""
        settings = msgspec.structs.replace(
            self._settings,
            database_url=database_url,
            jwt_secret=SECRET,
            gateway_port=plan.Ports().free(),
            log_level="error",
            gateway_rate=NEVER,
            gateway_burst=int(NEVER),
            gateway_address_rate=NEVER,
            gateway_address_burst=int(NEVER),
        )
        return self._server(plan.launch("gateway", settings), settings.gateway_port)

    def fastapi(self, channels: list[str]) -> Server:
        """FastAPI's hub of these live channels."""
        path = self.folder / "channels.json"
        path.write_bytes(msgspec.json.encode(channels))
        script = str(Path(__file__).with_name("fastapi_peer.py"))
        port = plan.Ports().free()
        argv = (str(PEER_PYTHON), "-I", script, self._settings.redis_url, str(port), str(path))
        return self._server(self._launch("fastapi", argv), port)

    def constant(self, body: bytes) -> Server:
        """The constant answer."""
        path = self.folder / "body"
        path.write_bytes(body)
        script = str(Path(__file__).with_name("constant_peer.py"))
        port = plan.Ports().free()
        argv = (sys.executable, "-I", script, str(port), str(path))
        return self._server(self._launch("constant", argv), port)

    def bare(self) -> tuple[Server, Child]:
        """The bare `websockets` server, which broadcasts when it is told to."""
        script = str(Path(__file__).with_name("websockets_peer.py"))
        port = plan.Ports().free()
        child = self._child(
            *("websockets", str(PEER_PYTHON), "-I", script, str(port), str(self._progress))
        )
        _wait_for(port, self.folder / "websockets.log")
        return Server(child.pid, f"127.0.0.1:{port}"), child

    def open(
        self,
        server: Server,
        clients: int,
        subscribe: Mapping[str, object] | None = None,
        *,
        path: str = "/v1/ws",
        marker: str = '"type":"update"',
    ) -> None:
        """Connect clients to a server; they count frames' messages by the `marker`."""
        url, token = f"ws://{server.address}{path}", self.token if subscribe else ""
        asked = {"url": url, "clients": clients, "token": token, "marker": marker}
        self.load.ask(int, do="open", subscribe=subscribe or {}, **asked)

    def _child(self, name: str, *argv: str) -> Child:
        environment = plan.environment(self._settings, "bench")
        child = Child(name, argv, environment, self.folder / f"{name}.log")
        self._stack.callback(child.close)
        return child

    def _launch(self, name: str, argv: tuple[str, ...]) -> Launch:
        return Launch(name=name, argv=argv, env=plan.environment(Settings(), "bench"))

    def _server(self, launch: Launch, port: int) -> Server:
        log = self.folder / f"{launch.name}.log"
        pid = self._stack.enter_context(embedded.running(launch, log))
        _wait_for(port, log)
        return Server(pid, f"127.0.0.1:{port}")


@contextlib.contextmanager
def running(say: Say) -> Iterator[Rig]:
    """A rig on a Valkey of its own, with every chain written once."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockify-bench-")))
        folder.chmod(0o755)  # an engine may run as another user than root
        if "processor" in warm.cold_roles():
            say("compiling kernels, once on this machine …")
        made = Rig(folder, stack, stack.enter_context(embedded.valkey(folder)))
        made.feeder.ask(dict, do="prime")
        yield made


def check_peers() -> None:
    """Raises MissingPeer where what the gateway is compared with is not installed."""
    asked = (str(PEER_PYTHON), "-W", "ignore", "-c", _PEERS)
    if (
        not PEER_PYTHON.exists()
        or subprocess.run(asked, check=False, stderr=subprocess.DEVNULL).returncode
    ):
        raise MissingPeer("FastAPI with uvicorn and websockets is not installed")


def _module(name: str) -> str:
    return f"stockify.bench.gateway.{name}"


def _wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-3_000:]
    raise RuntimeError(f"a server did not come up:\n{said}")
