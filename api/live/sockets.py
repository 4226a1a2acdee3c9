"""`/v1/ws`: one session a connection, from hello to a documented close.

A session reads operations, owns its backlog and the list of its groups, and sends one array a
flush. It never reads Redis itself and never makes a market message: that is the hub's.
"""

import asyncio
import contextlib
import time
from typing import Any

from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from api.access.auth import LEEWAY_S, bearer_token, demand
from api.errors import ApiError
from api.gateway import Gateway, gateway_of
from api.live.backlog import Backlog
from api.live.messages import JSON_PROTOCOL, MSGPACK_PROTOCOL, join_frame
from api.live.operations import (
    INTERVALS,
    Auth,
    Malformed,
    Operation,
    Ping,
    Refused,
    Subscribe,
    Unsubscribe,
    decode_operation,
)
from api.live.subscriptions import Subscriptions
from pipeline.clock import to_rfc3339
from pipeline.credentials import Principal
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.runtime import cancel

MALFORMED = 4400
UNAUTHENTICATED = 4401
FORBIDDEN = 4403
LATE = 4408
TOO_MANY_SESSIONS = 4409
TOO_MANY_CHANNELS = 4413
TOO_MANY_OPERATIONS = 4429
STALLED = 4008
RESTART = 1012

_Socket = WebSocket[Any, Any, Any]


