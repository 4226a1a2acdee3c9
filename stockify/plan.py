"""What an instance consists of: ports, addresses and one `Launch` a process, from the settings.

It decides and starts nothing; the supervisor carries it out.
"""

import random
import socket
import sys
from pathlib import Path

import msgspec

from pipeline import config
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.errors import ConfigError
from stockify.instance import Secrets
from stockify.processes import Launch

LOOPBACK = "127.0.0.1"
MODULES = {
    "simulator": "workers.simulator",
    "ingest": "workers.ingest",
    "processor": "workers.processor",
    "storage": "workers.storage",
    "realtime": "workers.realtime",
    "trimmer": "workers.trimmer",
    "gateway": "api",
}
_USERS_OF_SECRETS = {
    "jwt_secret": ("gateway",),
    "jwt_secrets": ("gateway",),
    "dhan_access_token": ("ingest", "simulator"),
    "dhan_token_file": ("ingest",),
}
_NOTHING = {field.name: field.default for field in msgspec.structs.fields(Settings)}
# Built in too, for those who start them with `stockify run`.
OPTIONAL = {
    "splitter": "workers.splitter",
    "archiver": "workers.archiver",
}
# Who is asked to stop when, each with all before it gone: stop reading, work off, flush, close.
DRAIN_ORDER = (
    ("ingest",),
    ("processor",),
    ("storage", "realtime", "trimmer"),
    ("gateway",),
    ("simulator",),
    ("valkey", "postgres"),
)
# Below the ports that a kernel gives to connections going out: one of those can take a port of
# theirs before the server it was chosen for listens there.
_OFFERED = range(11_000, 32_000)
# What the simulator is told; it checks their presence as the provider does, not their value.
SIMULATED_CLIENT_ID = "1000000001"
SIMULATED_TOKEN = "simulated"  # noqa: S105 - no credential: it opens nothing


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings every process shares, and what to start beside the engines, in order."""

    settings: Settings
    gateway_url: str
    launches: tuple[Launch, ...]
    metrics_ports: dict[str, int]
    moved: tuple[str, ...]  # says of each usual port that was taken


class Ports:
    """Hands out ports of this machine, the usual ones where they are free, none twice."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self.moved: list[str] = []

    def usual(self, name: str, port: int, host: str = LOOPBACK) -> int:
        """The usual port of `name`, or a free one where it is taken."""
        if port and port not in self._given and is_free(host, port):
            self._given.add(port)
            return port
        other = self.free(host)
        if port:
            self.moved.append(f"port {port} is taken: {name} is on {other}")
        return other

    def free(self, host: str = LOOPBACK) -> int:
        """A port that nobody listens on now, and that no connection of this machine will take."""
        while True:
            port = random.choice(_OFFERED)
            if port not in self._given and is_free(host, port):
                self._given.add(port)
                return port


def check_provider(settings: Settings) -> None:
    """Raises ConfigError where the settings lack what the real provider asks for."""
    missing = []
    if not settings.dhan_client_id:
        missing.append("STOCKIFY_DHAN_CLIENT_ID")
    if not settings.dhan_access_token and not settings.dhan_token_file:
        missing.append("STOCKIFY_DHAN_ACCESS_TOKEN (or STOCKIFY_DHAN_TOKEN_FILE)")
    if missing:
        raise ConfigError(f"--no-sim uses the real provider, which needs {' and '.join(missing)}")


def make(
    settings: Settings,
    secrets: Secrets,
    ports: Ports,
    *,
    redis_url: str,
    database_url: str,
    simulated: bool,
) -> Plan:
    """The plan of an instance whose engines have these addresses."""
    shared = msgspec.structs.replace(
        settings,
        # Children run in another directory, so a relative path must be settled here.
        state_dir=str(settings.state_path()),
        dhan_token_file=_absolute(settings.dhan_token_file),
        jwt_jwks=settings.jwt_jwks if "://" in settings.jwt_jwks else _absolute(settings.jwt_jwks),
        clock=Clock(settings.clock).anchored(),
        redis_url=redis_url,
        database_url=database_url,
        # Where the user gives secrets, what the generated one signed shall not hold.
        jwt_secret=settings.jwt_secret or ("" if settings.jwt_secrets else secrets.jwt_secret),
        gateway_port=ports.usual("the gateway", settings.gateway_port, settings.gateway_host),
    )
    if simulated:
        shared = _with_simulator(shared, ports)
    names = [name for name in MODULES if simulated or name != "simulator"]
    metrics_ports = {name: ports.free(settings.metrics_host) for name in names}
    return Plan(
        settings=shared,
        gateway_url=f"http://{_reachable(shared.gateway_host)}:{shared.gateway_port}",
        launches=tuple(launch(name, shared, metrics_ports[name]) for name in names),
        metrics_ports=metrics_ports,
        moved=tuple(ports.moved),
    )


def launch(name: str, settings: Settings, metrics_port: int = 0) -> Launch:
    """How to start a built-in process. Of secrets it is given those that it needs."""
    foreign = {
        secret: _NOTHING[secret] for secret, users in _USERS_OF_SECRETS.items() if name not in users
    }
    own = msgspec.structs.replace(settings, metrics_port=metrics_port, **foreign)
    return Launch(
        name=name,
        argv=(sys.executable, "-m", MODULES[name]),
        env=environment(own, name),
        cwd=Path("/"),
    )


def environment(settings: Settings, role: str) -> dict[str, str]:
    """The environment of a process in that role: settings, and where its kernels are kept."""
    return config.environment(settings) | {
        "NUMBA_CACHE_DIR": str(kernel_cache(role)),
        # One process, one thread of arithmetic: the processes share the cores, and a pool of
        # idle BLAS threads in each costs memory for nothing.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def kernel_cache(role: str) -> Path:
    """Where that role's compiled kernels are kept: one directory each, shared by instances."""
    return config.cache_path() / f"numba-{role}"


def _with_simulator(settings: Settings, ports: Ports) -> Settings:
    port = ports.usual("the simulator", settings.simulator_port, settings.simulator_host)
    return msgspec.structs.replace(
        settings,
        simulator_port=port,
        provider="simulator",
        dhan_base_url=f"http://{_reachable(settings.simulator_host)}:{port}/v2",
        dhan_client_id=SIMULATED_CLIENT_ID,
        dhan_access_token=SIMULATED_TOKEN,
        dhan_token_file="",
        chain_budget=settings.simulator_chain_limit,
        poll_closed_market=True,
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _reachable(host: str) -> str:
    """An address to connect to where `host` is one to bind."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - what the user chose to bind
        return LOOPBACK
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(_family(host)) as probe:
        # As servers do: a connection that lingers in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
