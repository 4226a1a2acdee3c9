"""The deployment's files are well-formed, agree with each other and with the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import yaml
from jsonschema.validators import validator_for
from ruamel.yaml import YAML

from pipeline.config import PREFIX, Settings
from pipeline.telemetry import Telemetry
from stockify.plan import MODULES
from tests.support import metrics
from tests.support.rooms import CHECKOUT

SCRIPTS = Path(sys.executable).parent
SCHEMAS = resources.files("check_jsonschema") / "builtin_schemas/vendor"
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"] == "stockify:local"}
PROMETHEUS = CHECKOUT / "deploy/prometheus"
DASHBOARD: dict[str, Any] = json.loads(
    (CHECKOUT / "deploy/grafana/dashboards/stockify.json").read_text()
)


class StaticTargets(msgspec.Struct, forbid_unknown_fields=True):
    targets: list[str]
    labels: dict[str, str] = {}


class ScrapeJob(msgspec.Struct, forbid_unknown_fields=True):
    job_name: str
    static_configs: list[StaticTargets]


class Intervals(msgspec.Struct, forbid_unknown_fields=True):
    scrape_interval: str
    evaluation_interval: str


class PrometheusConfig(msgspec.Struct, forbid_unknown_fields=True):
    global_: Intervals = msgspec.field(name="global")
    rule_files: list[str]
    scrape_configs: list[ScrapeJob]


class Alert(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str = "0s"


class AlertGroup(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    rules: list[Alert]


class AlertFile(msgspec.Struct, forbid_unknown_fields=True):
    groups: list[AlertGroup]


def prometheus_config() -> PrometheusConfig:
    text = (PROMETHEUS / "prometheus.yml").read_text()
    return msgspec.yaml.decode(text, type=PrometheusConfig)


def alerts() -> list[Alert]:
    text = (PROMETHEUS / "alerts.yml").read_text()
    file = msgspec.yaml.decode(text, type=AlertFile)
    return [rule for group in file.groups for rule in group.rules]


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of the deployment with the place it stands."""
    for rule in alerts():
        yield f"alert {rule.alert}", rule.expr
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


def selectors(query: str) -> set[str]:
    """The metric names that a query reads; a query that is none raises ValueError."""
    canonical = str(promql_parser.parse(query))  # in which every selector has its braces
    return set(re.findall(r"([a-zA-Z_:][\w:]*)\{", canonical))


def environment_of(service: str) -> dict[str, Any]:
    return dict(SERVICES[service].get("environment", {}))


# --- compose -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "path"),
    [("compose-spec", "compose.yaml"), ("github-workflows", ".github/workflows/test.yml")],
    ids=["compose", "workflow"],
)
def test_file_follows_its_published_schema(schema: str, path: str) -> None:
    published = json.loads((SCHEMAS / f"{schema}.json").read_text())
    check = validator_for(published)(published)
    # YAML 1.2, in which the key `on` of a workflow is a text and not a truth.
    document = YAML(typ="safe", pure=True).load(CHECKOUT / path)
    assert [error.message for error in check.iter_errors(document)] == []
    assert list(check.iter_errors({**document, "jobs": 1, "services": 1})) != []


def test_compose_runs_every_worker_that_up_runs() -> None:
    started = {
        service["command"][1] for name in OURS if (service := SERVICES[name])["command"][0] == "run"
    }
    assert started == set(MODULES)
    assert SERVICES["migrate"]["command"] == ["migrate"]


def test_only_the_gateway_is_published_and_on_loopback_by_default() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"gateway"}
    assert SERVICES["gateway"]["ports"] == ["${STOCKIFY_PUBLISH:-127.0.0.1:8700}:8700"]


def test_every_service_is_on_the_private_network_and_no_other() -> None:
    assert COMPOSE["networks"]["stockify-net"]["name"] == "stockify-net"
    assert [name for name in SERVICES if SERVICES[name]["networks"] != ["stockify-net"]] == []


def test_every_image_is_pinned_to_a_version() -> None:
    tags = {name: service["image"].partition(":")[2] for name, service in SERVICES.items()}
    assert [name for name, tag in tags.items() if not tag or tag.startswith("latest")] == []


def test_every_setting_in_compose_is_a_setting_of_ours() -> None:
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    given = {name for service in OURS for name in environment_of(service)}
    assert given - known == set()


def test_no_secret_has_a_default() -> None:
    text = (CHECKOUT / "compose.yaml").read_text()
    used = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|TOKEN)\w*)([^}]*)\}", text)
    assert len(used) >= 6
    without = [(name, rest) for name, rest in used if not rest.startswith(":?")]
    assert without == [("STOCKIFY_JWT_SECRETS", ":-")]  # none, unless a secret is being changed
    written = re.findall(r"(?im)^\s*\w*(?:password|secret|token)\w*:\s*(?!\$\{)(\S+)", text)
    assert written == []


