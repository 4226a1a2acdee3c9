"""uvicorn's WebSocket protocol, with an end for stalled clients and a way for ready frames.

uvicorn waits for room before it writes a close frame and for an empty buffer before it closes the
transport; a stalled client would keep its connection for ever. And it copies what it sends four
times, and builds a frame for each client, though a server's frames are the same for all of them.
Depends on seven attributes of the protocol of uvicorn 0.5x, which a test holds in place.
"""

import secrets
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.edge import SECURITY_HEADERS
from api.errors import PROBLEM_TYPE, ApiError, code_of, problem_body

ABORT_AFTER_S = 3.0  # for the close handshake of a client that is merely slow
WRITING = "stockify.write"  # the name of `write` among the extensions of a scope
_TEXT, _BINARY = 0x81, 0x82  # the first byte of a whole message


class Protocol(WebSocketsSansIOProtocol):
    """Closes within a bounded time, whatever the client does; takes frames as well as messages.

    The scope's extensions have `write` under `WRITING`. A handshake that is refused is answered
    with a problem.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plainly = self.conn.reject
        self.conn.reject = self._reject  # type: ignore[method-assign]

    async def run_asgi(self) -> None:
        """Serve the connection."""
        self.scope["extensions"][WRITING] = {"write": self.write}
        await super().run_asgi()

    def write(self, frame: bytes) -> bool:
        """Write a ready frame now; False and nothing written where the client is behind or gone."""
        if self.disconnected or self.close_sent or not self.handshake_complete:
            return False
        if self.transport.is_closing() or not self.writable.is_set():
            return False
        self.transport.write(frame)
        return True

    async def send(self, message: Any) -> None:
        """Send an ASGI event; a close does not wait for the client to drain.

        `{"type": "websocket.send", "frame": bytes}` is written as it is: see `frame_of`.
        """
        frame = message.get("frame")
        if frame is not None:
            await self._write(frame)
            return
        if message["type"] == "websocket.close":
            self.writable.set()
            self.loop.call_later(ABORT_AFTER_S, self._abort)
        await super().send(message)

    def shutdown(self) -> None:
        """Close because the server ends."""
        self.loop.call_later(ABORT_AFTER_S, self._abort)
        super().shutdown()

    async def _write(self, frame: bytes) -> None:
        if not self.writable.is_set():
            await self.writable.wait()
        if not self._is_open():
            raise ClientDisconnected
        self.transport.write(frame)

    def _reject(self, status: Any, text: str) -> Any:
        """The answer to a handshake that is none, or that nothing is there for."""
        number = int(status)
        if number == 403:  # the application closed before it accepted: there is no such route
            number, text = 404, "there is no socket"
        request_id = secrets.token_hex(8)
        detail = text.strip() or "no handshake"
        body = problem_body(ApiError(number, code_of(number), detail[:200]), request_id)
        response = self._plainly(number, body.decode())
        response.headers["Sec-WebSocket-Version"] = "13"
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = PROBLEM_TYPE
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Request-Id"] = request_id
        for name, value in SECURITY_HEADERS:
            response.headers[name.decode()] = value.decode()
        return response

    def _is_open(self) -> bool:
        return self.handshake_complete and not self.disconnected and not self.close_sent

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()


def frame_of(payload: bytes, *, is_binary: bool) -> bytes:
    """A whole message as the one frame that any client of the server may be sent."""
    first, length = _BINARY if is_binary else _TEXT, len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65_536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload
