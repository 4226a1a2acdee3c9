"""A Valkey Cluster on this machine: primaries, a replica of each, and a way to hurt them.

For benches and tests: real servers of the wheel with real elections, in one directory, behind one
password. It stops and kills only what it started.
"""

import contextlib
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from stockify.engines import valkey
from stockify.instance import write_private
from stockify.plan import Ports

SLOTS = 16_384
START_S = 30.0
STOP_S = 15.0
POLL_S = 0.02
# A node is taken for dead after so long without an answer; its replica is elected within as much.
NODE_TIMEOUT_MS = 2_000
_SETTINGS = (
    ("cluster-enabled", "yes"),
    ("cluster-node-timeout", str(NODE_TIMEOUT_MS)),
    # The shards of the other nodes go on while one is failed over.
    ("cluster-require-full-coverage", "no"),
    # A replica that was cut off for long is better than nobody; what it missed is appended again.
    ("cluster-replica-validity-factor", "0"),
    ("repl-diskless-sync-delay", "0"),
)


@dataclass
class Node:
    """One server process of a cluster; it keeps its port and its data through a restart."""

    number: int
    directory: Path
    port: int
    bus_port: int
    password: str
    process: subprocess.Popen[bytes] | None = None
    _client: "redis.Redis | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def client(self) -> "redis.Redis":
        """A client of this node alone; it does not retry."""
        if self._client is None:
            self._client = redis.Redis.from_url(
                self.url, socket_timeout=5.0, decode_responses=True, retry=None
            )
        return self._client

    def start(self) -> None:
        """Start the process on what it has; `until_up` says when it answers."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / "valkey.conf"
        lines = [f"{name} {value}" for name, value in (*valkey.SETTINGS, *_SETTINGS)]
        lines += [
            *(f"port {self.port}", f"cluster-port {self.bus_port}", f"dir {self.directory}"),
            *(f"requirepass {self.password}", f"masterauth {self.password}"),
        ]
        write_private(path, ("\n".join(lines) + "\n").encode())
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                (str(valkey.binary()), str(path)), stdout=log, stderr=log, cwd=self.directory
            )

    def is_up(self) -> bool:
        """Whether it answers and has read its data."""
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it with SIGKILL: what it did not send or write is gone."""
        if self.process is not None:
            self.process.kill()
        self._gone()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self.process is not None:
            self.process.terminate()
        self._gone()

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP and SIGCONT make it stall."""
        if self.process is not None:
            self.process.send_signal(number)

    def command(self, *words: str | int) -> Any:
        """The answer to a command of this node."""
        execute: Any = self.client.execute_command  # redis-py leaves it untyped
        return execute(*words)

    def state(self) -> dict[str, str]:
        """What it says of the cluster."""
        answer = self.command("CLUSTER INFO")
        if isinstance(answer, dict):
            return {str(name): str(value) for name, value in answer.items()}
        return dict(line.split(":", 1) for line in str(answer).split() if ":" in line)

    def _gone(self) -> None:
        if self.process is not None:
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if self._client is not None:
            self._client.close()
            self._client = None


class ValkeyCluster:
    """As many primaries as asked for, each with a replica."""

    def __init__(self, directory: Path, primaries: int = 3) -> None:
        ports, password = Ports(), secrets.token_urlsafe(24)
        self.nodes = [
            Node(number, directory / f"node-{number}", ports.free(), ports.free(), password)
            for number in range(2 * primaries)
        ]
        self._count = primaries

    @property
    def urls(self) -> str:
        """The addresses of all nodes, with commas between, as the setting wants them."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        """Start every node and join them. Raises TimeoutError where they do not come up."""
        for node in self.nodes:
            node.start()
        until(lambda: all(node.is_up() for node in self.nodes), "the nodes did not answer")
        firsts, seconds = self.nodes[: self._count], self.nodes[self._count :]
        for number, node in enumerate(firsts):
            low, high = (SLOTS * n // self._count for n in (number, number + 1))
            node.command("CLUSTER ADDSLOTSRANGE", low, high - 1)
            node.command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER MEET", "127.0.0.1", node.port, node.bus_port)
        wanted = str(len(self.nodes))
        until(
            lambda: all(each.state()["cluster_known_nodes"] == wanted for each in self.nodes),
            "the nodes did not meet",
        )
        for primary, replica in zip(firsts, seconds, strict=True):
            name = primary.command("CLUSTER MYID")
            until(partial(_follows, replica, name), "no replica came about")
        until(self.is_well, "the cluster did not become well")

    def stop(self) -> None:
        """End every node that still runs: all are told before any is waited for."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)  # a stalled one could not leave
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop()

    def primaries(self) -> list[Node]:
        """The nodes that own slots now, as those that answer say."""
        return [node for node in self.nodes if node.process and _role(node) == "master"]

    def owner_of(self, key: str) -> Node:
        """The node that owns a key now. Raises LookupError while nobody does."""
        slot = key_slot(key.encode())
        for asked in self.nodes:
            if not asked.process:
                continue
            for first, last, (_, port, *_), *_ in asked.command("CLUSTER SLOTS"):
                if int(first) <= slot <= int(last):
                    return next(node for node in self.nodes if node.port == int(port))
        raise LookupError(f"nobody owns {key}")

    def is_well(self) -> bool:
        """Whether every node that runs finds all slots served and every replica is in step."""
        return all(_is_well(node) for node in self.nodes if node.process)


@contextlib.contextmanager
def running(directory: Path, primaries: int = 3) -> Iterator[ValkeyCluster]:
    """A cluster; stopped afterwards."""
    cluster = ValkeyCluster(directory, primaries)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def until(holds: Callable[[], bool], complaint: str, wait_s: float = START_S) -> None:
    """Wait until it holds. Raises TimeoutError with the complaint."""
    deadline = time.monotonic() + wait_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(POLL_S)


def _follows(replica: Node, primary: str) -> bool:
    with contextlib.suppress(RedisError):  # refused until it has heard of the primary's slots
        replica.command("CLUSTER REPLICATE", primary)
        return True
    return False


def _role(node: Node) -> str:
    try:
        return str(node.command("ROLE")[0])
    except RedisError:
        return ""


def _is_well(node: Node) -> bool:
    try:
        state, role = node.state(), node.command("ROLE")
        slots = node.command("CLUSTER SLOTS")
    except RedisError:
        return False
    if any(len(nodes) < 2 for _, _, *nodes in slots):
        return False  # it has not heard of every replica
    if state["cluster_state"] != "ok" or state["cluster_slots_ok"] != str(SLOTS):
        return False
    return bool(role[0] == "master" or role[3] == "connected")
