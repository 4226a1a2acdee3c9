"""The rim of a real gateway: bounds, methods, origins, headers; spoken to byte by byte."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from api import __main__ as gateway_process
from api import edge, heads
from api.edge import BODY_BYTES
from api.joined import Joined
from tests.support import gateway, servers
from tests.support.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://desk.example"
WAIT_S = 10.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway for all of these."""
    directory = tmp_path_factory.mktemp("edge")
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(server.url, gateway_origins=(ORIGIN,)) as running:
            yield running


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def said(
    shared: Gateway, *parts: bytes, pause_s: float = 0.0
) -> tuple[bytes, dict[str, Any]]:
    """Write bytes as they are; the head and the JSON body of the one answer, after which the
    server has closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.settings.gateway_port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(WAIT_S):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), json.loads(body)


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        pytest.param("POST", "/v1/underlyings", {"GET", "HEAD", "OPTIONS"}, id="read-only route"),
        pytest.param("DELETE", "/healthz", {"GET", "HEAD", "OPTIONS"}, id="outside of v1"),
        pytest.param("GET", "/v1/compatibility/subjects/x/versions", {"OPTIONS", "POST"}, id="GET"),
        pytest.param("HEAD", "/v1/compatibility/subjects/x/versions", None, id="HEAD"),
        pytest.param("PATCH", "/", {"GET", "HEAD", "OPTIONS"}, id="page"),
    ],
)
async def test_other_method_is_405_with_what_is_allowed(
    method: str, path: str, allowed: set[str] | None, shared: Gateway
) -> None:
    response = await shared.http.request(method, path)
    assert response.status_code == 405
    if allowed is not None:
        problem(response, 405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1", "/v1/chains/NIFTY/x/y/z"])
async def test_unknown_path_is_a_problem(path: str, shared: Gateway) -> None:
    problem(await shared.http.get(path), 404, "not_found")


async def test_head_and_body_of_an_answer_leave_by_one_call(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    flush = Joined._flush

    def counted(joined: Joined) -> None:
        calls.append(len(joined._held))
        flush(joined)

    monkeypatch.setattr(Joined, "_flush", counted)
    for method, parts in (("GET", 2), ("HEAD", 1)):
        calls.clear()
        assert (await shared.http.request(method, "/healthz")).status_code == 200
        assert calls == [parts]


async def test_plain_options_says_what_is_allowed(shared: Gateway) -> None:
    response = await shared.http.options("/v1/underlyings")
    assert response.status_code == 204
    assert "GET" in response.headers["allow"]


async def test_long_body_is_413_also_without_a_length(shared: Gateway) -> None:
    path = "/v1/compatibility/subjects/x/versions"
    headers = {"Authorization": f"Bearer {shared.token()}", "Content-Type": "application/json"}
    large = b"x" * (BODY_BYTES + 1)
    problem(await shared.http.post(path, content=large, headers=headers), 413, "body_too_large")

    async def parts() -> AsyncIterator[bytes]:
        for _part in range(9):
            yield b"x" * 8_192

    response = await shared.http.post(path, content=parts(), headers=headers)
    problem(response, 413, "body_too_large")
    assert response.headers["connection"] == "close"


async def test_slow_body_is_408(shared: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_S", 0.2)
    head, body = await said(
        shared,
        request(
            "POST",
            "/v1/compatibility/subjects/x/versions",
            f"Authorization: Bearer {shared.token()}",
            "Content-Type: application/json",
            "Content-Length: 100",
            body=b"{",
        ),
    )
    assert head.startswith(b"http/1.1 408")
    assert body["code"] == "body_too_slow"
    assert b"connection: close" in head


async def test_body_that_nobody_reads_ends_the_connection(shared: Gateway) -> None:
    head, body = await said(shared, request("GET", "/healthz", "Content-Length: 100", body=b"{"))
    assert head.startswith(b"http/1.1 200")
    assert body == {"status": "alive"}


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, "bad_request", id="no request"),
        pytest.param(request("GET", "/" + "x" * 20_000), 414, "uri_too_long", id="path"),
        pytest.param(request("GET", "/?" + "x" * 9_000, "Connection: close"), 414, "uri_too_long",
            id="query"),
        pytest.param(
            request("GET", "/", *(f"X-{n}: 1" for n in range(150))), 431, "head_too_large",
            id="many fields"),
        pytest.param(request("GET", "/", "Cookie: " + "x" * 20_000), 431, "head_too_large",
            id="long field"),
        pytest.param(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 40_000, 431, "head_too_large",
            id="endless field"),
        pytest.param(
            request("GET", "/", "Connection: close").replace(b"localhost", b"elsewhere.example"),
            421, "bad_host", id="host"),
    ],
)  # fmt: skip
async def test_head_out_of_bounds_is_a_problem(
    text: bytes, status: int, code: str, shared: Gateway
) -> None:
    head, body = await said(shared, text)
    assert head.startswith(b"http/1.1 %d" % status)
    assert (body["status"], body["code"]) == (status, code)
    assert b"application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head
    assert b"\r\nserver:" not in head


async def test_slow_head_is_408(shared: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.2)
    head, body = await said(shared, b"GET / HTTP/1.1\r\nHost: local")
    assert head.startswith(b"http/1.1 408")
    assert body["code"] == "head_too_slow"


async def test_fields_behind_a_body_are_no_headers(shared: Gateway) -> None:
    """What stands before us and checks or strips headers may pass these on unseen."""
    chunked = "Transfer-Encoding: chunked"
    trailer = f"0\r\nAuthorization: Bearer {shared.token()}\r\n\r\n".encode()
    asked = request("GET", "/v1/underlyings", chunked, "Connection: close", body=trailer)
    head, body = await said(shared, asked)
    assert head.startswith(b"http/1.1 401")
    assert body["code"] == "unauthenticated"


async def test_endless_field_behind_a_body_is_431(shared: Gateway) -> None:
    fields = (f"Authorization: Bearer {shared.token()}", "Transfer-Encoding: chunked")
    path = "/v1/compatibility/subjects/x/versions"
    first = request("POST", path, *fields, "Content-Type: application/json", body=b"1\r\n{\r\n")
    head, body = await said(shared, first, b"0\r\nX: ", b"x" * 20_000, b"x" * 20_000, pause_s=0.02)
    assert head.startswith(b"http/1.1 431")
    assert body["code"] == "head_too_large"


async def test_head_may_come_in_many_parts(shared: Gateway) -> None:
    """As it does over a network, where a segment has some 1,400 bytes."""
    whole = request("GET", "/healthz?" + "x" * 8_000, f"X-A: {'y' * 4_000}", "Connection: close")
    parts = [whole[at : at + 1_400] for at in range(0, len(whole), 1_400)]
    head, _ = await said(shared, *parts, pause_s=0.005)
    assert head.startswith(b"http/1.1 200")


async def test_client_that_leaves_amid_its_body_is_no_failure_of_ours(
    shared: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    chunked = request("POST", "/v1/token", "Transfer-Encoding: chunked", body=b"1\r\n{\r\n")
    head, _ = await said(shared, chunked, b"ZZ\r\n", pause_s=0.05)
    assert head.startswith(b"http/1.1 400")
    assert (await shared.http.get("/healthz")).status_code == 200
    await asyncio.sleep(0.05)
    assert "request_failed" not in capsys.readouterr().out


async def test_client_that_reads_nothing_is_cut(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks for no token is enough to fill a connection."""
    monkeypatch.setattr(gateway_process, "UNREAD_S", 0.5)
    async with gateway.running(valkey) as served:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", served.settings.gateway_port))
            client.sendall(request("GET", "/openapi.json") * 40)
            ours = client.getsockname()[1]
            async with asyncio.timeout(WAIT_S):
                while not is_held(ours):
                    await asyncio.sleep(0.05)
                while is_held(ours):
                    await asyncio.sleep(0.05)


