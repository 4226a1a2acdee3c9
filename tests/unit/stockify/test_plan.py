import importlib.util
import socket
from collections.abc import Iterator

import msgspec
import pytest

from pipeline.config import Settings
from pipeline.errors import ConfigError
from stockify import plan
from stockify.instance import Secrets
from stockify.plan import Plan, Ports

SECRETS = Secrets(jwt_secret="s" * 40, redis_password="p")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def make(settings: Settings, *, simulated: bool = True) -> Plan:
    return plan.make(
        settings,
        SECRETS,
        Ports(),
        redis_url="redis://:p@127.0.0.1:1/0",
        database_url="postgresql://u:p@127.0.0.1:2/d",
        simulated=simulated,
    )


def test_usual_port_is_taken_where_it_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert Ports().usual("it", port) == port


def test_another_port_is_given_and_told_where_the_usual_is_taken(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    ports = Ports()
    assert ports.usual("the gateway", port) != port
    assert len(ports.moved) == 1
    assert f"port {port} is taken: the gateway" in ports.moved[0]


def test_no_port_is_given_twice() -> None:
    ports = Ports()
    given = [ports.free() for _ in range(50)] + [ports.usual("it", 0)]
    assert len(set(given)) == len(given)


def test_port_that_is_given_is_none_that_a_connection_could_take() -> None:
    ports = Ports()
    assert max(ports.free() for _ in range(1_000)) < 32_768  # where Linux begins


def test_simulated_instance_points_ingest_at_the_simulator() -> None:
    made = make(Settings(simulator_port=0, gateway_port=0))
    settings = made.settings
    assert settings.provider == "simulator"
    assert settings.dhan_base_url == f"http://127.0.0.1:{settings.simulator_port}/v2"
    assert (settings.chain_budget, settings.poll_closed_market) == ("chain", True)
    assert made.launches[0].name == "simulator"
    assert made.launches[-1].name == "gateway"


def test_real_instance_has_no_simulator_and_keeps_its_credentials() -> None:
    given = Settings(dhan_client_id="1", dhan_access_token="t", gateway_port=0)
    made = make(given, simulated=False)
    assert "simulator" not in [launch.name for launch in made.launches]
    assert made.settings.dhan_base_url == given.dhan_base_url
    assert (made.settings.chain_budget, made.settings.dhan_access_token) == ("account", "t")


def test_every_process_has_a_metrics_port_and_a_kernel_cache_of_its_own() -> None:
    made = make(Settings(gateway_port=0, simulator_port=0))
    for variable in ("STOCKIFY_METRICS_PORT", "NUMBA_CACHE_DIR"):
        values = [launch.env[variable] for launch in made.launches]
        assert len(set(values)) == len(plan.MODULES)


def test_processes_share_one_clock_and_the_engines() -> None:
    made = make(Settings(clock="x60", gateway_port=0, simulator_port=0))
    for variable in ("CLOCK", "REDIS_URL", "DATABASE_URL", "STATE_DIR"):
        assert len({launch.env[f"STOCKIFY_{variable}"] for launch in made.launches}) == 1
    assert made.settings.clock.count("@") == 2
    assert made.settings.jwt_secret == SECRETS.jwt_secret


def test_each_process_is_given_the_secrets_that_it_needs() -> None:
    users: dict[str, set[str]] = {}
    given = Settings(
        gateway_port=0, dhan_client_id="1", dhan_access_token="of-account", dhan_token_file="/token"
    )
    for one in (
        *make(given, simulated=False).launches,
        *make(Settings(gateway_port=0, simulator_port=0)).launches,
    ):
        for text in (SECRETS.jwt_secret, "of-account", "/token", plan.SIMULATED_TOKEN):
            if text in one.env.values():
                users.setdefault(text, set()).add(one.name)
    assert users == {
        SECRETS.jwt_secret: {"gateway"},
        "of-account": {"ingest"},
        "/token": {"ingest"},
        plan.SIMULATED_TOKEN: {"ingest", "simulator"},
    }


def test_relative_paths_are_settled_before_children_run_elsewhere() -> None:
    made = make(Settings(state_dir="here", dhan_token_file="token", gateway_port=0))
    assert made.settings.state_dir.startswith("/")
    kept = make(Settings(dhan_token_file="token", gateway_port=0), simulated=False)
    assert kept.settings.dhan_token_file.startswith("/")


@pytest.mark.parametrize(
    ("place", "start"), [("keys.json", "/"), ("https://issuer.example/keys", "https://"), ("", "")]
)
def test_place_of_a_key_set_is_settled_too(place: str, start: str) -> None:
    made = make(Settings(jwt_jwks=place, jwt_issuer="issuer", gateway_port=0))
    assert made.settings.jwt_jwks.startswith(start)
    assert made.settings.jwt_jwks.endswith(place)


def test_generated_secret_does_not_hold_beside_given_ones() -> None:
    made = make(Settings(jwt_secrets=("new" * 12, "old" * 12), gateway_port=0))
    assert made.settings.jwt_secret == ""
    (gateway,) = [launch for launch in made.launches if launch.name == "gateway"]
    assert gateway.env["STOCKIFY_JWT_SECRETS"] == f"{'new' * 12},{'old' * 12}"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - what a user may choose
        ("::1", "[::1]"),
    ],
)
def test_page_address_can_be_opened_whatever_is_bound(host: str, shown: str) -> None:
    made = make(Settings(gateway_host=host, gateway_port=0, simulator_port=0))
    assert made.gateway_url == f"http://{shown}:{made.settings.gateway_port}"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "CLIENT_ID and STOCKIFY_DHAN_ACCESS_TOKEN"),
        ({"dhan_client_id": "1"}, "ACCESS_TOKEN"),
        ({"dhan_access_token": "t"}, "CLIENT_ID"),
    ],
    ids=["both", "token", "client"],
)
def test_missing_credentials_are_named(given: dict[str, str], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        plan.check_provider(msgspec.structs.replace(Settings(), **given))


def test_token_file_stands_in_for_the_token() -> None:
    plan.check_provider(Settings(dhan_client_id="1", dhan_token_file="/run/token"))


def test_drain_goes_the_way_the_data_go() -> None:
    order = [name for stage in plan.DRAIN_ORDER for name in stage]
    assert set(plan.MODULES) | {"valkey", "postgres"} == set(order)
    assert order.index("ingest") < order.index("processor") < order.index("storage")
    assert order.index("storage") < order.index("gateway") < order.index("valkey")


def test_optional_workers_exist_and_are_not_started_by_up() -> None:
    assert all(importlib.util.find_spec(module) for module in plan.OPTIONAL.values())
    names = {launch.name for launch in make(Settings()).launches}
    assert names == set(plan.MODULES)
    assert not names & set(plan.OPTIONAL)
