"""The rules between rooms hold, and each rule's check notices a breach."""

import pytest

from tests.support import rooms
from tests.support.rooms import Module, parse

PROJECT = rooms.modules()
IMPORTS = [found for module in PROJECT.values() for found in rooms.imports(module)]
GRAPH = rooms.graph(PROJECT)

# Who may import a package of others; a name stands for itself and everything below it.
ALLOWED: dict[str, tuple[str, ...]] = {
    "redis": (
        *("pipeline.streams", "pipeline.latest", "pipeline.limits", "pipeline.credentials"),
        *("pipeline.keys", "pipeline.revocations"),
        *("pipeline.schemas", "pipeline.runtime", "pipeline.cluster"),
        *("pipeline.listening", "pipeline.replay"),
        "pipeline.layout",
        *("stockify", "api.__main__"),
    ),
    "psycopg": ("pipeline.database", "stockify.bench"),
    "psycopg_pool": ("pipeline.database", "stockify.bench"),
    "httpx": ("workers.ingest", "api.access"),
    "litestar": ("api", "workers.simulator", "stockify.bench.gateway.constant_peer"),
    "numba": ("pipeline.kernels",),
    "opentelemetry": ("pipeline.telemetry",),
    "prometheus_client": ("pipeline.telemetry",),
    "pyarrow": ("pipeline.cold", "pipeline.exports", "api.rest.arrow", "api.rest.batches"),
}
# The simulator checks ingest, so it may not share the code that ingest is made of.
SIMULATOR_MAY = (
    *("pipeline.calendar", "pipeline.clock", "pipeline.config", "pipeline.telemetry"),
    *("pipeline.errors", "pipeline.kernels"),
)
KERNELS_MAY = ("numba", "numpy", "math", "collections.abc", "typing", "pipeline.kernels")


def is_within(name: str, rooms_allowed: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms_allowed)


def worker_of(module: str) -> str:
    """The part of a worker's name that no other worker shares."""
    return ".".join(module.split(".")[:2])


def strangers(imports: list[rooms.Import], package: str, allowed: tuple[str, ...]) -> list[str]:
    return [
        f"{found.module}:{found.line} imports {found.target}"
        for found in imports
        if is_within(found.target, (package,)) and not is_within(found.module, allowed)
    ]


def test_the_project_has_modules_to_check() -> None:
    assert {"pipeline.config", "pipeline.topics", "pipeline.telemetry"} <= set(PROJECT)


@pytest.mark.parametrize("package", ALLOWED)
def test_package_is_imported_only_where_it_may(package: str) -> None:
    assert strangers(IMPORTS, package, ALLOWED[package]) == []


def test_pipeline_imports_nobody_above_it() -> None:
    above = ("workers", "api", "stockify", "tests")
    assert [
        found
        for found in IMPORTS
        if is_within(found.module, ("pipeline",)) and is_within(found.target, above)
    ] == []


def test_workers_never_import_each_other() -> None:
    assert [
        found
        for found in IMPORTS
        if is_within(found.module, ("workers",))
        and found.target.count(".")
        and is_within(found.target, ("workers",))
        and worker_of(found.module) != worker_of(found.target)
    ] == []


def test_gateway_never_imports_workers() -> None:
    assert strangers(IMPORTS, "workers", ("workers", "stockify")) == []


def test_nobody_imports_the_command_or_the_tests() -> None:
    assert strangers(IMPORTS, "stockify", ("stockify",)) == []
    assert strangers(IMPORTS, "tests", ()) == []


def test_simulator_shares_only_the_neutral_rooms() -> None:
    assert [
        found
        for found in IMPORTS
        if is_within(found.module, ("workers.simulator",))
        and is_within(found.target, ("pipeline", "stockify", "api"))
        and not is_within(found.target, SIMULATOR_MAY)
    ] == []


def test_kernels_import_only_numba_numpy_math_and_each_other() -> None:
    assert [
        found
        for found in IMPORTS
        if is_within(found.module, ("pipeline.kernels",))
        and not is_within(found.target, KERNELS_MAY)
    ] == []


def test_gateway_reaches_no_numba() -> None:
    compiled = {
        found.module for found in IMPORTS if is_within(found.target, ("numba", "pipeline.kernels"))
    }
    gateway = {name for name in PROJECT if is_within(name, ("api",))}
    reached = gateway.union(*(rooms.reach(name, GRAPH) for name in gateway))
    assert reached & compiled == set()


def test_environment_is_read_only_in_config() -> None:
    assert [
        f"{name}:{line}"
        for name, module in PROJECT.items()
        if name != "pipeline.config"
        for line in rooms.environment_reads(module)
    ] == []


