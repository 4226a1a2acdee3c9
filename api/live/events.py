"""`/v1/stream`: a session over server-sent events, the messages of the socket one way.

One event a flush, its data the array of messages; its id says from where to go on. A heartbeat is
a comment. Everything but the form is the session's.
"""

import asyncio
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.response.streaming import ASGIStreamingResponse

from api.access.auth import principal_of
from api.errors import ApiError
from api.gateway import Gateway, gateway_of
from api.heads import CONNECTION
from api.live.channels import Refused
from api.live.messages import join_frame
from api.live.operations import INTERVALS, Subscribe
from api.live.places import ID_BYTES, Places, decode_places
from api.live.session import (
    RESTART,
    TOO_MANY_CHANNELS,
    TOO_MANY_SESSIONS,
    UNAUTHENTICATED,
    Closing,
    Session,
)
from api.live.wire import Close
from api.rest.query import Parameter, Query, choice, flag, listed, required, text
from pipeline.frames import ROW_FIELDS
from pipeline.runtime import cancel

RETRY_MS = 2_000  # a gateway that is restarted is back within about that
GOODBYE_S = 1.0  # what a client that reads nothing has left, before it is cut
COST = 5
MOST_CHANNELS = 1_000
MEDIA_TYPE = "text/event-stream"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

QUERY = Query(
    required(listed("channels", "channels, comma-separated", at_most=MOST_CHANNELS)),
    choice(
        "interval_ms",
        "at most one update a channel in so many ms; 0 is every update",
        *map(str, INTERVALS),
        default="250",
    ),
    listed("fields", "fields of rows", at_most=len(ROW_FIELDS), known=ROW_FIELDS),
    choice(
        "slow",
        "what becomes of updates for which there is no room",
        *("conflate", "skip", "disconnect"),
        default="conflate",
    ),
    flag("delta", "rows of updates with their key and what changed alone"),
    Parameter(
        "last_event_id",
        "the id of the last event, where the header `Last-Event-ID` cannot be sent",
        {"type": "string", "maxLength": ID_BYTES},
        decode_places,
    ),
    text("ticket", "a stream ticket, in place of a token", at_most=200),
    is_bare=True,
)