def is_held(port: int) -> bool:
    """Whether this process holds the server's end of a client's connection."""
    found = psutil.Process().net_connections("tcp4")
    return any(one.raddr and one.raddr.port == port for one in found)


SHAKEN = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        pytest.param(request("GET", "/v1/ws", *SHAKEN[:3]), 400, "bad_request", id="no key"),
        pytest.param(request("GET", "/v1/ws", *SHAKEN[:2], SHAKEN[3]), 400, "bad_request",
            id="no version"),
        pytest.param(request("POST", "/v1/ws", *SHAKEN), 405, "method_not_allowed", id="method"),
        pytest.param(request("GET", "/nothing", *SHAKEN), 404, "not_found", id="path"),
        pytest.param(request("GET", "/v1/underlyings", *SHAKEN), 404, "not_found", id="REST"),
        pytest.param(request("GET", "/v1/ws", *SHAKEN, "Origin: null"), 403, "foreign_origin",
            id="origin"),
        pytest.param(request("GET", "/v1/ws", *SHAKEN).replace(b"localhost", b"elsewhere.example"),
            421, "bad_host", id="host"),
    ],
)  # fmt: skip
async def test_refused_handshake_is_a_problem(
    text: bytes, status: int, code: str, shared: Gateway
) -> None:
    head, body = await said(shared, text)
    assert head.startswith(b"http/1.1 %d" % status)
    assert (body["status"], body["code"]) == (status, code)
    assert b"content-type: application/problem+json" in head
    assert head.count(b"content-type:") == 1
    assert b"x-content-type-options: nosniff" in head


