"""A session of the live feed: who the client is, what it gets, and when it must end.

The same for every transport: it makes messages and takes operations, and never sees a connection.
Whoever has the connection sends what `take` gives, and closes it when `end` is done.
"""

import asyncio
import time
from collections.abc import Callable, Sized
from typing import Any, Literal

from api.access.auth import LEEWAY_S, demand
from api.errors import ApiError
from api.gateway import Gateway
from api.live.backlog import Backlog
from api.live.batches import Batch
from api.live.channels import Refused
from api.live.messages import JSON_PROTOCOL, MSGPACK_PROTOCOL
from api.live.operations import (
    INTERVALS,
    Auth,
    Operation,
    Ping,
    Resync,
    Subscribe,
    Unsubscribe,
)
from api.live.subscriptions import Subscriptions
from api.live.wire import (
    Ack,
    AuthAck,
    Error,
    Freshness,
    Heartbeat,
    Hello,
    Id,
    Pong,
    Refusal,
    SessionLimits,
)
from pipeline.clock import to_rfc3339
from pipeline.credentials import Principal
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.redaction import blotted

MALFORMED = 4400
UNAUTHENTICATED = 4401
FORBIDDEN = 4403
LATE = 4408
TOO_MANY_SESSIONS = 4409
TOO_MANY_CHANNELS = 4413
TOO_MANY_OPERATIONS = 4429
STALLED = 4008
CHANNELS_A_UNIT = 10  # an operation on that many costs a request more
FAILED = 1011
RESTART = 1012


