"""An answer that is made while it is sent: bounded in memory by the client's own pace.

Whatever goes wrong on the way breaks the answer off, so that a client sees it is not whole: its
last chunk never comes. Knows nothing of what is sent.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from litestar import Response

# What a client has to take within its time: slow ones that go on taking are not cut.
SLICE_BYTES = 128 * 1024

Pieces = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
Attendance = Callable[[Callable[[], None]], AbstractContextManager[None]]


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class NoLongerAdmitted(Exception):
    """The token that the answer was asked for with was revoked."""


class Streamed(Response[bytes]):
    """An answer of pieces, which are asked for when it is sent; until the first is there, an error
    is a problem as everywhere.

    A client that takes less than SLICE_BYTES in `stalled_s`, or has not all of it in `longest_s`,
    is cut. `broken` is told why an answer ended early. `attended` is given what to call when the
    client may not have the rest any more, while there is one.
    """

    def __init__(
        self,
        pieces: Pieces,
        headers: dict[str, str],
        *,
        stalled_s: float,
        longest_s: float,
        broken: Callable[[Exception], None],
        attended: Attendance,
    ) -> None:
        super().__init__(b"", headers=headers)
        self._attended = attended
        self._pieces, self._told = pieces, headers
        self._stalled_s, self._longest_s, self._broken = stalled_s, longest_s, broken
        self._is_started = False

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """This answer itself."""
        return self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        refused = asyncio.Event()
        try:
            with self._attended(refused.set):
                async with asyncio.TaskGroup() as group:
                    ends = (_until_left(receive), _until_refused(refused))
                    waiting = [group.create_task(end) for end in ends]
                    await self._send(send, is_head=bool(scope["state"].get("is_head")))
                    for task in waiting:
                        task.cancel()
        except ExceptionGroup as errors:
            error = _first(errors)
            if self._is_started:
                self._broken(error)
            elif not isinstance(error, ClientLeft):
                raise error from None

    async def _send(self, send: Any, *, is_head: bool) -> None:
        async with self._pieces() as pieces:
            first = await anext(pieces, b"")
            headers = [(name.lower().encode(), text.encode()) for name, text in self._told.items()]
            self._is_started = True
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if not is_head:
                async with asyncio.timeout(self._longest_s):
                    await self._body(send, first)
                    async for piece in pieces:
                        await self._body(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _body(self, send: Any, piece: bytes) -> None:
        for first in range(0, len(piece), SLICE_BYTES):
            body = piece[first : first + SLICE_BYTES]
            async with asyncio.timeout(self._stalled_s):
                await send({"type": "http.response.body", "body": body, "more_body": True})


@contextlib.asynccontextmanager
async def ahead(
    source: AsyncGenerator[bytes, None], pieces: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    """So many pieces of a source are made while others are sent."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(pieces)

    async def fill() -> None:
        async with contextlib.aclosing(source):
            async for piece in source:
                await queue.put(piece)
        await queue.put(None)

    filling = asyncio.create_task(fill())
    try:
        yield _taken(queue, filling)
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def _taken(
    queue: "asyncio.Queue[bytes | None]", filling: "asyncio.Task[None]"
) -> AsyncIterator[bytes]:
    while True:
        getting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait((getting, filling), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                await filling  # raises what went wrong
            piece = await getting
        finally:
            getting.cancel()
        if piece is None:
            return
        yield piece


async def _until_left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeft


async def _until_refused(refused: asyncio.Event) -> None:
    await refused.wait()
    raise NoLongerAdmitted("the token was revoked")


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