@pytest.mark.parametrize(
    "host",
    ["evil.example@localhost", "localhost:0", "localhost:99999", "localhost/x", "local host"],
)
async def test_host_that_two_readers_read_differently_is_421(host: str, shared: Gateway) -> None:
    text = request("GET", "/healthz", "Connection: close").replace(b"localhost", host.encode())
    head, _ = await said(shared, text)
    assert head.startswith(b"http/1.1 421")


async def test_client_that_says_nothing_is_left(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.settings.gateway_port)
    async with asyncio.timeout(WAIT_S):
        assert await reader.read() == b""
    writer.close()


async def test_named_origin_may_read_and_others_may_not(shared: Gateway) -> None:
    asked = {"Access-Control-Request-Method": "DELETE", "Origin": ORIGIN}
    before = await shared.http.options("/v1/admin/dead-letters/1-0", headers=asked)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == ORIGIN
    assert {"GET", "POST", "DELETE"} <= set(
        before.headers["access-control-allow-methods"].split(", ")
    )
    assert "Authorization" in before.headers["access-control-allow-headers"]
    read = await shared.get("/v1/underlyings", headers={"Origin": ORIGIN})
    assert read.headers["access-control-allow-origin"] == ORIGIN
    assert "RateLimit" in read.headers["access-control-expose-headers"]
    refused = await shared.http.get("/v1/underlyings", headers={"Origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    for headers in (asked | {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = await shared.http.options("/v1/underlyings", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


async def test_credentials_are_never_allowed_to_origins(shared: Gateway) -> None:
    """Tokens travel in a header that a page sets itself; cookies would travel by themselves."""
    response = await shared.get("/v1/underlyings", headers={"Origin": ORIGIN})
    assert "access-control-allow-credentials" not in response.headers


async def test_answers_that_are_no_page_run_nothing(shared: Gateway) -> None:
    for path in ("/healthz", "/v1/underlyings", "/nothing", "/openapi.json"):
        headers = (await shared.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["permissions-policy"]
        assert "server" not in headers


async def test_failure_of_ours_tells_nothing_of_it(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_arguments: Any, **_named: Any) -> None:
        raise ValueError("the innermost secret")

    monkeypatch.setattr("api.health.readiness", fail)
    response = await shared.http.get("/readyz")
    body = problem(response, 500, "internal_error")
    assert "innermost" not in response.text
    logged = capsys.readouterr().out
    assert str(body["request_id"]) in logged
    assert "the innermost secret" in logged  # our own words, for whoever runs it


async def test_failure_at_the_rim_is_a_problem_too(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise ValueError("the innermost secret")

    monkeypatch.setattr("api.origins.Origins.preflight", fail)
    response = await shared.http.get("/healthz")
    problem(response, 500, "internal_error")
    assert "innermost" not in response.text
