"""The simulator as a process, asked over HTTP: by hand, and by the provider's own client."""

import email.utils
import itertools
import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from dhanhq import DhanContext, dhanhq

from pipeline.clock import to_ns
from tests.support import simulator
from tests.support.simulator import Simulator

START = "2026-01-22T12:00:00+05:30"
NIFTY = {"UnderlyingScrip": 13, "UnderlyingSeg": "IDX_I"}
CHAIN = NIFTY | {"Expiry": "2026-01-27"}
_clients = itertools.count(1_000_000_001)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Simulator]:
    with simulator.running(clock=START, simulator_seed=5) as running:
        yield running


@pytest.fixture
def client(exchange: Simulator) -> Iterator[httpx.Client]:
    """A client with an id of its own, so that its rate limits are its own too."""
    with connected(exchange) as one:
        yield one


def connected(exchange: Simulator) -> httpx.Client:
    headers = {"access-token": "token", "client-id": str(next(_clients))}
    return httpx.Client(base_url=exchange.url, headers=headers, trust_env=False, timeout=20)


def chain_of(client: httpx.Client, **change: object) -> httpx.Response:
    return client.post("/optionchain", json=CHAIN | change)


def wait_for_market(exchange: Simulator, seconds: float) -> None:
    """Until the market's own clock has moved on by that much."""
    until_ns, deadline = market_now_ns(exchange) + int(seconds * 1e9), time.monotonic() + 10
    while market_now_ns(exchange) < until_ns:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def market_now_ns(exchange: Simulator) -> int:
    text = httpx.get(f"{exchange.root}/healthz", trust_env=False).json()["now"]
    return to_ns(datetime.fromisoformat(text))


def test_chain_answers_with_the_markets_own_date(client: httpx.Client) -> None:
    answer = chain_of(client)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    at = email.utils.parsedate_to_datetime(answer.headers["date"])
    assert at.strftime("%Y-%m-%d %H") == "2026-01-22 06"
    data = answer.json()["data"]
    assert 20_000 < data["last_price"] < 32_000
    assert len(data["oc"]) == 241


def test_expiry_list_is_ascending_and_its_first_chain_is_answered(client: httpx.Client) -> None:
    days = client.post("/optionchain/expirylist", json=NIFTY).json()["data"]
    assert days == sorted(days)
    assert days[:2] == ["2026-01-27", "2026-02-03"]
    assert len(days) >= 17
    assert chain_of(client, Expiry=days[0]).status_code == 200


@pytest.mark.parametrize(
    "named",
    [
        pytest.param({"UnderlyingScrip": 25}, id="BANKNIFTY"),
        pytest.param({"UnderlyingScrip": 27}, id="FINNIFTY"),
        pytest.param({"UnderlyingScrip": 51}, id="SENSEX"),
        pytest.param({"UnderlyingScrip": 1, "UnderlyingSeg": "BSE_FNO"}, id="SENSEX by token"),
        pytest.param({"UnderlyingScrip": "13", "dhanClientId": "x"}, id="NIFTY as text"),
    ],
)
def test_every_underlying_answers(client: httpx.Client, named: dict[str, Any]) -> None:
    days = client.post("/optionchain/expirylist", json=NIFTY | named).json()["data"]
    answer = chain_of(client, **named, Expiry=days[0])
    assert answer.status_code == 200
    legs = [leg for sides in answer.json()["data"]["oc"].values() for leg in sides.values()]
    assert sum(leg["volume"] > 0 for leg in legs) > 50


def test_every_client_and_every_process_sees_the_same_market_at_the_same_time() -> None:
    texts = set()
    for _process in range(2):
        # A clock that all but stands still.
        with simulator.running(clock=f"{START}@x0.000001", simulator_seed=9) as still:
            for _client in range(2):
                with connected(still) as one:
                    texts.add(chain_of(one).text)
    assert len(texts) == 1


def test_same_chain_is_limited_to_one_in_three_seconds_and_others_are_not(
    client: httpx.Client,
) -> None:
    began = time.monotonic()
    assert chain_of(client).status_code == 200
    refused = chain_of(client)
    assert refused.status_code == 429
    assert refused.json() == {
        "data": {
            "805": "Too many requests. Further requests may result in the user being blocked."
        },
        "status": "failed",
    }
    assert chain_of(client, Expiry="2026-02-03").status_code == 200
    while chain_of(client).status_code == 429:
        assert time.monotonic() - began < 10
        time.sleep(0.05)
    assert time.monotonic() - began > 2.5


