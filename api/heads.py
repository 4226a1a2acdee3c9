"""uvicorn's HTTP protocol, with bounds on a request's head: its size and how long it takes.

Fields behind a body are never headers: who checks headers before us need not have seen them.
What is refused here never becomes a request, so the answer is written here, as a problem like any
other. Depends on a few attributes of the protocol of uvicorn 0.5x, which a test holds in place.
"""

import asyncio
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.edge import SECURITY_HEADERS
from api.errors import PROBLEM_TYPE, ApiError, problem_body
from api.joined import Joined

HEAD_BYTES = 16 * 1024  # a token is 4 kB at most, a query 8 kB
HEAD_FIELDS = 100
CONNECTION = "stockify.connection"  # what a request may know of its connection, an extension
HEAD_S = 10.0  # for a whole head; who sends it by the byte holds a connection


class Protocol(HttpToolsProtocol):
    """Closes the connection of a client whose head is too large, too slow or none."""

    _size = 0
    _fields = 0
    _is_head = False
    _is_message = False
    _unseen = 0  # bytes that have come since the parser told of any
    _refusal: ApiError | None = None
    _due: asyncio.TimerHandle | None = None
    _joined: Joined

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; its first request is awaited."""
        super().connection_made(transport)
        self._joined = Joined(transport, self.loop)
        self._due = self.loop.call_later(HEAD_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._head_is_over()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._size = self._fields = 0
        self._is_head = self._is_message = True
        if self._due is None:
            self._due = self.loop.call_later(HEAD_S, self._too_slow)

    def on_url(self, url: bytes) -> None:
        """A part of the address has come."""
        self._unseen -= len(url)
        self._size += len(url)
        if self._size > HEAD_BYTES:
            raise self._refuse(414, "uri_too_long", f"an address has at most {HEAD_BYTES} bytes")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field has come."""
        size = len(name) + len(value) + 4
        self._unseen -= size
        self._size += size
        self._fields += 1
        if self._size > HEAD_BYTES or self._fields > HEAD_FIELDS:
            detail = f"a head has at most {HEAD_FIELDS} fields and {HEAD_BYTES} bytes"
            raise self._refuse(431, "head_too_large", detail)
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_head = False
        self._head_is_over()
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._joined  # type: ignore[assignment]
        is_head = self.scope["method"] == "HEAD"
        lent = {"abort": self.transport.abort, "is_head": is_head}
        extensions: Any = {CONNECTION: lent}
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        """A part of the body has come."""
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_message = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._unseen += len(data)
        super().data_received(data)
        if not self._is_message:
            self._unseen = 0
        # A field that does not end is held by the parser, which tells nothing of it.
        if self._unseen > 2 * HEAD_BYTES:
            self._refuse(431, "head_too_large", f"a head has at most {HEAD_BYTES} bytes")
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong, as a problem, and close."""
        if self.transport.is_closing():
            return
        refusal = self._refusal or ApiError(400, "bad_request", "that is no HTTP request")
        request_id = secrets.token_hex(8)
        body = problem_body(refusal, request_id)
        headers = (
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *SECURITY_HEADERS,
        )
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self._head_is_over()
        self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + body)
        self.transport.close()

    def _refuse(self, *words: Any) -> ApiError:
        self._refusal = ApiError(*words)
        return self._refusal

    def _too_slow(self) -> None:
        self._due = None
        if self._is_head:
            self._refuse(408, "head_too_slow", "the head did not come in time")
            self.send_400_response("")
        else:
            self.transport.close()

    def _head_is_over(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
