"""The gateway's process: REST, WebSocket and the page on one port. Holds no data of its own."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from api.access import following
from api.access.auth import Verifier
from api.access.keys import Keyring, key_set_of
from api.access.limiting import Limiter
from api.access.revoked import Revoked
from api.app import create_app
from api.gateway import Gateway, Limits
from api.heads import Protocol
from api.health import readiness
from api.live.hub import Hub
from api.live.patterns import Patterns
from api.live.protocol import Protocol as SocketProtocol
from api.live.session import RESTART, Closing, end_session
from api.live.sources import Sources
from api.rest.exports import EXPORTS_AT_ONCE
from pipeline.credentials import signing_secrets
from pipeline.database import Database
from pipeline.errors import ConfigError
from pipeline.keys import ApiKeys, Tickets
from pipeline.known import KnownChains
from pipeline.latest import Latest
from pipeline.live import Live
from pipeline.replay import Replay
from pipeline.revocations import Revocations
from pipeline.runtime import Context, cancel, connect, heartbeats, pause, run
from pipeline.schemas import Registry
from pipeline.streams.dead_letters import DeadLetters
from pipeline.streams.links import Link
from pipeline.streams.overview import Overview
from pipeline.watch import Watch

DRAIN_S = 8  # requests in flight; with the sessions' goodbye below ten seconds in all
GOODBYE_S = 1.0
REPORT_S = 2.0
KEEP_ALIVE_S = 30
UNREAD_S = 60.0  # above what streams and sockets give a client that reads nothing
DEFAULT_LIMITS = Limits()


class Server(uvicorn.Server):
    """uvicorn without signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def serve(context: Context, limits: Limits = DEFAULT_LIMITS) -> None:
    """Serve until asked to stop; then close sessions with 1012 and let requests finish.

    Raises ConfigError without any key for tokens, OSError where the port is taken.
    """
    settings = context.settings
    revocations = Revocations(context.redis)
    tickets = Tickets(context.redis)
    verifier = _verifier(context, revocations, tickets)
    telemetry = context.telemetry
    latest = Latest(context.redis, context.topics)
    parts = (context.topics.catalog(shard) for shard in range(context.topics.shards))
    links = [Link(settings, part, "gateway-known") for part in parts]
    known_chains = KnownChains(latest, context.topics, links)
    watcher = connect(settings, retries=0, name="gateway-watch")
    once = connect(settings, retries=0, name="gateway-once")  # calls that must not count twice
    database = _reading(settings.database_url, limits)
    replica = _reading(settings.database_read_url, limits)
    exported = _exported(settings.database_read_url or settings.database_url, limits)
    hub = Hub(
        latest,
        Watch(watcher, context.topics),
        Live(watcher, context.topics),
        Replay(context.redis, context.topics),
        telemetry.log,
    )
    gateway = Gateway(
        settings=settings,
        clock=context.clock,
        telemetry=telemetry,
        latest=latest,
        known_chains=known_chains,
        registry=Registry(context.redis),
        database=database,
        verifier=verifier,
        limiter=Limiter(settings, once, context.topics),
        dead_letters=DeadLetters(once, settings, context.topics),
        overview=Overview(once, context.topics, settings.keep_bytes),
        api_keys=ApiKeys(context.redis),
        tickets=tickets,
        revocations=revocations,
        hub=hub,
        sources=Sources(
            hub,
            latest,
            Live(watcher, context.topics),
            replica or database,
            context.clock,
            telemetry.log,
        ),
        patterns=Patterns(latest.catalog, telemetry.log),
        requests=telemetry.counter("requests", "requests and socket handshakes"),
        messages_sent=telemetry.counter("messages_sent", "messages sent on sockets"),
        heartbeats=partial(heartbeats, context.redis),
        replica=replica,
        exported=exported,
        limits=limits,
    )
    _tell_of(gateway)
    try:
        async with contextlib.AsyncExitStack() as stack:
            for server in filter(None, (database, replica, exported)):
                stack.push_async_callback(server.close)
                await server.open()
            await following.refresh(verifier)
            await _until_stopped(context, gateway)
    finally:
        await gateway.limiter.close()
        await known_chains.close()
        await watcher.aclose()
        await once.aclose()


