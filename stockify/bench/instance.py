"""A whole instance of its own for a bench: `stockify up` on a temporary state directory."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline import config
from pipeline.attached import Running
from pipeline.config import Settings
from pipeline.credentials import issue_token
from stockify.instance import StateDirectory

START_S = 180.0
STOP_S = 60.0


class Instance(msgspec.Struct, frozen=True):
    """A running instance: its settings with full addresses, and the processes' metrics ports."""

    settings: Settings
    gateway: str
    simulator: str
    metrics_ports: dict[str, int]

    def token(self) -> str:
        """A token for everything the gateway serves live and from history."""
        return issue_token(self.settings.jwt_secret, scopes=("live", "history"), ttl_s=3_600)

    def counter(self, process: str, name: str) -> int:
        """A counter of one process, now."""
        url = f"http://127.0.0.1:{self.metrics_ports[process]}/healthz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            report = msgspec.json.decode(answer.read())
        return int(report["counters"].get(name, 0))


@contextlib.contextmanager
def running_instance(**settings: str) -> Iterator[Instance]:
    """Start an instance whose settings are the defaults and these; stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="stockify-bench-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - an engine may run as another user than root
        state = Path(directory) / "state"
        environment = config.environment(Settings()) | {
            config.PREFIX + name.upper(): value for name, value in settings.items()
        }
        environment |= {"STOCKIFY_STATE_DIR": str(state), "STOCKIFY_GATEWAY_PORT": "0"}
        with open(Path(directory) / "up.log", "w+b") as log:
            process = subprocess.Popen(
                (sys.executable, "-m", "stockify", "up"),
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield _wait(process, StateDirectory(state), Path(directory) / "up.log")
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait(process: subprocess.Popen[bytes], state: StateDirectory, log: Path) -> Instance:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        running, status = state.running(), state.status()
        if running and status and status.state == "ready":
            ports = {
                name: one.metrics_port
                for name, one in status.processes.items()
                if one.metrics_port is not None
            }
            return _instance(running, ports)
        time.sleep(0.2)
    raise RuntimeError(f"the instance did not come up:\n{log.read_text()[-3_000:]}")


def _instance(running: Running, ports: dict[str, int]) -> Instance:
    values = {
        name.removeprefix(config.PREFIX).lower(): text
        for name, text in running.environment.items()
        if name.startswith(config.PREFIX)
    }
    settings = Settings(
        redis_url=values["redis_url"],
        database_url=values["database_url"],
        jwt_secret=values["jwt_secret"],
    )
    return Instance(settings, running.gateway, values.get("dhan_base_url", ""), ports)
