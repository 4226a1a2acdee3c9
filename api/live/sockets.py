"""`/v1/ws`: a session over a WebSocket, from hello to a documented close.

Reads operations and sends one array a flush; everything else is the session's.
"""

import asyncio
import contextlib
from typing import Any

from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from api.access.auth import authorization_of, bearer_token
from api.errors import ApiError
from api.gateway import gateway_of
from api.live.channels import Refused
from api.live.messages import JSON_PROTOCOL, MSGPACK_PROTOCOL, join_frame
from api.live.operations import Malformed, decode_operation
from api.live.protocol import WRITING, frame_of
from api.live.session import FAILED, MALFORMED, UNAUTHENTICATED, Closing, Session
from pipeline.runtime import cancel

_Socket = WebSocket[Any, Any, Any]


@websocket("/v1/ws")
async def stream(socket: _Socket) -> None:
    """Serve one client until it leaves or is told to."""
    gateway = gateway_of(socket)
    offered = socket.scope["subprotocols"]
    chosen = next((name for name in offered if name in (JSON_PROTOCOL, MSGPACK_PROTOCOL)), None)
    try:
        await socket.accept(subprotocols=chosen)
    except WebSocketDisconnect:
        return
    address = str(socket.scope["state"].get("address", ""))
    session = Session(gateway, is_msgpack=chosen == MSGPACK_PROTOCOL, address=address)
    running = asyncio.create_task(_serve(socket, session))
    gateway.sessions[running] = session.end
    try:
        closing = await running
    except Exception as error:
        gateway.telemetry.log.error("session_failed", exc_info=error)
        closing = Closing(FAILED, "the gateway failed; its log says why")
    finally:
        del gateway.sessions[running]
    if closing is not None:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.close(closing.code, closing.reason)


async def _serve(socket: _Socket, session: Session) -> Closing | None:
    """Until the client left (None) or shall be closed. Leaves every group."""
    session.hello()
    extensions: dict[str, Any] = socket.scope["extensions"] or {}
    if WRITING in extensions:
        session.write_by(extensions[WRITING]["write"])
    writing = asyncio.create_task(_write(socket, session))
    reading: asyncio.Task[None] | None = None
    try:
        await _let_in(socket, session)
        reading = asyncio.create_task(_read(socket, session))
        parts: list[asyncio.Future[Any]] = [reading, writing, session.end]
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        if session.end.done():
            return session.end.result()
        for task in (reading, writing):
            if task.done():
                with contextlib.suppress(WebSocketDisconnect):
                    await task  # raises what ended it
        return None
    except Closing as closing:
        return closing
    finally:
        await cancel(writing, *([reading] if reading else []))
        await session.close()


async def _let_in(socket: _Socket, session: Session) -> None:
    """By the header or a ticket, where the client came with one. Raises Closing."""
    ticket = socket.query_params.get("ticket")
    try:
        header = authorization_of(socket)
        token = None if header is None else bearer_token(header)
    except ApiError as error:
        raise Closing(UNAUTHENTICATED, error.detail) from None
    if token is None and ticket is None:
        return
    if token is not None:
        identity = await session.admit(token)
    else:
        identity = await session.redeem(str(ticket))
    session.backlog.tell(identity)


async def _read(socket: _Socket, session: Session) -> None:
    while True:
        event: dict[str, Any] = dict(await socket.receive())
        if event["type"] == "websocket.disconnect":
            return
        session.count_operation()
        try:
            await session.handle(decode_operation(event, session.is_msgpack))
        except Malformed as error:
            raise Closing(MALFORMED, str(error)) from None
        except Refused as error:
            session.tell_error(error)


async def _write(socket: _Socket, session: Session) -> None:
    """One array a flush; frames that others get too are written as they are."""
    is_msgpack = session.is_msgpack
    while True:
        await session.backlog.ready.wait()
        batch = session.take_batch()
        if batch is not None:
            count, frame = len(batch.packets), batch.frame(is_msgpack)
        else:
            messages = await session.take()
            count = len(messages)
            frame = frame_of(join_frame(messages, is_msgpack), is_binary=is_msgpack)
        event: Any = {"type": "websocket.send", "frame": frame}
        try:
            await socket.send(event)
        except WebSocketDisconnect:
            return
        session.sent(count)
