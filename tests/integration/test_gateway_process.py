"""The gateway as a process: it starts without Redis, stops on SIGTERM, and needs a secret."""

import asyncio
import contextlib
import signal
import socket
import time
from pathlib import Path

import httpx
import websockets

from api import __main__ as gateway_process
from pipeline.credentials import issue_token
from tests.support import servers
from tests.support.gateway import SECRET, Client
from tests.support.gateway_process import START_S, answer, process, settings
from tests.support.servers import RedisServer, free_port


def test_gateway_lives_without_redis_and_is_ready_to_say_so(tmp_path: Path) -> None:
    server = RedisServer(servers.valkey_binary(), tmp_path)
    chosen = settings(server.port)
    base = f"http://127.0.0.1:{chosen.gateway_port}"
    with process(chosen):
        assert answer(f"{base}/healthz", 200) == {"status": "alive"}
        ready = answer(f"{base}/readyz", 503)
        assert "Redis does not answer" in ready["reasons"]  # type: ignore[operator]
        headers = {"Authorization": f"Bearer {issue_token(SECRET)}"}
        away = httpx.get(f"{base}/v1/underlyings", headers=headers)
        assert (away.status_code, away.json()["code"]) == (503, "redis_unavailable")
        server.start()
        try:
            deadline = time.monotonic() + START_S
            while httpx.get(f"{base}/v1/underlyings", headers=headers).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            server.stop()


async def test_sigterm_says_goodbye_and_exits_cleanly(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        chosen = settings(server.port)
        with process(chosen) as started:
            await asyncio.to_thread(answer, f"http://127.0.0.1:{chosen.gateway_port}/healthz", 200)
            url = f"ws://127.0.0.1:{chosen.gateway_port}/v1/ws"
            async with websockets.connect(url) as connection:
                client = Client(connection)
                await client.ask("auth", token=issue_token(SECRET))
                began = time.monotonic()
                started.send_signal(signal.SIGTERM)
                with contextlib.suppress(websockets.ConnectionClosed):
                    await client.until(lambda message: False)
                assert connection.close_code == 1012
            assert await asyncio.to_thread(started.wait, 15) == 0
            assert time.monotonic() - began < 10
            assert started.stdout is not None
            log = started.stdout.read().decode()
            assert '"event":"stopped"' in log
            assert SECRET not in log


def test_gateway_without_a_secret_does_not_start() -> None:
    with process(settings(free_port(), jwt_secret="")) as started:
        output, _ = started.communicate(timeout=START_S)
        assert started.returncode == 1
        assert b"STOCKIFY_JWT_SECRET" in output


def test_taken_port_ends_the_process(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        chosen = settings(server.port, gateway_port=server.port)
        with process(chosen) as started:
            output, _ = started.communicate(timeout=START_S)
            assert started.returncode == 1
            assert b"in use" in output


def test_connections_do_not_wait_for_acknowledgements() -> None:
    with (
        gateway_process._listening("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
