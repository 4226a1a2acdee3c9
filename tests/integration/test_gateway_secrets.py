"""No secret in any log, error or metric: a gateway is driven with secrets in every place there is,
and all that it says is searched for them."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import websockets

from pipeline.config import Settings
from pipeline.credentials import issue_token
from pipeline.keys import ApiKeys
from pipeline.runtime import connect
from tests.support import gateway, servers
from tests.support.gateway import SECRET
from tests.support.gateway_process import answer, process, settings
from tests.support.servers import free_port

DATABASE_PASSWORD = "the-password-of-the-database"
PING = json.dumps({"op": "ping", "id": "the last word"})
HEADERS = ("Cookie", "X-Api-Key", "X-Request-Id", "If-None-Match", "Accept", "Origin", "Referer")
PATHS = (
    "/v1/schemas/types?token={}",
    "/v1/schemas/types?{}=1",
    "/v1/chains/NIFTY/nearest?fields={}",
    "/v1/chains/NIFTY/nearest?strike.gte={}",
    "/v1/chains/{}/nearest",
    "/v1/contracts/{}",
    "/v1/snapshots?ids={}",
    "/v1/snapshots/{}",
    "/v1/underlyings/{}/history",
    "/v1/gaps?cursor={}",
    "/v1/admin/dead-letters/{}",
    "/v1/admin/dead-letters?key={}",
    "/v1/subjects/{}/versions/latest",
    "/v1/symbols/{}",
    "/v1/symbols?limit={}",
    "/v1/candles/{}?interval=1m",
    "/v1/exports/{}",
    "/v1/schemas/types?format={}",
    "/assets/{}",
    "/nothing/{}",
    "/{}",
)


async def drive(base: str, secrets: dict[str, str], good: str) -> list[str]:
    """Say each secret in every place; whatever the gateway answers to that."""
    said: list[str] = []
    headers = {"Authorization": f"Bearer {good}"}
    async with httpx.AsyncClient(base_url=base, timeout=10, verify=gateway.NO_TLS) as http:

        async def send(method: str, path: str, **options: Any) -> None:
            response = await http.request(method, path, **options)
            said.append(f"{response.status_code} {response.headers} {response.text}")

        async def send_everywhere(secret: str) -> None:
            for scheme in ("Bearer ", "Basic ", ""):
                await send("GET", "/v1/schemas/types", headers={"Authorization": scheme + secret})
            for name in (
                "Cookie",
                "X-Api-Key",
                "X-Request-Id",
                "If-None-Match",
                "Accept",
                "Origin",
            ):
                await send("GET", "/v1/schemas/types", headers=headers | {name: secret})
            for path in PATHS:
                await send("GET", path.format(secret), headers=headers)
            await send("GET", f"/v1/stream?ticket={secret}")
            for path in ("/v1/token", "/v1/token/revoke", "/v1/tickets"):
                for body in ({"token": secret}, {secret: 1}, {"subject": secret, "token_id": 5}):
                    await send("POST", path, json=body, headers=headers)
                await send("POST", path, content=secret, headers=headers)
            path = "/v1/compatibility/subjects/x/versions"
            await send("POST", path, json={"schema": secret}, headers=headers)
            await send("POST", path, content=secret, headers=headers)
            await send("POST", f"/v1/admin/dead-letters/{secret}/redrive", headers=headers)
            await send(secret[:20].upper().replace("_", "-").replace(".", "-"), "/")

        await asyncio.gather(*map(send_everywhere, secrets.values()))
    return said


async def drive_sockets(url: str, secrets: dict[str, str]) -> list[str]:
    """The same on sockets: the reason that each was closed with, and all messages."""
    said: list[str] = []

    async def talk(message: str | None, **options: Any) -> None:
        query = options.pop("query", "")
        with contextlib.suppress(websockets.InvalidStatus):
            async with websockets.connect(url + query, **options) as socket:
                with contextlib.suppress(websockets.ConnectionClosed):
                    if message is not None:
                        await socket.send(message)
                    await socket.send(PING)
                    async with asyncio.timeout(gateway.WAIT_S):
                        message = ""
                        while "the last word" not in message:
                            message = str(await socket.recv())
                            said.append(message)
            said.append(f"{socket.close_code} {socket.close_reason}")

    async def talk_of(name: str, secret: str) -> None:
        await talk(None, query=f"?ticket={secret}")
        await talk(None, query=f"?token={secret}")
        await talk(None, additional_headers={"Authorization": f"Bearer {secret}"})
        await talk(secret)
        await talk(json.dumps({"op": secret, "id": name}))
        await talk(json.dumps({"op": "auth", "id": 1, "token": secret}))
        await talk(json.dumps({"op": "auth", "id": 1, secret: secret}))
        await talk(json.dumps({"op": "subscribe", "id": 1, "channels": [secret]}))

    await asyncio.gather(*(talk_of(*item) for item in secrets.items()))
    return said


async def test_no_secret_is_in_any_log_answer_or_metric(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        chosen = settings(
            server.port,
            log_level="debug",
            metrics_port=free_port(),
            database_url=f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:{free_port()}/none",
            gateway_rate=0.0,
            gateway_address_rate=0.0,
        )
        secrets, good = await _secrets(chosen)
        base = f"http://127.0.0.1:{chosen.gateway_port}"
        log = tmp_path / "gateway.log"
        with process(chosen, log) as started:
            await asyncio.to_thread(answer, f"{base}/healthz", 200)
            said = await drive(base, secrets, good)
            said += await drive_sockets(f"ws{base[4:]}/v1/ws", secrets)
            for path in ("/readyz", "/openapi.json", f"{base}/v1/ops/pipeline"):
                async with httpx.AsyncClient(base_url=base, verify=gateway.NO_TLS) as http:
                    headers = {"Authorization": f"Bearer {good}"}
                    said.append((await http.get(path, headers=headers)).text)
            metrics = f"http://127.0.0.1:{chosen.metrics_port}"
            async with httpx.AsyncClient(base_url=metrics, verify=gateway.NO_TLS) as http:
                said += [(await http.get("/metrics")).text, (await http.get("/healthz")).text]
            started.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(started.wait, 15) == 0
        said.append(log.read_text())
    assert len(said) > 200
    assert '"event":"admin"' in said[-1]
    held = {"the signing secret": SECRET, "the database's password": DATABASE_PASSWORD}
    parts = {**{name: _telling(text) for name, text in secrets.items()}, **held}
    found = [(name, text[:300]) for text in said for name, part in parts.items() if part in text]
    assert found == [], found


async def _secrets(chosen: Settings) -> tuple[dict[str, str], str]:
    """Secrets that hold and some that do not; and a token to ask with, which is none of them."""
    client = connect(chosen)
    try:
        key, _card = await ApiKeys(client).create("reader", ["live"])
    finally:
        await client.aclose()
    token = issue_token(SECRET, scopes=("live", "history"))
    secrets = {
        "a token": token,
        "a token that has expired": issue_token(SECRET, ttl_s=-60),
        "a token of another key": jwt.encode(
            {"sub": "x"}, "another secret, long enough, for HS256"
        ),
        "a token of no signature": jwt.encode({"sub": "a nobody's subject"}, "", "none")
        + "AAAAAAAA",
        "an API key": key,
        "an API key that is none": "sk_0123456789ab_" + "0f" * 32,
        "a ticket that is none": "st_" + "1e" * 32,
    }
    scopes = ("live", "history", "admin")
    return secrets, issue_token(SECRET, subject="operator", scopes=scopes)


def _telling(secret: str) -> str:
    """The part without which a secret is worth nothing."""
    return secret.rpartition(".")[2] if "." in secret else secret.rpartition("_")[2]


def test_the_search_finds_what_it_looks_for() -> None:
    with pytest.raises(AssertionError):
        assert _telling("a.b.sig") not in "Bearer a.b.sig"