def test_three_quote_endpoints_share_one_request_a_second(client: httpx.Client) -> None:
    assert client.post("/marketfeed/ltp", json={"IDX_I": [13]}).status_code == 200
    assert client.post("/marketfeed/ohlc", json={"IDX_I": [13]}).status_code == 429


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        pytest.param({"Expiry": "2026-01-28"}, 400, "811", id="not listed"),
        pytest.param({"Expiry": "2026-01-20"}, 400, "811", id="expired"),
        pytest.param({"Expiry": "27-01-2026"}, 400, "812", id="date form"),
        pytest.param({"UnderlyingScrip": 14}, 400, "813", id="unknown id"),
        pytest.param({"UnderlyingSeg": None}, 400, "814", id="no segment"),
    ],
)
def test_wrong_requests_get_the_providers_code(
    client: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    answer = chain_of(client, **change)
    assert answer.status_code == status
    assert list(answer.json()["data"]) == [code]
    assert answer.json()["status"] == "failed"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({"access-token": ""}, "808", id="empty token"),
        pytest.param({"access-token": "not one"}, "809", id="malformed token"),
        pytest.param({"access-token": "expired"}, "807", id="expired token"),
        pytest.param({"client-id": "no id!"}, "810", id="malformed client id"),
    ],
)
def test_bad_credentials_are_401(client: httpx.Client, headers: dict[str, str], code: str) -> None:
    for path in ("/optionchain", "/optionchain/expirylist", "/marketfeed/ltp"):
        answer = client.post(path, json=CHAIN, headers=headers)
        assert answer.status_code == 401
        assert list(answer.json()["data"]) == [code]


def test_unknown_path_and_method_have_the_gateways_body(client: httpx.Client) -> None:
    lost = client.get("/nothing")
    assert lost.status_code == 404
    assert list(lost.json()) == ["timestamp", "status", "error", "path"]
    assert lost.json() | {"timestamp": 0} == {
        "timestamp": 0,
        "status": 404,
        "error": "Not Found",
        "path": "/v2/nothing",
    }
    assert client.get("/optionchain").status_code == 405


def test_option_quote_agrees_with_its_leg(client: httpx.Client) -> None:
    document = chain_of(client).json()["data"]
    spot = document["last_price"]
    strike = min(document["oc"], key=lambda text: abs(float(text) - spot))
    leg = document["oc"][strike]["ce"]
    number = leg["security_id"]
    asked = {"NSE_FNO": [number, 1], "IDX_I": [13], "NSE_EQ": [11536], "more": ["x"]}
    data = client.post("/marketfeed/quote", json=asked).json()["data"]
    assert list(data) == ["IDX_I", "NSE_EQ", "NSE_FNO"]
    assert data["NSE_EQ"] == {}
    assert list(data["NSE_FNO"]) == [str(number)]
    quote = data["NSE_FNO"][str(number)]
    assert quote["last_price"] == pytest.approx(leg["last_price"], rel=0.05)
    assert quote["volume"] >= leg["volume"]
    assert quote["ohlc"]["close"] == leg["previous_close_price"]
    assert quote["ohlc"]["low"] <= quote["last_price"] <= quote["ohlc"]["high"]
    assert len(quote["depth"]["buy"]) == len(quote["depth"]["sell"]) == 5
    assert quote["depth"]["buy"][0]["price"] < quote["depth"]["sell"][0]["price"]
    assert quote["last_trade_time"].startswith("22/01/2026 ")
    assert data["IDX_I"]["13"]["last_price"] == pytest.approx(spot, rel=0.001)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("truncated", 200), ("html_502", 502), ("error_200", 200), ("error_500", 500)],
)
def test_ordered_fault_spoils_the_next_answer_only(
    exchange: Simulator, kind: str, status: int
) -> None:
    exchange.order_fault(kind=kind, count=1, underlying="BANKNIFTY")
    bank = {"UnderlyingScrip": 25}
    with connected(exchange) as one, connected(exchange) as other:
        assert chain_of(one).json()["status"] == "success"
        spoilt = chain_of(one, **bank)
        assert spoilt.status_code == status
        with pytest.raises((json.JSONDecodeError, KeyError)):
            assert spoilt.json()["data"]["oc"]
        assert chain_of(other, **bank).json()["status"] == "success"


