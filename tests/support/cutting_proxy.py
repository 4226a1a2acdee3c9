"""A TCP proxy before Postgres that cuts a connection at a chosen step of its transaction."""

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.support.servers import free_port

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # a simple query, which is how the driver ends one
_COPY_DATA = b"d"
_READ_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on for no time: closing sends a reset


class Cut(enum.Enum):
    """Where a connection ends, always in a transaction that copies."""

    BEFORE_COMMIT = "before COMMIT is passed on"
    AFTER_COMMIT = "after the server has answered COMMIT, and nobody heard it"
    IN_COPY = "in the middle of what COPY sends"


class CuttingProxy:
    """Passes on what comes; `times` times it cuts at the step `cut`, and counts that in `cuts`."""

    def __init__(self, url: str, cut: Cut | None = None, times: int = 1) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._server, self._port = parts.port, free_port()
        account = parts.netloc.rpartition("@")[0]
        # In the clear, for we look for the step among the bytes.
        self.url = (
            f"postgresql://{account}@127.0.0.1:{self._port}{parts.path}"
            "?sslmode=disable&gssencmode=disable"
        )
        self.address = f"127.0.0.1:{self._port}"
        self._cut, self._times = cut, times
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def fall_silent(self) -> None:
        """Pass nothing on any more of the connections there are, and end none; new ones work."""
        self._silent |= self._clients

    def cut_all(self) -> None:
        """Reset every connection there is; new ones work."""
        for client in list(self._clients):
            client.transport.abort()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer on its port for as long as the block lasts."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        try:
            yield
        finally:
            listening.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(writer)
        to_server: asyncio.StreamWriter | None = None
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
            answers = asyncio.create_task(self._answer(from_server, writer))
            try:
                await self._ask(reader, writer, to_server, from_server, answers)
            finally:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or the test is over
        finally:
            self._tasks.discard(task)
            self._clients.discard(writer)
            for side in (writer, to_server):
                if side is not None:
                    _reset(side)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        answers: "asyncio.Task[None]",
    ) -> None:
        """Pass on what the client sends, up to the cut."""
        has_copied = False
        while asked := await reader.read(_READ_BYTES):
            if client in self._silent:
                continue
            is_copying = asked.startswith(_COPY_DATA)
            has_copied = has_copied or is_copying
            may_cut = self.cuts < self._times and has_copied
            if may_cut and self._cut is Cut.IN_COPY:
                to_server.write(asked[: len(asked) // 2])
                await to_server.drain()
                self.cuts += 1
                return
            if may_cut and asked.endswith(_COMMIT) and self._cut is not None:
                if self._cut is Cut.AFTER_COMMIT:
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    to_server.write(asked)
                    await from_server.read(_READ_BYTES)
                self.cuts += 1
                return
            to_server.write(asked)
            await to_server.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the server answers."""
        while answered := await reader.read(_READ_BYTES):
            if writer not in self._silent:
                writer.write(answered)
                await writer.drain()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    held = writer.get_extra_info("socket")
    if held is not None:
        with contextlib.suppress(OSError):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