class Closing(Exception):
    """The session ends, with this code; the reason is for a person."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason[:120]  # a close frame holds 123 bytes of reason


class Session:
    """One client's session. `end` is done when it shall be closed, with the reason."""

    def __init__(self, gateway: Gateway, *, is_msgpack: bool = False, address: str = "") -> None:
        self.is_msgpack = is_msgpack
        self.end: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self.backlog = Backlog(
            is_msgpack=is_msgpack, limit_bytes=gateway.limits.backlog_bytes, cut=self._cut
        )
        self.subscriptions = Subscriptions(gateway, self.backlog)
        self.principal: Principal | None = None
        self._gateway = gateway
        self._limits = gateway.limits
        self._address = address
        self._deadline: asyncio.TimerHandle | None = None
        self._allowance = float(gateway.limits.operations_burst)
        self._counted_at = self._taken_at = time.monotonic()
        self._sending_since: float | None = None
        self._entered: str | None = None
        self._pulse_s = min(gateway.limits.heartbeat_s, gateway.limits.stalled_s) / 8
        self._pulse = asyncio.get_running_loop().call_later(self._pulse_s, self._beat)
        self._arm(gateway.limits.authenticate_s, LATE, "no valid auth in time")

    async def close(self) -> None:
        """Leave every group, and be counted no longer."""
        self._pulse.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        self._gateway.verifier.dismiss(self)
        if self._entered is not None:
            self._gateway.limiter.leave(self._entered)
            self._entered = None
        await self.subscriptions.clear()

    # Who the client is

    async def admit(self, token: str, operation_id: Id = None) -> AuthAck:
        """Let the client in by a token, the first or a newer one; gives the ack.

        Raises Closing.
        """
        try:
            principal = await self._gateway.verifier.admit(token)
        except ApiError as error:
            raise self._refusal(error) from None
        return await self.let_in(principal, operation_id)

    async def redeem(self, ticket: str) -> AuthAck:
        """Let the client in by a stream ticket, which is used up. Raises Closing."""
        try:
            principal = await self._gateway.verifier.redeem(ticket)
        except ApiError as error:
            raise self._refusal(error) from None
        except (BusUnavailable, DecodeError):
            raise Closing(RESTART, "tickets cannot be looked up now") from None
        return await self.let_in(principal)

    def _refusal(self, error: ApiError) -> Closing:
        code = {403: FORBIDDEN, 503: RESTART}.get(error.status, UNAUTHENTICATED)
        if code == UNAUTHENTICATED and self._address:
            self._gateway.limiter.fail(self._address)
        return Closing(code, error.detail)

    async def let_in(self, principal: Principal, operation_id: Id = None) -> AuthAck:
        """Let in a client whose token or ticket was verified. Raises Closing."""
        try:
            demand(principal, "live")
        except ApiError as error:
            raise self._refusal(error) from None
        await self._enter(principal.subject)
        self.principal = principal
        revoked = Closing(UNAUTHENTICATED, "the token was revoked")
        self._gateway.verifier.attend(self, principal, lambda: end_session(self.end, revoked))
        remaining_s = principal.expires + LEEWAY_S - time.time()
        self._arm(remaining_s, UNAUTHENTICATED, "the token has expired")
        expires = to_rfc3339(int(principal.expires) * 1_000_000_000)
        scopes = sorted(principal.scopes)
        return AuthAck(op="auth", id=operation_id, scopes=scopes, expires=expires)

    async def _enter(self, subject: str) -> None:
        """Count the session as one of its subject. Raises Closing where those are too many."""
        if subject == self._entered:
            return
        if not await self._gateway.limiter.enter(subject):
            raise Closing(TOO_MANY_SESSIONS, "too many sessions are open")
        if self._entered is not None:
            self._gateway.limiter.leave(self._entered)
        self._entered = subject

    def _arm(self, seconds: float, code: int, reason: str) -> None:
        """Close with this code when the time is over, unless armed anew before."""
        if self._deadline is not None:
            self._deadline.cancel()
        closing = Closing(code, reason)
        self._deadline = asyncio.get_running_loop().call_later(
            max(0.0, seconds), end_session, self.end, closing
        )

    # What the client asks for

    def hello(self) -> None:
        """Say what holds for the session."""
        limits = self._limits
        self.backlog.tell(
            Hello(
                protocol=MSGPACK_PROTOCOL if self.is_msgpack else JSON_PROTOCOL,
                ts=to_rfc3339(self._gateway.clock.now_ns()),
                heartbeat_s=limits.heartbeat_s,
                limits=SessionLimits(
                    authenticate_s=limits.authenticate_s,
                    channels=limits.channels,
                    operations_per_s=limits.operations_per_s,
                    message_bytes=limits.message_bytes,
                    backlog_bytes=limits.backlog_bytes,
                    stalled_s=limits.stalled_s,
                    intervals_ms=INTERVALS,
                ),
            )
        )

    def count_operation(self) -> None:
        """A bucket of operations that fills at the documented rate. Raises Closing."""
        now = time.monotonic()
        earned = (now - self._counted_at) * self._limits.operations_per_s
        self._allowance = min(self._limits.operations_burst, self._allowance + earned) - 1
        self._counted_at = now
        if self._allowance < 0:
            rate = self._limits.operations_per_s
            raise Closing(TOO_MANY_OPERATIONS, f"more than {rate:g} operations a second")

    async def handle(self, operation: Operation) -> None:
        """Do what the client asks, and answer. Raises Refused and Closing."""
        await self._charge(operation)
        if isinstance(operation, Auth):
            self.backlog.tell(await self.admit(operation.token, operation.id))
        elif isinstance(operation, Ping):
            now = to_rfc3339(self._gateway.clock.now_ns())
            self.backlog.tell(Pong(id=operation.id, ts=now))
        elif self.principal is None:
            raise Refused("unauthenticated", "say auth first", operation.id)
        elif isinstance(operation, Subscribe):
            self.backlog.tell(await self.subscribe(operation))
        elif isinstance(operation, Unsubscribe):
            await self.subscriptions.remove(operation.channels)
            self.backlog.tell(self._done("unsubscribe", operation, []))
        else:
            refused = self.subscriptions.resync(operation.channels)
            self.backlog.tell(self._done("resync", operation, refused))

    async def _charge(self, operation: Operation) -> None:
        """Count an operation like a request, of its subject and its address. Raises Refused."""
        named: Sized = ()
        if isinstance(operation, Subscribe | Unsubscribe | Resync):
            named = self.subscriptions.names() if operation.channels is None else operation.channels
        subject = None if self.principal is None else self.principal.subject
        units = 1 + len(named) // CHANNELS_A_UNIT
        verdict = await self._gateway.limiter.take(subject, self._address, units)
        if verdict.wait_s:
            detail = f"the next is due in {verdict.wait_s:.3g} s"
            raise Refused("too_many_requests", detail, operation.id)

    async def subscribe(self, operation: Subscribe) -> Ack:
        """Enter channels; gives the ack. Raises Refused, Closing."""
        if len(operation.channels) > self._limits.channels:
            raise Closing(TOO_MANY_CHANNELS, f"more than {self._limits.channels} channels")
        try:
            return await self.subscriptions.add(operation)
        except (BusUnavailable, DecodeError):
            raise Refused("unavailable", "the latest values are away", operation.id) from None

    def tell_error(self, error: Refused) -> None:
        """Answer an operation that was refused."""
        detail = blotted(str(error))
        self.backlog.tell(Error(id=error.operation_id, code=error.code, detail=detail))

    def _done(
        self, name: Literal["unsubscribe", "resync"], operation: Operation, refused: list[Refusal]
    ) -> Ack:
        channels = self.subscriptions.names()
        return Ack(op=name, id=operation.id, channels=channels, refused=refused)

    # What the client gets

    async def take(self) -> list[bytes]:
        """The messages to send next, once there are any; a heartbeat after a while without.

        Whoever takes calls `sent` when the client has them.
        """
        while True:
            await self.backlog.ready.wait()
            self._gateway.hub.deliver()  # no update may come behind a snapshot that has it
            messages = self.backlog.take(self.subscriptions.snapshot)
            if messages:
                self._sending_since = time.monotonic()
                return messages

    def take_batch(self) -> Batch | None:
        """The updates to send next, where there is nothing else to send; waits for nothing."""
        batch = self.backlog.take_batch()
        if batch is not None:
            self._sending_since = time.monotonic()
        return batch

    def write_by(self, write: Callable[[bytes], bool]) -> None:
        """Have updates written as they come, while nothing else is to be sent or being sent.

        `write` takes a frame; False where it cannot now, and then it is left to `take_batch`.
        """

        is_msgpack, count = self.is_msgpack, self._gateway.messages_sent.add

        def pass_on(batch: Batch) -> bool:
            if self._sending_since is not None or not write(batch.frame(is_msgpack)):
                return False
            self._taken_at = time.monotonic()
            count(len(batch.packets))
            return True

        self.backlog.pass_on = pass_on

    def sent(self, count: int) -> None:
        """What was taken has gone out."""
        self._sending_since = None
        self._taken_at = time.monotonic()
        self._gateway.messages_sent.add(count)

    def _cut(self) -> None:
        end_session(self.end, Closing(STALLED, "too much was waiting"))

    def _beat(self) -> None:
        """See to it that an idle client hears something, and that a stalled one is cut."""
        now = time.monotonic()
        self._pulse = asyncio.get_running_loop().call_later(self._pulse_s, self._beat)
        if self._sending_since is not None:
            if now - self._sending_since > self._limits.stalled_s:
                end_session(self.end, Closing(STALLED, "nothing was drained for too long"))
        elif now - self._taken_at >= self._limits.heartbeat_s and not self.backlog.ready.is_set():
            self._taken_at = now
            self.backlog.tell(self._heartbeat())

    def _heartbeat(self) -> Heartbeat:
        now_ns = self._gateway.clock.now_ns()
        freshness = {
            name: Freshness(to_rfc3339(ts_ingest), (now_ns - ts_ingest) // 1_000_000)
            for name, ts_ingest in self.subscriptions.instants()
        }
        return Heartbeat(ts=to_rfc3339(now_ns), channels=freshness)


def end_session(end: "asyncio.Future[Any]", closing: Closing) -> None:
    """Ask a session to close, unless it is closing already."""
    if not end.done():
        end.set_result(closing)
