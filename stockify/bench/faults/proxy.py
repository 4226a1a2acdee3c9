"""A TCP proxy on loopback that breaks connections on demand: resets, stalls, answers cut off.

It looks into nothing that passes.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time: RST in place of FIN


class Proxy:
    """Passes connections on to a port of this machine; made by `proxied`.

    A connection that is reset is reset on both sides. What has passed by then may have arrived or
    not: whoever waits for an answer does not know what became of the request.
    """

    def __init__(self, behind: int) -> None:
        self.port = 0
        self._behind = behind
        self._serving: set[asyncio.Task[None]] = set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self.resume()

    @property
    def connections(self) -> int:
        """How many pass through it now."""
        return len(self._pairs)

    def reset(self) -> int:
        """Reset every connection; gives how many. What was stalled is lost."""
        for client, server in self._pairs:
            _reset(client)
            _reset(server)
        self.resume()
        return len(self._pairs)

    def stall(self) -> None:
        """Let nothing pass, either way."""
        self._requests.clear()
        self._answers.clear()

    def hold_answers(self) -> None:
        """Let requests pass and keep the answers; a reset then cuts them off for good."""
        self._answers.clear()

    def resume(self) -> None:
        """Let everything pass, what was held first."""
        self._requests.set()
        self._answers.set()

    def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        serving = asyncio.create_task(self._pass_on(reader, client))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """Reset what still passes, and wait until all of it has ended."""
        self.reset()
        await asyncio.gather(*self._serving)

    async def _pass_on(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection(
                LOOPBACK, self._behind, limit=CHUNK_BYTES
            )
        except OSError:
            _reset(client)
            return
        pair = (client, server)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pump(reader, server, self._requests))
                ways.create_task(_pump(answers, client, self._answers))
        finally:
            self._pairs.discard(pair)
            for writer in pair:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port in front of that one; what still passes at the end is reset."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0, limit=CHUNK_BYTES)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
        await proxy.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
) -> None:
    """Pass on one way until that side ends, then end the other."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            await is_open.wait()
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and not writer.is_closing():
        # By a copy of the descriptor: not every loop lets options of its sockets be set.
        copy = socket.socket(fileno=os.dup(found.fileno()))
        with copy, contextlib.suppress(OSError):
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
