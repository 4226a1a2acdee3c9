"""What operators do: dead letters looked at, sent back or removed, and how the pipeline stands.

Every call is logged with who made it; who that is comes from the token, which is never logged.
"""

import base64
import re
from typing import Any

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath

from api import health
from api.access.auth import principal_of
from api.errors import ApiError, not_found
from api.gateway import gateway_of
from api.rest.answers import AnyRequest, answer, with_instants
from api.rest.pages import Instant, Name, cursor_at, keyed_place, page_parameters
from api.rest.query import Query, flag, text, times
from api.rest.query import instant as instant_parameter
from pipeline.runtime import Heartbeat
from pipeline.streams.dead_letters import Position, id_of
from pipeline.streams.letters import Filter, Letter
from pipeline.streams.overview import plain

_ID = re.compile(r"(?:\d{1,5}:)?\d{1,19}-\d{1,19}", re.ASCII)
_NAME = 128  # symbols, groups and streams are far shorter

_LETTERS = Query(
    text("stream", "only from that stream, `raw` or `stream:raw:{0}`", at_most=_NAME),
    text("reason", "only with that reason: `undecodable`, `attempts`, …", at_most=_NAME),
    text("key", "only of that symbol, and what belongs to it", at_most=_NAME),
    text("group", "only what that group set aside", at_most=_NAME),
    instant_parameter("since", "only what was set aside since then"),
    *page_parameters(is_ordered=False),
)
_LETTER = Query(times())
_NONE = Query()
_PIPELINE = Query(flag("all", "every stream there is, not only our own; goes over every key"))


@get("/admin/dead-letters", opt={"scope": "admin", "query": _LETTERS, "cost": 5})
async def dead_letters(request: AnyRequest) -> Response[bytes]:
    """Entries that were set aside, newest first, without their payload.

    A page may have fewer than `limit`, and a `next`, where many were looked at that are not meant.
    """
    query = _LETTERS.parse(request.query_params.multi_items())
    after = keyed_place(request, query, Instant, Instant, Name)
    wanted = Filter(
        reason=query["reason"] or "",
        key=query["key"] or "",
        group=query["group"] or "",
        since=query["since"] or 0,
    )
    found = await gateway_of(request).dead_letters.page(
        wanted,
        query["limit"],
        stream=query["stream"] or "",
        after=None if after is None else Position(*after),
    )
    _log(request, "list", letters=len(found.letters))
    following = None if found.following is None else cursor_at(request, *found.following)
    data = [_told(letter, query["ts"]) for letter in found.letters]
    return answer(request, data, {"rows": len(data)}, following=following)


@get("/admin/dead-letters/{letter_id:str}", opt={"scope": "admin", "query": _LETTER})
async def dead_letter(request: AnyRequest, letter_id: FromPath[str]) -> Response[bytes]:
    """One letter with its payload: `data` in base64 as it was stored, `enc` says whether it is
    compressed, `meta` the context of the request that brought it."""
    query = _LETTER.parse(request.query_params.multi_items())
    letter = await _found(request, letter_id)
    fields = await gateway_of(request).dead_letters.fields(letter)
    if fields is None:
        raise not_found("letter", letter_id)
    _log(request, "look", letter)
    payload = {
        "enc": fields.get(b"enc", b"").decode("utf-8", "replace"),
        "meta": _meta(fields.get(b"meta", b"")),
        "data": base64.b64encode(fields.get(b"data", b"")).decode(),
    }
    return answer(request, _told(letter, query["ts"]) | payload, {})


@post(
    "/admin/dead-letters/{letter_id:str}/redrive",
    status_code=200,
    opt={"scope": "admin", "query": _NONE},
)
async def redrive(request: AnyRequest, letter_id: FromPath[str]) -> Response[bytes]:
    """Send a letter back to the stream it came from, exactly once, as a new entry.

    It keeps its message id, and every group of that stream is given it. Said again it is a 404.
    """
    _NONE.parse(request.query_params.multi_items())
    letter = await _found(request, letter_id)
    if not letter.stream:
        raise ApiError(409, "no_source", "the letter does not say where it came from")
    sent = await gateway_of(request).dead_letters.redrive(letter)
    if sent is None:
        raise not_found("letter", letter_id)
    stream, place = sent
    _log(request, "redrive", letter)
    data = {
        "id": letter_id,
        "message_id": letter.id,
        "stream": stream,
        "stream_id": place.stream_id,
        "seq": place.seq,
        "epoch": place.epoch,
    }
    return answer(request, data, {})


@delete(
    "/admin/dead-letters/{letter_id:str}",
    status_code=200,
    opt={"scope": "admin", "query": _NONE},
)
async def drop(request: AnyRequest, letter_id: FromPath[str]) -> Response[bytes]:
    """Remove a letter for good; the audit goes on counting it as a dead letter."""
    _NONE.parse(request.query_params.multi_items())
    letter = await _found(request, letter_id)
    if not await gateway_of(request).dead_letters.drop(letter):
        raise not_found("letter", letter_id)
    _log(request, "drop", letter)
    return answer(request, {"id": letter_id, "message_id": letter.id}, {})


@get("/ops/pipeline", opt={"scope": "admin", "query": _PIPELINE, "cost": 20})
async def pipeline(request: AnyRequest) -> Response[bytes]:
    """How the pipeline stands: streams, groups with lag and pending entries, headroom of streams
    and servers, the workers' heartbeats, and what `/readyz` says."""
    query = _PIPELINE.parse(request.query_params.multi_items())
    gateway = gateway_of(request)
    view = plain(await gateway.overview.look(everything=query["all"]))
    workers = await gateway.heartbeats()
    data = view | {
        "workers": [_worker(one) for one in workers],
        "readiness": await health.readiness(gateway),
        "gateway": {
            "sessions": len(gateway.sessions),
            "limits_local": gateway.limiter.allowance.is_local,
        },
    }
    _log(request, "pipeline")
    return answer(request, data, {})


async def _found(request: AnyRequest, letter_id: str) -> Letter:
    letter = None
    if _ID.fullmatch(letter_id) is not None:
        letter = await gateway_of(request).dead_letters.find(letter_id)
    if letter is None:
        raise not_found("letter", letter_id)
    return letter


def _told(letter: Letter, form: str) -> dict[str, Any]:
    values = {
        "id": id_of(letter),
        "message_id": letter.id,
        "type": letter.type,
        "key": letter.key,
        "stream": letter.stream,
        "stream_id": letter.source_id,
        "group": letter.group,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "size": letter.size,
        "ts_ingest": letter.ts or None,
        "ts_dead": letter.at or None,
    }
    return with_instants(values, form)


def _meta(packed: bytes) -> Any:
    """Request context as JSON can hold it; None where there is none, or it cannot be read."""
    try:
        values = msgspec.msgpack.decode(packed) if packed else None
        return msgspec.to_builtins(values, str_keys=True)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None


def _worker(one: Heartbeat) -> dict[str, Any]:
    return msgspec.structs.asdict(one)


def _log(request: AnyRequest, action: str, letter: Letter | None = None, **more: Any) -> None:
    """One line that says who did what."""
    who = principal_of(request)
    told = {"letter": id_of(letter), "message_id": letter.id} if letter else {}
    gateway_of(request).telemetry.log.info(
        "admin",
        action=action,
        subject=who.subject,
        token_id=who.token_id,
        address=request.scope["state"]["address"],
        request_id=request.scope["state"]["request_id"],
        **told,
        **more,
    )


routes = [dead_letters, dead_letter, redrive, drop, pipeline]