@get(
    "/stream",
    opt={
        "scope": "live",
        "query": QUERY,
        "cost": COST,
        "takes_ticket": True,
        "media_type": MEDIA_TYPE,
    },
)
async def stream(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Channels of the live feed as server-sent events.

    The data of an event is an array of the messages that a socket would get: `hello`, the `ack` of
    the subscription, snapshots and updates; an event `close` says with which code it ends. The id
    of the last event, sent back in `Last-Event-ID`, resumes.
    """
    query = QUERY.parse(request.query_params.multi_items())
    wanted = Subscribe(
        channels=list(query["channels"]),
        interval_ms=int(query["interval_ms"]),  # type: ignore[arg-type]
        fields=list(query["fields"] or ()),
        slow=query["slow"],
        since=_since(request) or query["last_event_id"] or {},
        delta=query["delta"],
    )
    gateway = gateway_of(request)
    if _abilities(request.scope).get("is_head"):
        return Response(b"", media_type=MEDIA_TYPE, headers=_HEADERS)
    session = Session(gateway, address=str(request.scope["state"].get("address", "")))
    try:
        await _open(session, request, wanted)
    except BaseException:
        await session.close()
        raise
    return _Events(gateway, session)


def _since(request: Request[Any, Any, Any]) -> dict[str, Any]:
    try:
        return decode_places(request.headers.get("last-event-id", ""))
    except ValueError as error:
        wrong = [{"parameter": "Last-Event-ID", "detail": str(error)}]
        raise ApiError(400, "invalid_query", f"Last-Event-ID: {error}", errors=wrong) from None


async def _open(session: Session, request: Request[Any, Any, Any], wanted: Subscribe) -> None:
    """Let a client in, and into its channels. Raises ApiError where there is nothing to stream."""
    session.hello()
    try:
        await session.let_in(principal_of(request))
        answer = await session.subscribe(wanted)
    except Closing as closing:
        raise _problem(closing) from None
    except Refused as refusal:
        if refusal.code == "unavailable":
            raise ApiError(503, "redis_unavailable", str(refusal)) from None
        raise ApiError(400, "invalid_query", str(refusal)) from None
    names = session.subscriptions.names()
    if not names and answer.refused:
        errors = [
            {"parameter": "channels", "detail": f"{one.channel}: {one.detail}"}
            for one in answer.refused
        ]
        raise ApiError(400, "invalid_query", errors[0]["detail"], errors=errors)
    session.backlog.tell(answer)


def _problem(closing: Closing) -> ApiError:
    """The answer to a client whose session ends before it began."""
    if closing.code == TOO_MANY_SESSIONS:
        after = {"Retry-After": str(RETRY_MS // 1_000)}
        return ApiError(429, "too_many_requests", closing.reason, headers=after)
    if closing.code == TOO_MANY_CHANNELS:
        return ApiError(400, "invalid_query", closing.reason)
    if closing.code == UNAUTHENTICATED:
        return ApiError(401, "unauthenticated", closing.reason)
    if closing.code == RESTART:
        return ApiError(503, "redis_unavailable", closing.reason)
    return ApiError(403, "insufficient_scope", closing.reason)


class _Events(Response[bytes]):
    """The answer that lasts as long as the session."""

    def __init__(self, gateway: Gateway, session: Session) -> None:
        super().__init__(b"", media_type=MEDIA_TYPE, headers=_HEADERS)
        self._gateway = gateway
        self._session = session

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIStreamingResponse:
        """Litestar's streamed answer, with our way of sending."""
        return _Sending(self._gateway, self._session)


class _Sending(ASGIStreamingResponse):
    def __init__(self, gateway: Gateway, session: Session) -> None:
        super().__init__(iterator=(), media_type=MEDIA_TYPE, headers=_HEADERS, status_code=200)
        self._gateway = gateway
        self._session = session

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        running = asyncio.create_task(self._run(receive, send))
        self._gateway.sessions[running] = self._session.end
        try:
            is_whole = await running
        finally:
            await cancel(running)
            del self._gateway.sessions[running]
            await self._session.close()
        if not is_whole:
            _abilities(scope)["abort"]()
            await _left(receive)

    async def _run(self, receive: Any, send: Any) -> bool:
        await self.start_response(send=send)
        return await _serve(self._session, receive, send)


async def _serve(session: Session, receive: Any, send: Any) -> bool:
    """Until the client left or the session ended; False where the client must be cut."""
    writing = asyncio.create_task(_write(session, send))
    leaving = asyncio.create_task(_left(receive))
    try:
        parts: list[asyncio.Future[Any]] = [writing, leaving, session.end]
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            return True
        try:
            closing = session.end.result() if session.end.done() else await writing
        except Closing as error:
            closing = error
        await cancel(writing)
        goodbye = msgspec.json.encode(Close(closing.code, closing.reason))
        last = b"event: close\ndata: " + goodbye + b"\n\n"
        async with asyncio.timeout(GOODBYE_S):
            await send({"type": "http.response.body", "body": last, "more_body": False})
        return True
    except TimeoutError:
        return False
    finally:
        await cancel(writing, leaving)


async def _write(session: Session, send: Any) -> Closing:
    """Send what there is, for ever. Raises Closing."""
    places = Places()
    first = b"retry: %d\n" % RETRY_MS
    while True:
        messages = await session.take()
        body = first + event_of(messages, places)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        session.sent(len(messages))
        first = b""


def _abilities(scope: Any) -> dict[str, Any]:
    """What the protocol lends to a request; nothing where another one serves."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    found: dict[str, Any] = extensions.get(CONNECTION, {})
    return found


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_of(messages: list[bytes], places: Places) -> bytes:
    """The event of some messages of JSON; a comment of a heartbeat alone."""
    types = [places.follow(message) for message in messages]
    if types == ["heartbeat"]:
        return b": " + messages[0] + b"\n\n"
    place = places.text()
    head = b"" if place is None else b"id: " + place.encode() + b"\n"
    return head + b"data: " + join_frame(messages, is_msgpack=False) + b"\n\n"