def test_dependencies_exist_and_engines_are_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            healthy = condition["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in SERVICES[other]
    for name in OURS - {"migrate"}:
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    for name in ("storage", "gateway"):
        waits = SERVICES[name]["depends_on"]["migrate"]
        assert waits == {"condition": "service_completed_successfully"}


def test_environment_file_gives_every_variable_that_compose_insists_on(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = tmp_path / "deploy/make-env.sh"
    shutil.copy(CHECKOUT / "deploy/make-env.sh", script)
    subprocess.run([script], check=True, capture_output=True)
    text = (tmp_path / ".env").read_text()
    subprocess.run([script], check=True, capture_output=True)
    assert (tmp_path / ".env").read_text() == text  # passwords in use are never replaced
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    given = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    insisted = re.findall(r"\$\{(\w+):\?", (CHECKOUT / "compose.yaml").read_text())
    assert {name for name in insisted if not given.get(name)} == set()
    assert len(given["STOCKIFY_JWT_SECRET"].encode()) >= 32
    assert len({value for name, value in given.items() if "PASSWORD" in name}) == 3
    assert ".env" in (CHECKOUT / ".gitignore").read_text().splitlines()


# --- image -------------------------------------------------------------------------------------


def test_dockerfile_passes_its_linter() -> None:
    done = subprocess.run(
        [SCRIPTS / "hadolint", "--no-color", CHECKOUT / "deploy/Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_dockerfile_copies_only_what_the_build_is_given() -> None:
    text = (CHECKOUT / "deploy/Dockerfile").read_text()
    given = {
        line[1:].strip()
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", text)
        for source in line.split()[:-1]
    }
    assert copied == given
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []


def test_image_runs_without_root() -> None:
    users = re.findall(r"(?m)^USER (\S+)$", (CHECKOUT / "deploy/Dockerfile").read_text())
    assert users
    assert users[-1] not in ("root", "0")


@pytest.mark.parametrize(
    ("state", "code"), [("ready", 0), ("degraded", 1)], ids=["ready", "degraded"]
)
def test_healthcheck_follows_the_state_of_the_process(state: str, code: int) -> None:
    telemetry = Telemetry("test", Settings())
    try:
        telemetry.set_state(state)
        assert run_healthcheck(telemetry.metrics_port) == code
    finally:
        telemetry.close()
    assert run_healthcheck(telemetry.metrics_port) == 1


def run_healthcheck(port: int) -> int:
    return subprocess.run(
        [sys.executable, CHECKOUT / "deploy/healthcheck.py"],
        env=os.environ | {"STOCKIFY_METRICS_PORT": str(port)},
        capture_output=True,
        check=False,
    ).returncode


# --- Prometheus and Grafana --------------------------------------------------------------------


def test_prometheus_scrapes_every_worker_of_ours_at_its_metrics_port() -> None:
    config = prometheus_config()
    jobs = {job.job_name: job.static_configs[0].targets for job in config.scrape_configs}
    jobs.pop("prometheus")
    assert jobs == {name: [f"{name}:9100"] for name in OURS - {"migrate", "simulator"}}
    assert {environment_of(name)["STOCKIFY_METRICS_PORT"] for name in OURS} == {"9100"}


def test_rule_files_exist() -> None:
    assert [
        name for name in prometheus_config().rule_files if not (PROMETHEUS / name).exists()
    ] == []


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    assert alerts()
    for rule in alerts():
        assert set(rule.annotations) == {"summary", "action"}
        assert rule.labels["severity"] in ("page", "ticket")
        assert re.fullmatch(r"\d+[smh]", rule.for_)


@pytest.mark.parametrize(("place", "query"), list(expressions()))
def test_query_parses_and_reads_metrics_that_the_code_has(place: str, query: str) -> None:
    names = selectors(query)
    assert names, place
    known = metrics.exposed()
    assert [name for name in names if not known.fullmatch(name)] == []


def test_query_on_a_metric_that_nobody_has_is_noticed() -> None:
    assert selectors("rate(stockify_imagined_total[1m])") == {"stockify_imagined_total"}
    assert not metrics.exposed().fullmatch("stockify_imagined_total")
    with pytest.raises(ValueError, match=r".+"):
        selectors("rate(stockify_contracts_total[1m)")


@pytest.mark.parametrize(
    ("kind", "name", "unit"),
    [
        ("counter", "rows_written", ""),
        ("gauge", "lag", ""),
        ("gauge", "stream_raw_bytes", "By"),
        ("histogram", "age_raw", "s"),
    ],
)
def test_metric_names_are_what_telemetry_shows(kind: str, name: str, unit: str) -> None:
    telemetry = Telemetry("test", Settings())
    try:
        if kind == "counter":
            telemetry.counter(name, "x").add(1)
        elif kind == "gauge":
            telemetry.gauge(name, "x", lambda: 1.0, unit)
        else:
            telemetry.histogram(name, "x", unit)(1.0)
        shown = telemetry.metrics_text().decode()
    finally:
        telemetry.close()
    for full in metrics.prometheus_names(kind, name, unit):
        assert re.search(rf"(?m)^{full}\{{", shown)


def test_dashboard_is_whole_and_its_panels_do_not_overlap() -> None:
    assert DASHBOARD["uid"] == "stockify"
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    provisioning = CHECKOUT / "deploy/grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    (source,) = sources["datasources"]
    used = {panel["datasource"]["uid"] for panel in panels()}
    assert used == {source["uid"]}
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES
    providers = yaml.safe_load((provisioning / "dashboards/stockify.yml").read_text())
    path = providers["providers"][0]["options"]["path"]
    mounts = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert path in mounts