class Closing(Exception):
    """The session ends, with this code; the reason is for a person."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason[:120]  # a close frame holds 123 bytes of reason


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
    session = Session(gateway, socket, is_msgpack=chosen == MSGPACK_PROTOCOL)
    running = asyncio.create_task(session.run())
    gateway.sessions[running] = session.end
    try:
        closing = await running
    finally:
        del gateway.sessions[running]
    if closing is not None:
        with contextlib.suppress(WebSocketDisconnect):
            await socket.close(closing.code, closing.reason)


class Session:
    """One connection's protocol state."""

    def __init__(self, gateway: Gateway, socket: _Socket, *, is_msgpack: bool) -> None:
        self._gateway = gateway
        self._socket = socket
        self._is_msgpack = is_msgpack
        limits = gateway.limits
        self._limits = limits
        self._backlog = Backlog(is_msgpack=is_msgpack, limit_bytes=limits.backlog_bytes)
        self._subscriptions = Subscriptions(gateway, self._backlog)
        self._principal: Principal | None = None
        self._counted: str | None = None  # the subject whose session this is
        self._allowance = float(limits.operations_burst)
        self._counted_at = time.monotonic()
        self.end: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._deadline: asyncio.TimerHandle | None = None

    async def run(self) -> Closing | None:
        """Until the client left (None) or shall be closed. Leaves every group."""
        self._hello()
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            self._arm(self._limits.authenticate_s, LATE, "no valid auth in time")
            await self._authenticate_by_header()
            parts: list[asyncio.Future[Any]] = [*tasks, self.end]
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            return await self._outcome(tasks)
        except Closing as closing:
            return closing
        finally:
            await cancel(*tasks)
            if self._deadline is not None:
                self._deadline.cancel()
            self._gateway.verifier.dismiss(self)
            if self._counted is not None:
                self._gateway.limiter.leave(self._counted)
            await self._subscriptions.clear()

    async def _outcome(self, tasks: list["asyncio.Task[None]"]) -> Closing | None:
        if self.end.done():
            return self.end.result()
        for task in tasks:
            if task.done():
                with contextlib.suppress(WebSocketDisconnect):
                    await task  # raises what ended it
        return None

    async def _read(self) -> None:
        while True:
            event: dict[str, Any] = dict(await self._socket.receive())
            if event["type"] == "websocket.disconnect":
                return
            self._count_operation()
            try:
                operation = decode_operation(event, self._is_msgpack)
                await self._handle(operation)
            except Malformed as error:
                raise Closing(MALFORMED, str(error)) from None
            except Refused as error:
                self._tell_error(error.code, str(error), error.operation_id)

    async def _write(self) -> None:
        """One array a flush; a heartbeat when there was nothing for a while."""
        while True:
            try:
                async with asyncio.timeout(self._limits.heartbeat_s):
                    await self._backlog.ready.wait()
            except TimeoutError:
                self._backlog.tell(self._heartbeat())
            messages = self._backlog.take(self._subscriptions.snapshot)
            if not messages:
                continue
            frame = join_frame(messages, self._is_msgpack)
            try:
                async with asyncio.timeout(self._limits.stalled_s):
                    mode = "binary" if self._is_msgpack else "text"
                    await self._socket.send_data(frame, mode)  # type: ignore[arg-type]
            except TimeoutError:
                raise Closing(STALLED, "nothing was drained for too long") from None
            except WebSocketDisconnect:
                return
            self._gateway.messages_sent.add(len(messages))

    async def _handle(self, operation: Operation) -> None:
        if isinstance(operation, Auth):
            await self._authenticate(operation.token)
            self._acknowledge(operation, **self._identity())
        elif isinstance(operation, Ping):
            now = to_rfc3339(self._gateway.clock.now_ns())
            self._backlog.tell({"type": "pong", "id": operation.id, "ts": now})
        elif self._principal is None:
            raise Refused("unauthenticated", "say auth first", operation.id)
        elif isinstance(operation, Subscribe):
            await self._subscribe(operation)
        elif isinstance(operation, Unsubscribe):
            await self._subscriptions.remove(operation.channels)
            self._acknowledge(operation, refused=[])
        else:
            refused = self._subscriptions.resync(operation.channels)
            self._acknowledge(operation, refused=refused)

    # Who the client is

    async def _authenticate_by_header(self) -> None:
        header = self._socket.headers.get("authorization")
        if header is not None:
            try:
                token = bearer_token(header)
            except ApiError as error:
                raise Closing(UNAUTHENTICATED, error.detail) from None
            await self._authenticate(token)
            self._backlog.tell({"type": "ack", "op": "auth", "id": None, **self._identity()})

    async def _authenticate(self, token: str) -> None:
        verifier = self._gateway.verifier
        try:
            principal = await verifier.admit(token)
            demand(principal, "live")
        except ApiError as error:
            code = {403: FORBIDDEN, 503: RESTART}.get(error.status, UNAUTHENTICATED)
            if error.status == 401:
                self._gateway.limiter.fail(self._socket.scope["state"]["address"])
            raise Closing(code, error.detail) from None
        await self._count(principal.subject)
        self._principal = principal
        revoked = Closing(UNAUTHENTICATED, "the token was revoked")
        verifier.attend(self, principal, lambda: end_session(self.end, revoked))
        remaining_s = principal.expires + LEEWAY_S - time.time()
        self._arm(remaining_s, UNAUTHENTICATED, "the token has expired")

    async def _count(self, subject: str) -> None:
        """Be one of the subject's sessions. Raises Closing where there are too many already."""
        if subject == self._counted:
            return
        limiter = self._gateway.limiter
        if not await limiter.enter(subject):
            raise Closing(TOO_MANY_SESSIONS, "the subject has too many sessions open")
        if self._counted is not None:
            limiter.leave(self._counted)
        self._counted = subject

    def _identity(self) -> dict[str, Any]:
        principal = self._principal
        if principal is None:
            return {}
        expires = to_rfc3339(int(principal.expires) * 1_000_000_000)
        return {"scopes": sorted(principal.scopes), "expires": expires}

    def _arm(self, seconds: float, code: int, reason: str) -> None:
        """Close with this code when the time is over, unless armed anew before."""
        if self._deadline is not None:
            self._deadline.cancel()
        closing = Closing(code, reason)
        self._deadline = asyncio.get_running_loop().call_later(
            max(0.0, seconds), end_session, self.end, closing
        )

    # What the client asks for

    async def _subscribe(self, operation: Subscribe) -> None:
        if len(operation.channels) > self._limits.channels:
            raise Closing(TOO_MANY_CHANNELS, f"more than {self._limits.channels} channels")
        try:
            extra = await self._subscriptions.add(operation)
        except (BusUnavailable, DecodeError):
            raise Refused("unavailable", "the latest values are away", operation.id) from None
        self._acknowledge(operation, **extra)

    # What is said beside market data

    def _hello(self) -> None:
        limits = self._limits
        self._backlog.tell(
            {
                "type": "hello",
                "protocol": MSGPACK_PROTOCOL if self._is_msgpack else JSON_PROTOCOL,
                "ts": to_rfc3339(self._gateway.clock.now_ns()),
                "heartbeat_s": limits.heartbeat_s,
                "limits": {
                    "authenticate_s": limits.authenticate_s,
                    "channels": limits.channels,
                    "operations_per_s": limits.operations_per_s,
                    "message_bytes": limits.message_bytes,
                    "intervals_ms": INTERVALS,
                },
            }
        )

    def _heartbeat(self) -> dict[str, Any]:
        now_ns = self._gateway.clock.now_ns()
        freshness = {
            name: {"as_of": to_rfc3339(ts_ingest), "age_ms": (now_ns - ts_ingest) // 1_000_000}
            for name, ts_ingest in self._subscriptions.instants()
        }
        return {"type": "heartbeat", "ts": to_rfc3339(now_ns), "channels": freshness}

    def _acknowledge(self, operation: Operation, **extra: Any) -> None:
        name = type(operation).__name__.lower()
        message: dict[str, Any] = {"type": "ack", "op": name, "id": operation.id}
        if not isinstance(operation, Auth):
            message["channels"] = self._subscriptions.names()
        self._backlog.tell(message | extra)

    def _tell_error(self, code: str, detail: str, operation_id: int | str | None) -> None:
        self._backlog.tell({"type": "error", "id": operation_id, "code": code, "detail": detail})

    def _count_operation(self) -> None:
        """A bucket of operations that fills at the documented rate. Raises Closing."""
        now = time.monotonic()
        earned = (now - self._counted_at) * self._limits.operations_per_s
        self._allowance = min(self._limits.operations_burst, self._allowance + earned) - 1
        self._counted_at = now
        if self._allowance < 0:
            rate = self._limits.operations_per_s
            raise Closing(TOO_MANY_OPERATIONS, f"more than {rate:g} operations a second")


def end_session(end: "asyncio.Future[Any]", closing: Closing) -> None:
    """Ask a session to close, unless it is closing already."""
    if not end.done():
        end.set_result(closing)
