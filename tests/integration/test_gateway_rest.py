"""REST over a real gateway and a real Valkey: answers, filters, problems."""

import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio

from api import page
from pipeline import latest
from pipeline.clock import expiry_ns
from pipeline.frames import ROW_FIELDS
from pipeline.models import Expiries, Smile
from tests.support import chains, gateway, servers
from tests.support.gateway import CHAIN, Gateway

NEXT_EXPIRY = date(2026, 2, 3)
ATM = "NIFTY-20260127-25000-CE"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def served(valkey: str) -> AsyncIterator[Gateway]:
    """A gateway of the test's own."""
    async with gateway.running(valkey) as running:
        await running.publish(CHAIN, 7)
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway for the tests that change nothing."""
    directory = tmp_path_factory.mktemp("shared")
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(server.url) as running:
            await running.publish(CHAIN, 7)
            yield running


def problem(response: httpx.Response, status: int) -> dict[str, object]:
    """The problem of a response, checked for its form."""
    body: dict[str, object] = response.json()
    assert response.status_code == body["status"] == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def test_chain_has_every_leg_and_its_position(shared: Gateway) -> None:
    response = await shared.get("/v1/chains/NIFTY/2026-01-27")
    body = response.json()
    assert len(body["data"]) == CHAIN.header.n == body["meta"]["rows"]
    assert tuple(body["data"][0]) == ROW_FIELDS
    meta = body["meta"]
    assert (meta["chain"], meta["epoch"], meta["seq"]) == ("NIFTY-20260127", "e1", 7)
    assert meta["ts_ingest"] == "2026-01-25T10:00:00.000000Z"
    assert meta["ts_enrich"] == "2026-01-25T10:00:00.001000Z"
    assert meta["forward"] == CHAIN.header.forward
    assert meta["request_id"] == response.headers["x-request-id"]
    assert body["next"] is None


@pytest.mark.parametrize("smile", [chains.SMILE, None], ids=["smile", "no smile"])
async def test_chain_tells_its_aggregates_and_its_smile(
    served: Gateway, smile: Smile | None
) -> None:
    chain = chains.with_smile(CHAIN, smile)
    await served.publish(chain, 8)
    meta = (await served.get("/v1/chains/NIFTY/nearest")).json()["meta"]
    header = (await served.get("/v1/snapshots/NIFTY-20260127")).json()["data"]["header"]
    for told in (meta, header):
        assert told["aggregates"] == msgspec.structs.asdict(chain.header.aggregates)
        assert told["smile"] == msgspec.to_builtins(smile)


async def test_chain_rows_are_the_stored_bytes(shared: Gateway) -> None:
    stored = await shared.redis.get(shared.topics.latest("NIFTY-20260127"))
    assert stored is not None
    rows = stored[stored.index(b'"rows":') + 7 : -1]
    assert (await shared.get("/v1/chains/NIFTY/nearest")).content.startswith(b'{"data":' + rows)


async def test_chain_that_is_asked_for_again_is_told_to_that_request(served: Gateway) -> None:
    questions = [
        ("", {}),
        ("?around=atm±1", {}),
        ("", {"Accept": "text/csv"}),
        ("", {"Accept": "application/msgpack"}),
        ("", {"Accept-Encoding": "gzip"}),
    ]
    for seq in (8, 9):
        await served.publish(CHAIN, seq)
        for query, asked in questions:
            answers = [
                await served.get(
                    f"/v1/chains/NIFTY/nearest{query}", headers=asked | {"X-Request-Id": name}
                )
                for name in ("one", "another", "third")
            ]
            assert [answer.status_code for answer in answers] == [200] * 3
            assert len({answer.headers["etag"] for answer in answers}) == 1
            if answers[0].headers["content-type"] == "application/json":
                names = ("one", "another", "third")
                told = zip(names, answers, strict=True)
                assert len({answer.text.replace(f'"{name}"', "") for name, answer in told}) == 1
                metas = [answer.json()["meta"] for answer in answers]
                assert [meta["request_id"] for meta in metas] == ["one", "another", "third"]
                assert [meta["seq"] for meta in metas] == [seq] * 3
                assert metas[0]["rows"] == (6 if query else CHAIN.header.n)


@pytest.mark.parametrize("expiry", ["2026-01-27", "20260127", "nearest"])
async def test_expiry_is_read_in_three_forms(shared: Gateway, expiry: str) -> None:
    body = (await shared.get(f"/v1/chains/NIFTY/{expiry}")).json()
    assert body["meta"]["chain"] == "NIFTY-20260127"


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("strike.gte=25000", 22),
        ("strike.gte=25000&strike.lte=25000", 2),
        ("kind=call", 21),
        ("around=atm±2", 10),
        ("around=atm%2B-2&kind=put", 5),
        ("around=2", 10),
        ("layout=pairs", 21),
        ("strike.gte=99999", 0),
    ],
)
async def test_chain_is_filtered(shared: Gateway, query: str, rows: int) -> None:
    body = (await shared.get(f"/v1/chains/NIFTY/nearest?{query}")).json()
    assert len(body["data"]) == body["meta"]["rows"] == rows


async def test_fields_and_integer_times(shared: Gateway) -> None:
    body = (await shared.get("/v1/chains/NIFTY/nearest?fields=iv,strike&ts=ns")).json()
    assert list(body["data"][0]) == ["iv", "strike"]
    assert body["meta"]["ts_ingest"] == chains.TS_INGEST
    body = (await shared.get("/v1/chains/NIFTY/nearest?ts=ms")).json()
    assert body["meta"]["ts_ingest"] == chains.TS_INGEST // 1_000_000


async def test_unchanged_chain_is_304_until_it_changes(served: Gateway) -> None:
    path = "/v1/chains/NIFTY/nearest"
    tag = (await served.get(path)).headers["etag"]
    same = await served.get(path, headers={"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    other_query = await served.get(path + "?kind=call", headers={"If-None-Match": tag})
    assert other_query.status_code == 200
    await served.publish(gateway.moved(CHAIN, seconds=3), 8)
    changed = await served.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


@pytest.mark.parametrize(
    "path",
    [
        "/v1/snapshots?ids=NIFTY,NIFTY-20260127,SENSEX",
        "/v1/snapshots?ids=NIFTY&updated_since=2026-01-24",
        "/v1/snapshots/NIFTY",
        "/v1/snapshots/NIFTY-20260127",
        f"/v1/snapshots/{ATM}",
        f"/v1/contracts/{ATM}",
        "/v1/underlyings",
        "/v1/underlyings/NIFTY",
        "/v1/underlyings/NIFTY/expiries",
    ],
)
async def test_newest_values_are_304_until_they_change(served: Gateway, path: str) -> None:
    first = await served.get(path)
    tag = first.headers["etag"]
    same = await served.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    joined = "&" if "?" in path else "?"
    other_form = await served.get(f"{path}{joined}ts=ns", headers={"If-None-Match": tag})
    assert other_form.status_code == 200
    await served.publish(gateway.moved(CHAIN, seconds=3), 8)
    changed = await served.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
    for body in (bodies := [first.json(), changed.json()]):
        del body["meta"]["request_id"]
    assert bodies[0] != bodies[1]


async def test_snapshots_of_other_symbols_are_another_entity(shared: Gateway) -> None:
    tags = [
        (await shared.get(f"/v1/snapshots?ids={ids}")).headers["etag"]
        for ids in ("NIFTY", "NIFTY,SENSEX", "NIFTY,BANKNIFTY", "NIFTY,NIFTY-20260127")
    ]
    assert len(set(tags)) == 4


async def test_older_chain_changes_nothing(served: Gateway) -> None:
    assert await served.publish(gateway.moved(CHAIN, seconds=-3), 9) == 0
    assert (await served.get("/v1/chains/NIFTY/nearest")).json()["meta"]["seq"] == 7


async def test_underlyings_have_their_newest_snapshot(shared: Gateway) -> None:
    (row,) = (await shared.get("/v1/underlyings")).json()["data"]
    assert (row["symbol"], row["spot"], row["chains"]) == ("NIFTY", chains.SPOT, 1)
    assert row["ts_ingest"] == "2026-01-25T10:00:00.000000Z"
    assert (await shared.get("/v1/underlyings/NIFTY")).json()["data"] == row


async def test_expiries_are_those_listed_and_those_received(served: Gateway) -> None:
    listed = Expiries(
        underlying="NIFTY",
        provider="dhan",
        ts_ingest=chains.TS_INGEST,
        expiries=(chains.EXPIRY, NEXT_EXPIRY),
    )
    await latest.write_expiries(served.redis, served.topics, 0, listed)
    data = (await served.get("/v1/underlyings/NIFTY/expiries")).json()["data"]
    assert [row["expiry"] for row in data] == ["2026-01-27", "2026-02-03"]
    assert [row["n"] for row in data] == [42, None]
    assert [row["ts_ingest"] is None for row in data] == [False, True]
    assert data[1]["chain"] == "NIFTY-20260203"
    for bounds, wanted in (
        ("expiry.gte=2026-01-28", ["2026-02-03"]),
        ("expiry.lte=2026-01-27", ["2026-01-27"]),
        ("expiry.gte=2026-01-28&expiry.lte=2026-02-02", []),
    ):
        some = (await served.get(f"/v1/underlyings/NIFTY/expiries?{bounds}")).json()["data"]
        assert [row["expiry"] for row in some] == wanted


async def test_past_expiries_come_last(valkey: str) -> None:
    after = expiry_ns(chains.EXPIRY) + 1_000_000_000
    async with gateway.running(valkey, clock="2026-01-27T15:30:01+05:30") as served:
        await served.publish(CHAIN, 1)
        later = chains.enriched(expiry=NEXT_EXPIRY, ts_ingest=after)
        await served.publish(later, 2)
        data = (await served.get("/v1/underlyings/NIFTY/expiries")).json()["data"]
        assert [(row["expiry"], row["is_expired"]) for row in data] == [
            ("2026-02-03", False),
            ("2026-01-27", True),
        ]
        nearest = await served.get("/v1/chains/NIFTY/nearest")
        assert nearest.json()["meta"]["chain"] == "NIFTY-20260203"


async def test_contract_and_snapshots(shared: Gateway) -> None:
    contract = (await shared.get(f"/v1/contracts/{ATM}")).json()
    assert contract["data"]["symbol"] == ATM
    assert contract["meta"]["chain"] == "NIFTY-20260127"
    many = (await shared.get(f"/v1/snapshots?ids=NIFTY,{ATM},NIFTY-20260127,SENSEX")).json()
    assert [row["type"] for row in many["data"]] == ["underlying", "contract", "chain"]
    assert many["meta"]["missing"] == ["SENSEX"]
    assert many["data"][1]["rows"] == [contract["data"]]
    one = (await shared.get(f"/v1/snapshots/{ATM}")).json()["data"]
    assert one == many["data"][1]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "not_found"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/underlyings/SENSEX", 404, "unknown_underlying"),
        ("/v1/underlyings/SENSEX/expiries", 404, "unknown_underlying"),
        ("/v1/chains/SENSEX/nearest", 404, "unknown_underlying"),
        ("/v1/chains/NIFTY/2026-02-03", 404, "unknown_symbol"),
        ("/v1/chains/NIFTY/2026-13-03", 400, "invalid_path"),
        ("/v1/chains/NIFTY/tomorrow", 400, "invalid_path"),
        ("/v1/chains/NI%20FTY/nearest", 404, "unknown_symbol"),
        ("/v1/contracts/NIFTY", 404, "unknown_contract"),
        ("/v1/contracts/NIFTY-20260127-1-CE", 404, "unknown_symbol"),
        ("/v1/contracts/%00", 404, "unknown_symbol"),
        ("/v1/snapshots", 400, "invalid_query"),
        ("/v1/snapshots?ids=", 400, "invalid_query"),
        ("/v1/underlyings?limit=1", 400, "invalid_query"),
        ("/v1/chains/NIFTY/nearest?strike=1", 400, "invalid_query"),
        ("/v1/chains/NIFTY/nearest?kind=call&kind=put", 400, "invalid_query"),
        ("/v1/chains/NIFTY/nearest?fields=colour", 400, "invalid_query"),
        ("/v1/chains/NIFTY/nearest?as_of=2026-01-25", 503, "database_unavailable"),
        (f"/v1/contracts/{ATM}/history", 503, "database_unavailable"),
        ("/v1/underlyings?ts=" + "x" * 9_000, 414, "uri_too_long"),
    ],
)
async def test_bad_request_gets_a_problem(
    shared: Gateway, path: str, status: int, code: str
) -> None:
    assert problem(await shared.get(path), status)["code"] == code


async def test_other_methods_hosts_and_bodies_get_problems(shared: Gateway) -> None:
    posted = await shared.http.post("/v1/underlyings")
    assert problem(posted, 405)["code"] == "method_not_allowed"
    assert "GET" in posted.headers["allow"]
    foreign = await shared.get("/v1/underlyings", headers={"Host": "rebound.example"})
    assert problem(foreign, 421)["code"] == "bad_host"
    large = await shared.http.post("/v1/underlyings", content=b"x" * 70_000)
    assert problem(large, 413)["code"] == "body_too_large"


async def test_unreadable_value_is_a_problem_and_not_a_stack(served: Gateway) -> None:
    await served.redis.set(served.topics.latest("NIFTY-20260127"), b"{not json")
    body = problem(await served.get("/v1/chains/NIFTY/nearest"), 500)
    assert body["code"] == "undecodable_value"
    assert "json" not in json.dumps(body).replace("application/problem+json", "")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer abc"},
    ],
    ids=["none", "basic", "empty", "garbage"],
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/underlyings",
        "/v1/underlyings/NIFTY",
        "/v1/underlyings/NIFTY/expiries",
        "/v1/underlyings/NIFTY/history",
        "/v1/chains/NIFTY/nearest",
        f"/v1/contracts/{ATM}",
        f"/v1/contracts/{ATM}/history",
        "/v1/snapshots?ids=NIFTY",
        "/v1/snapshots/NIFTY",
        "/v1/subjects",
        "/v1/subjects/chain.raw/versions/latest",
    ],
)
async def test_data_routes_need_a_token(
    shared: Gateway, path: str, headers: dict[str, str]
) -> None:
    response = await shared.http.get(path, headers=headers)
    problem(response, 401)
    assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_scopes_are_kept_apart(shared: Gateway) -> None:
    live = {"Authorization": f"Bearer {shared.token('live')}"}
    history = {"Authorization": f"Bearer {shared.token('history')}"}
    assert (await shared.http.get("/v1/underlyings", headers=live)).status_code == 200
    refused = await shared.http.get("/v1/underlyings", headers=history)
    assert problem(refused, 403)["code"] == "insufficient_scope"
    assert 'scope="live"' in refused.headers["www-authenticate"]
    for path in ("/v1/underlyings/NIFTY/history", "/v1/chains/NIFTY/nearest?as_of=2026-01-25"):
        refused = await shared.http.get(path, headers=live)
        assert problem(refused, 403)["code"] == "insufficient_scope"


async def test_request_id_is_taken_over_or_made(shared: Gateway) -> None:
    given = await shared.get("/v1/underlyings", headers={"X-Request-Id": "desk-1"})
    assert given.headers["x-request-id"] == given.json()["meta"]["request_id"] == "desk-1"
    bad = await shared.get("/v1/underlyings", headers={"X-Request-Id": "a b\tc"})
    assert bad.headers["x-request-id"] not in ("a b\tc", "")


async def test_head_is_get_without_a_body(shared: Gateway) -> None:
    token = {"Authorization": f"Bearer {shared.token()}"}
    response = await shared.http.head("/v1/underlyings", headers=token)
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 100


async def test_health_and_description_need_no_token(shared: Gateway) -> None:
    assert (await shared.http.get("/healthz")).json() == {"status": "alive"}
    ready = await shared.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["reasons"][0] == "no database is configured"
    assert ready.json()["checks"]["redis"]["is_up"] is True
    assert 29 < ready.json()["data"]["NIFTY"]["age_s"] < 600
    document = (await shared.http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"


async def test_description_names_every_route_and_parameter(shared: Gateway) -> None:
    paths = (await shared.http.get("/openapi.json")).json()["paths"]
    assert set(paths) >= {
        "/healthz",
        "/readyz",
        "/v1/underlyings",
        "/v1/underlyings/{underlying}",
        "/v1/underlyings/{underlying}/expiries",
        "/v1/underlyings/{underlying}/history",
        "/v1/underlyings/{underlying}/surface",
        "/v1/chains/{underlying}/{expiry}",
        "/v1/contracts/{symbol}",
        "/v1/contracts/{symbol}/history",
        "/v1/snapshots",
        "/v1/snapshots/{symbol}",
        "/v1/subjects",
        "/v1/subjects/{subject}/versions",
        "/v1/subjects/{subject}/versions/{version}",
        "/v1/subjects/{subject}/versions/{version}/schema",
        "/v1/schemas/ids/{number}",
        "/v1/schemas/types",
        "/v1/config",
        "/v1/config/{subject}",
        "/v1/compatibility/subjects/{subject}/versions",
        "/v1/compatibility/subjects/{subject}/versions/{version}",
    }
    chain = paths["/v1/chains/{underlying}/{expiry}"]["get"]
    names = {parameter["name"] for parameter in chain["parameters"]}
    assert {"underlying", "expiry", "strike.gte", "around", "as_of", "ts"} <= names
    assert chain["security"] == [{"bearer": ["live"]}, {"bearer": ["history"]}]
    assert paths["/healthz"]["get"]["security"] == []


async def test_every_answer_has_the_security_headers(shared: Gateway) -> None:
    for path in ("/", "/healthz", "/v1/underlyings", "/nothing"):
        headers = (await shared.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


@pytest.mark.parametrize("path", ["/", "/assets/nothing.js", "/assets/..%2f..%2fapp.py"])
async def test_page_is_served_or_says_how_to_build_it(
    path: str, shared: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "DIST", tmp_path / "dist")
    response = await shared.http.get(path)
    assert response.status_code == (503 if path == "/" else 404)
    if path == "/":
        assert "make page" in response.text
    (tmp_path / "dist" / "assets").mkdir(parents=True)
    (tmp_path / "dist" / "index.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "dist" / "assets" / "page-ABC.js").write_text("0")
    document = await shared.http.get("/")
    assert document.status_code == 200
    assert document.headers["cache-control"] == "no-cache"
    policy = document.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = await shared.http.get("/assets/page-ABC.js")
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-type"].startswith("text/javascript")
    assert (await shared.http.get(path)).status_code == (200 if path == "/" else 404)