def test_stale_fault_repeats_the_body_before(exchange: Simulator) -> None:
    with connected(exchange) as one, connected(exchange) as other:
        first = chain_of(one, Expiry="2026-02-10")
        exchange.order_fault(kind="stale", expiry="2026-02-10")
        wait_for_market(exchange, 0.6)  # quotes are made anew every half second
        assert chain_of(other, Expiry="2026-02-10").text == first.text


def test_health_says_ready(exchange: Simulator) -> None:
    health = httpx.get(f"{exchange.root}/healthz", trust_env=False).json()
    assert health["state"] == "ready"
    assert health["now"].startswith("2026-01-22T06:")


def test_metrics_endpoint_counts_requests(exchange: Simulator, client: httpx.Client) -> None:
    before = exchange.report()["counters"]["requests"]
    chain_of(client)
    after = exchange.report()
    assert after["counters"]["requests"] == before + 1
    assert after["state"] == "ready"
    assert exchange.url.endswith(f":{int(after['gauges']['port'])}/v2")


@pytest.fixture
def official(exchange: Simulator) -> Iterator[dhanhq]:
    """The provider's own client, pointed at the simulator."""
    context = DhanContext(str(next(_clients)), "token")
    http = context.get_dhan_http()
    http.base_url = exchange.url
    http.session.trust_env = False
    yield dhanhq(context)
    http.session.close()


def test_official_client_gets_chains_and_expiries(official: dhanhq) -> None:
    listed = official.expiry_list(under_security_id=13, under_exchange_segment="IDX_I")
    assert listed["status"] == "success"
    expiry = listed["data"]["data"][1]
    answer = official.option_chain(13, "IDX_I", expiry)
    assert answer["status"] == "success"
    data = answer["data"]["data"]
    assert data["last_price"] > 0
    sides = next(iter(data["oc"].values()))
    assert {"greeks", "implied_volatility", "last_price", "oi"} <= set(sides["ce"])


def test_official_client_gets_the_three_quotes(exchange: Simulator, official: dhanhq) -> None:
    wanted = {"IDX_I": [13, 25, 27, 51]}
    fields = []
    for ask in (official.ticker_data, official.ohlc_data, official.quote_data):
        answer = ask(dict(wanted))
        assert answer["status"] == "success", answer
        wait_for_market(exchange, 1.1)  # the provider's limit: one quote request a second
        found = answer["data"]["data"]["IDX_I"]
        assert set(found) == {"13", "25", "27", "51"}
        fields.append(set(found["13"]))
    assert fields[0] == {"last_price"}
    assert fields[1] == {"last_price", "ohlc"}
    assert fields[2] >= {"depth", "last_trade_time", "upper_circuit_limit", "volume"}


def test_official_client_reads_errors_as_failures(official: dhanhq) -> None:
    answer = official.option_chain(13, "IDX_I", "2026-01-28")
    assert answer["status"] == "failure"


def test_account_limit_and_accepted_token_follow_the_settings() -> None:
    settings = {"simulator_chain_limit": "account", "dhan_access_token": "the.only.one"}
    with simulator.running(clock=START, **settings) as strict, connected(strict) as one:
        assert list(chain_of(one).json()["data"]) == ["809"]
        one.headers["access-token"] = "the.only.one"
        assert chain_of(one).status_code == 200
        assert chain_of(one, Expiry="2026-02-03").status_code == 429
        assert strict.stop() == 0


def test_taken_port_ends_the_process_with_one_line() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        process = simulator.start(simulator_port=holder.getsockname()[1])
        output, _ = process.communicate(timeout=simulator.START_S)
    assert process.returncode == 1
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["event"] for line in lines] == ["cannot_listen"]
    assert lines[0]["level"] == "error"


def test_wrong_setting_ends_the_process_with_its_name() -> None:
    process = simulator.start(clock="tomorrow")
    output, _ = process.communicate(timeout=simulator.START_S)
    assert process.returncode == 2
    assert "tomorrow" in output
    assert "Traceback" not in output


def test_stop_is_quick_even_with_a_connection_kept_alive() -> None:
    with simulator.running(clock=START) as running, connected(running) as one:
        assert chain_of(one).status_code == 200
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 3