def _reading(url: str, limits: Limits) -> Database | None:
    """Where answers are read from: one that is slow is given up, so that others are answered."""
    if not url:
        return None
    return Database(url, session_s=limits.reading_s, statement_s=limits.statement_s)


def _exported(url: str, limits: Limits) -> Database | None:
    """Connections of exports, which last, so that they take none from other answers."""
    if not url:
        return None
    return Database(
        url,
        max_size=EXPORTS_AT_ONCE,
        session_s=limits.export_s,
        statement_s=limits.export_s,
        silent_s=limits.silent_s,
    )


def _tell_of(gateway: Gateway) -> None:
    telemetry = gateway.telemetry
    telemetry.gauge(
        "limits_local",
        "whether limits are kept by this process alone, Redis being away",
        lambda: float(gateway.limiter.allowance.is_local),
    )
    telemetry.gauge("clients", "open socket sessions", lambda: len(gateway.sessions))


def _verifier(context: Context, revocations: Revocations, tickets: Tickets) -> Verifier:
    settings = context.settings
    secrets = signing_secrets(settings)
    key_set = key_set_of(settings.jwt_jwks, settings.jwt_issuer, context.telemetry.log.info)
    if not secrets and key_set is None:
        raise ConfigError(
            "neither STOCKIFY_JWT_SECRET, STOCKIFY_JWT_SECRETS nor STOCKIFY_JWT_JWKS is set:"
            " nobody could be let in"
        )
    return Verifier(
        Keyring(secrets, key_set),
        audience=settings.jwt_audience,
        revoked=Revoked(revocations, settings.revocation_grace_s),
        tickets=tickets,
    )


async def _until_stopped(context: Context, gateway: Gateway) -> None:
    settings = context.settings
    with _listening(settings.gateway_host, settings.gateway_port) as listener:
        server = Server(_config(gateway))
        gc.collect()
        gc.freeze()  # a look through all that was made up to here would hold the loop for long
        serving = asyncio.create_task(server.serve([listener]))
        hub = asyncio.create_task(gateway.hub.run())
        sources = asyncio.create_task(gateway.sources.run(partial(readiness, gateway)))
        patterns = asyncio.create_task(gateway.patterns.run())
        reporting = asyncio.create_task(_report(gateway))
        counting = asyncio.create_task(gateway.limiter.sessions.run())
        access = asyncio.create_task(following.follow(gateway.verifier, gateway.telemetry.log))
        stop = asyncio.create_task(context.stopping.wait())
        host, port = listener.getsockname()[:2]
        context.telemetry.log.info("listening", host=host, port=port)
        tasks: tuple[asyncio.Task[Any], ...] = (
            *(serving, hub, sources, patterns),
            *(reporting, access, counting, stop),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            context.telemetry.set_state("draining")
            await _say_goodbye(gateway)
            server.should_exit = True
            await serving
            for task in (hub, sources, patterns, reporting, access, counting):
                if task.done():
                    await task  # neither ends by itself: raises what went wrong
        finally:
            await cancel(*tasks)


async def _say_goodbye(gateway: Gateway) -> None:
    """Close every session, and give the close frames a moment to leave."""
    for end in gateway.sessions.values():
        end_session(end, Closing(RESTART, "the gateway restarts"))
    if gateway.sessions:
        await asyncio.wait(list(gateway.sessions), timeout=GOODBYE_S)


async def _report(gateway: Gateway) -> None:
    """Keep the process's state at what readiness says."""
    never = asyncio.Event()
    while True:
        report = await readiness(gateway)
        state = "ready" if report["status"] == "ready" else "degraded"
        gateway.telemetry.set_state(state, "; ".join(report["reasons"]))
        await pause(never, REPORT_S)


def _config(gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(gateway),
        http=Protocol,
        ws=SocketProtocol,
        ws_max_size=gateway.limits.message_bytes,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2_048) as listener:
        # Inherited by every connection; a loop that is handed a socket may leave it to us, and
        # then each answer waits 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of what was written for a client that reads none of it the kernel gives up; a server
            # that has written all of it would wait for ever.
            unread_ms = round(UNREAD_S * 1_000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
        yield listener


def main() -> None:
    """Run the gateway."""
    run("gateway", serve, needs_redis=False)  # without Redis it says so in /readyz


if __name__ == "__main__":
    main()
