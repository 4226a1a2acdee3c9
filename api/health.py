"""Whether the gateway lives, and whether it is of use: what is away, how old the newest data is."""

import asyncio
from typing import Any

import msgspec
from litestar import MediaType, Response, get

from api.gateway import Gateway, gateway_of
from api.rest.answers import AnyRequest
from pipeline.clock import SECOND_NS, to_rfc3339
from pipeline.database import Database
from pipeline.errors import DecodeError, StockifyError
from pipeline.runtime import Heartbeat

CHECK_S = 2.0  # a part that has not answered by then is called away
REASON_LENGTH = 160


@get("/healthz", opt={"is_open": True, "is_unlimited": True})
async def healthz() -> Response[bytes]:
    """The process lives; says nothing of what it depends on."""
    body = msgspec.json.encode({"status": "alive"})
    return Response(body, media_type=MediaType.JSON, headers={"Cache-Control": "no-store"})


@get("/readyz", opt={"is_open": True, "cost": 5})
async def readyz(request: AnyRequest) -> Response[bytes]:
    """Whether Redis and Postgres answer, how the workers are, and the age of the newest data; 503
    when not ready."""
    report = await readiness(gateway_of(request))
    return Response(
        msgspec.json.encode(report),
        status_code=200 if report["status"] != "not_ready" else 503,
        media_type=MediaType.JSON,
        headers={"Cache-Control": "no-store"},
    )


async def readiness(gateway: Gateway) -> dict[str, Any]:
    """`ready`, `degraded` (of use, but something is wrong) or `not_ready`, each with `reasons`."""
    redis, database, replica, workers = await asyncio.gather(
        _redis(gateway), _database(gateway.database), _replica(gateway.replica), _workers(gateway)
    )
    needed = (redis, replica or database)
    away = [part["reason"] for part in needed if not part["is_up"]]
    notes = []
    if replica is not None and gateway.database is not None and not database["is_up"]:
        notes.append(database["reason"])
    if redis["is_up"]:
        if gateway.hub.is_notifying is not True:
            notes.append("Redis does not tell of changes (notify-keyspace-events wants K and $)")
        if not gateway.hub.is_connected:
            notes.append("the subscription to Redis is being restored")
    key_set = gateway.verifier.keyring.key_set
    if key_set is not None and key_set.trouble:
        notes.append(key_set.trouble)
    notes += [
        f"{worker.service} is degraded: {worker.reason[:REASON_LENGTH]}"
        for worker in workers
        if worker.state == "degraded"
    ]
    data = redis.pop("data", {})
    if not data:
        notes.append("no data yet")
    status = "not_ready" if away else "degraded" if notes else "ready"
    checks = {
        "redis": redis,
        "database": database,
        **({} if replica is None else {"replica": replica}),
        "notifications": {
            "is_up": gateway.hub.is_notifying is True,
            "is_subscribed": gateway.hub.is_connected,
        },
        "workers": [{"service": worker.service, "state": worker.state} for worker in workers],
    }
    return {"status": status, "reasons": away + notes, "checks": checks, "data": data}


async def _redis(gateway: Gateway) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_S):
            catalog = await gateway.latest.catalog()
    except (StockifyError, TimeoutError) as error:
        if isinstance(error, DecodeError):
            return {"is_up": True, "reason": str(error), "data": {}}
        return {"is_up": False, "reason": "Redis does not answer"}
    now_ns = gateway.clock.now_ns()
    newest: dict[str, int] = {}
    for card in catalog.chains.values():
        newest[card.underlying] = max(card.ts_ingest, newest.get(card.underlying, 0))
    data = {
        name: {"ts_ingest": to_rfc3339(ts), "age_s": round((now_ns - ts) / SECOND_NS, 3)}
        for name, ts in sorted(newest.items())
    }
    return {"is_up": True, "data": data}


async def _workers(gateway: Gateway) -> list[Heartbeat]:
    """What the other processes say of themselves; none where Redis does not tell."""
    try:
        async with asyncio.timeout(CHECK_S):
            found = await gateway.heartbeats()
    except (StockifyError, TimeoutError):
        return []
    return [one for one in found if one.service != "gateway"]


async def _database(database: Database | None) -> dict[str, Any]:
    if database is None:
        return {"is_up": False, "reason": "no database is configured"}
    try:
        async with asyncio.timeout(CHECK_S):
            await database.ping()
    except (StockifyError, TimeoutError):
        return {"is_up": False, "reason": "Postgres does not answer"}
    return {"is_up": True}


async def _replica(replica: Database | None) -> dict[str, Any] | None:
    """Whether the replica answers and how far it is behind; None where there is none."""
    if replica is None:
        return None
    try:
        async with asyncio.timeout(CHECK_S):
            (standing,) = await replica.fetch("replica_standing")
    except (StockifyError, TimeoutError):
        return {"is_up": False, "reason": "the replica that history is read from does not answer"}
    return {"is_up": True, **standing}