def test_no_import_circles() -> None:
    assert rooms.circles(GRAPH) == []


def test_sql_stands_only_in_sql_files() -> None:
    assert [text for module in PROJECT.values() for text in rooms.sql_texts(module)] == []


def test_redis_keys_are_named_only_in_topics() -> None:
    assert [
        text
        for name, module in PROJECT.items()
        if name != "pipeline.topics"
        for text in rooms.redis_keys(module)
    ] == []


def test_no_room_without_a_subject() -> None:
    nameless = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    assert [name for name in PROJECT if nameless & set(name.split("."))] == []


def test_functions_and_files_stay_readable() -> None:
    long = [found for module in PROJECT.values() for found in rooms.long_functions(module, 70)]
    for room in rooms.ROOMS:
        for path in (rooms.CHECKOUT / room).rglob("*.py"):
            lines = 0 if "node_modules" in path.parts else path.read_text().count("\n")
            long += [f"{path}: {lines} lines"] if lines > 400 else []
    assert long == []


# --- each check notices a breach ---------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import redis.asyncio as bus", id="plain"),
        pytest.param("from redis import Redis", id="from"),
        pytest.param("def f():\n    import redis", id="in-a-function"),
        pytest.param(
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from redis import Redis",
            id="typing-only",
        ),
        pytest.param("import importlib\nimportlib.import_module('redis')", id="dynamic"),
    ],
)
def test_forbidden_import_is_noticed(source: str) -> None:
    found = rooms.imports(parse("workers.storage", source))
    assert len(strangers(found, "redis", ALLOWED["redis"])) == 1
    assert strangers(found, "redis", ("workers.storage",)) == []


def test_package_with_a_longer_name_is_another_package() -> None:
    found = rooms.imports(parse("workers.storage", "import redis_lock\nimport numbagg"))
    assert strangers(found, "redis", ()) == []
    assert strangers(found, "numba", ()) == []


def test_relative_import_is_resolved() -> None:
    inside = parse("workers.ingest.mapper", "from . import breaker\nfrom ..storage import rows")
    assert [found.target for found in rooms.imports(inside)] == [
        "workers.ingest.breaker",
        "workers.storage.rows",
    ]


def test_circle_through_a_function_is_noticed() -> None:
    project: dict[str, Module] = {
        "a": parse("a", "import b"),
        "b": parse("b", "def f():\n    from c import thing"),
        "c": parse("c", "import a"),
        "d": parse("d", "import a"),
    }
    assert rooms.circles(rooms.graph(project)) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "source",
    ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"],
    ids=["environ", "getenv", "from"],
)
def test_reading_the_environment_is_noticed(source: str) -> None:
    assert len(rooms.environment_reads(parse("api.app", source))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ts_ingest FROM option_contracts",
        "select 1",
        "insert into ledger values (1)",
        "BEGIN; INSERT INTO ledger VALUES (1)",
        "COPY option_contracts FROM STDIN (FORMAT binary)",
        "CREATE TABLE x (y int)",
        "with newest as (select 1) select 2",
    ],
)
def test_sql_in_a_string_is_noticed(text: str) -> None:
    assert len(rooms.sql_texts(parse("api.rest.history", f"query = {text!r}"))) == 1


@pytest.mark.parametrize(
    "text", ["Select an expiry", "update of the chain", "copy the file", "created with care"]
)
def test_plain_english_is_no_sql(text: str) -> None:
    assert rooms.sql_texts(parse("api.rest.history", f"say = {text!r}")) == []


@pytest.mark.parametrize(
    "expression",
    ["'stream:raw'", "f'latest:{symbol}'", "b'live:NIFTY'", "'worker:*'", "'__keyspace@0__:x'"],
)
def test_redis_key_literal_is_noticed(expression: str) -> None:
    assert len(rooms.redis_keys(parse("workers.realtime", f"key = {expression}"))) == 1


def test_docstrings_may_speak_of_keys_and_queries() -> None:
    source = '"""latest:NIFTY is read with\nSELECT nothing FROM nowhere"""'
    module = parse("workers.realtime", source)
    assert rooms.redis_keys(module) == []
    assert rooms.sql_texts(module) == []


def test_long_function_is_noticed() -> None:
    body = "\n".join("    x = 1" for _ in range(80))
    assert rooms.long_functions(parse("m", f"def f():\n{body}"), 70) == ["m.f: 81 lines"]
    assert rooms.long_functions(parse("m", f'def f():\n    """A.\n{body}\n"""'), 70) == []
