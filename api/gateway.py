"""What every part of the gateway shares, made once by the composition root."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from litestar.connection import ASGIConnection

from api.access.auth import Verifier
from api.access.limiting import Limiter
from api.live.backlog import BACKLOG_BYTES
from api.live.hub import Hub
from api.live.patterns import Patterns
from api.live.sources import Sources
from api.rest.kept import KeptAnswers
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.database import Database
from pipeline.errors import StoreUnavailable
from pipeline.keys import ApiKeys, Tickets
from pipeline.known import KnownChains
from pipeline.latest import Latest
from pipeline.revocations import Revocations
from pipeline.runtime import Heartbeat
from pipeline.schemas import Registry
from pipeline.streams.dead_letters import DeadLetters
from pipeline.streams.overview import Overview
from pipeline.telemetry import Counter, Telemetry


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a client may use, each with its reason in `docs/api.md`."""

    channels: int = 1_000
    operations_per_s: float = 10.0
    operations_burst: int = 20
    message_bytes: int = 64 * 1024
    authenticate_s: float = 10.0
    heartbeat_s: float = 15.0
    stalled_s: float = 30.0
    backlog_bytes: int = BACKLOG_BYTES
    statement_s: float = 10.0  # that the database works at one of the questions behind an answer
    reading_s: float = 20.0  # that all of them take together, however silent the database is
    silent_s: float = 120.0  # that the database gives an export nothing
    export_s: float = 3_600.0  # that an export keeps its connection, and one state of the database


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's parts; handlers find it as `app.state.gateway`.

    History is read from `replica` where there is one, and then from it alone; what `exported` has
    is read through connections of their own.
    """

    settings: Settings
    clock: Clock
    telemetry: Telemetry
    latest: Latest
    known_chains: KnownChains
    registry: Registry
    database: Database | None
    verifier: Verifier
    limiter: Limiter
    dead_letters: DeadLetters
    overview: Overview
    api_keys: ApiKeys
    tickets: Tickets
    revocations: Revocations
    hub: Hub
    sources: Sources
    patterns: Patterns
    requests: Counter
    messages_sent: Counter
    heartbeats: Callable[[], Awaitable[list[Heartbeat]]]
    replica: Database | None = None
    exported: Database | None = None
    limits: Limits = field(default_factory=Limits)
    kept_answers: KeptAnswers = field(default_factory=KeptAnswers)
    # A mark of each export that is under way.
    exports: set[object] = field(default_factory=set)
    # The task of each open socket session, and the future that ends it.
    sessions: "dict[asyncio.Task[Any], asyncio.Future[Any]]" = field(default_factory=dict)


def gateway_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Gateway:
    """The gateway that serves a request or a socket."""
    gateway: Gateway = connection.app.state.gateway
    return gateway


def database_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Database:
    """The database that history is read from. Raises StoreUnavailable where none is configured."""
    gateway = gateway_of(connection)
    database = gateway.replica or gateway.database
    if database is None:
        raise StoreUnavailable("no database is configured")
    return database
