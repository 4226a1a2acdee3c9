"""A client of server-sent events, as a browser reads them."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.gateway import WAIT_S, Gateway


class Events:
    """Hands out one message at a time, and keeps what a browser would: id, retry, comments."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id = ""
        self.retry_ms = 0
        self.comments: list[str] = []
        self.close: dict[str, Any] | None = None
        self._lines = answer.aiter_lines()
        self._waiting: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """The next message; raises StopAsyncIteration at the end of the stream."""
        while not self._waiting:
            await self.read()
        return self._waiting.pop(0)

    async def read(self) -> None:
        """Read one event, or one comment."""
        name, data = "message", ""
        while line := await anext(self._lines):
            field, _, value = line.partition(": ")
            if field == "":
                self.comments.append(value)
            elif field == "id":
                self.last_id = value
            elif field == "retry":
                self.retry_ms = int(value)
            elif field == "event":
                name = value
            else:
                assert field == "data"
                data += value
        if name == "close":
            self.close = json.loads(data)
        elif data:
            self._waiting += json.loads(data)

    async def of(self, kind: str, channel: str | None = None) -> dict[str, Any]:
        """The next message of a type, of a channel; others are passed over."""
        while True:
            message = await self.next()
            if message["type"] == kind and channel in (None, message.get("channel")):
                return message


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


@contextlib.asynccontextmanager
async def streaming(
    served: Gateway, channels: str, *, headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[Events]:
    """An open stream; by a token unless there is a ticket."""
    sent = dict(headers or {})
    if "ticket" not in query and "Authorization" not in sent:
        sent |= bearer(served.token())
    params = {"channels": channels, **query}
    async with served.http.stream(
        "GET", "/v1/stream", params=params, headers=sent, timeout=WAIT_S
    ) as answer:
        if answer.status_code != 200:
            await answer.aread()
        yield Events(answer)
