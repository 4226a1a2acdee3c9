"""uvicorn's WebSocket protocol, with an end for clients that read nothing any more.

uvicorn waits for room before it writes a close frame and for an empty buffer before it closes the
transport; a stalled client would keep its connection for ever. Depends on three attributes of the
protocol of uvicorn 0.5x, which a test holds in place.
"""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT_AFTER_S = 3.0  # for the close handshake of a client that is merely slow


class Protocol(WebSocketsSansIOProtocol):
    """Closes within a bounded time, whatever the client does."""

    async def send(self, message: Any) -> None:
        """Send an ASGI event; a close does not wait for the client to drain."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self.loop.call_later(ABORT_AFTER_S, self._abort)
        await super().send(message)

    def shutdown(self) -> None:
        """Close because the server ends."""
        self.loop.call_later(ABORT_AFTER_S, self._abort)
        super().shutdown()

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()
