"""The simulator's process: `python -m workers.simulator`.

Reads settings, takes its port, serves until SIGTERM or SIGINT, exits 0; with a port that is taken
it says so in one line and exits 1. It needs neither Redis nor Postgres.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop

from pipeline import config
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.telemetry import Telemetry
from workers.simulator.app import Exchange, make_app
from workers.simulator.limits import Limits
from workers.simulator.market import Market

_BACKLOG = 128
_KEEP_ALIVE_S = 75
_GRACE_S = 2  # for answers under way when the process is told to stop


class _Server(uvicorn.Server):
    """A server that says when it is ready and leaves signals to this file."""

    def __init__(self, settings: uvicorn.Config, telemetry: Telemetry) -> None:
        super().__init__(settings)
        self._telemetry = telemetry

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._telemetry.set_state("ready")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> int:
    """Serve; gives the exit status."""
    try:
        settings = config.load()
        clock = Clock(settings.clock)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    telemetry = Telemetry("simulator", settings)
    try:
        listening = _listen(settings.simulator_host, settings.simulator_port)
    except OSError as error:
        address = f"{settings.simulator_host}:{settings.simulator_port}"
        telemetry.log.error("cannot_listen", address=address, error=error.strerror)
        telemetry.close()
        return 1
    parts = Exchange(
        Market(settings.simulator_seed),
        clock,
        Limits(is_chain_limit_for_account=settings.simulator_chain_limit == "account"),
        telemetry.counter("requests", "requests to the data endpoints"),
        settings.dhan_access_token,
    )
    host, port = listening.getsockname()[:2]
    telemetry.gauge("port", "the port it listens on", lambda: port)
    telemetry.log.info(
        "listening",
        url=f"http://{host}:{port}/v2",
        metrics_port=telemetry.metrics_port,
        seed=settings.simulator_seed,
    )
    try:
        uvloop.run(_serve(parts, telemetry, listening))
    finally:
        listening.close()
        telemetry.close()
    return 0


async def _serve(parts: Exchange, telemetry: Telemetry, listening: socket.socket) -> None:
    server = _Server(
        uvicorn.Config(
            make_app(parts, lambda: telemetry.state),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,  # the answers carry the market's own date
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        ),
        telemetry,
    )

    def stop() -> None:
        telemetry.set_state("draining")
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError."""
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


if __name__ == "__main__":
    sys.exit(main())
