import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from pipeline.attached import Running
from stockify import cli
from stockify.instance import ProcessStatus, StateDirectory, Status, this_process

SINCE = "2026-01-20T03:45:00.000000Z"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    monkeypatch.setenv("STOCKIFY_STATE_DIR", str(tmp_path / "state"))
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.commands, arguments)


def ended(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "stockify", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def degraded() -> Status:
    return Status(
        state="degraded",
        at=SINCE,
        pid=7,
        since=SINCE,
        gateway="http://127.0.0.1:8700",
        redis="redis://:***@127.0.0.1:6390/0",
        database="postgresql://stockify:***@127.0.0.1:5490/stockify",
        processes={"storage": ProcessStatus(state="crash-loop", rates={"rows_written": 1.5})},
    )


def test_overview_names_every_command_and_loads_none_of_them() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from stockify import cli\n"
        "out = CliRunner().invoke(cli.commands, ['--help']).output\n"
        "assert all(name in out for name in cli.COMMANDS), out\n"
        "heavy = {'psycopg', 'redis', 'jwt', 'numba', 'numpy', 'litestar'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run((sys.executable, "-W", "error", "-c", program), check=True)


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "bench"])
def test_every_command_of_the_table_can_be_loaded(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("state")
def test_status_exits_3_where_nothing_runs() -> None:
    assert invoke("status").exit_code == 3
    assert invoke("status", "--json").exit_code == 3


def test_status_of_a_degraded_instance_exits_0(state: StateDirectory) -> None:
    with state.held(this_process(SINCE)):
        state.write_status(degraded())
        result = invoke("status", "--json")
        assert result.exit_code == 0
        said = msgspec.json.decode(result.output)
        assert said["gateway"] == "http://127.0.0.1:8700"
        assert said["processes"]["storage"]["rates"] == {"rows_written": 1.5}
        shown = invoke("status")
    assert shown.exit_code == 0
    assert "crash-loop" in shown.output


def test_token_is_alone_on_stdout(state: StateDirectory) -> None:
    state.ensure_secrets()
    result = invoke("token", "--scope", "live", "--ttl", "30m")
    assert result.exit_code == 0
    assert result.output.count("\n") == 1
    assert result.output.count(".") == 2


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token",), "no secret"),
        (("env",), "no instance runs"),
        (("run", "nosuch"), "no worker"),
        (("run", "archiver", "--underlying", "NIFTY"), "for the splitter"),
        (("up", "--no-sim"), "STOCKIFY_DHAN_CLIENT_ID"),
        (("migrate",), "no database"),
    ],
    ids=["token", "env", "run", "run other", "up", "migrate"],
)
def test_what_is_missing_is_named_and_exits_2(arguments: tuple[str, ...], said: str) -> None:
    result = ended(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_env_prints_full_addresses_for_a_shell(state: StateDirectory) -> None:
    values = {"REDIS_URL": "redis://:p'w@h/0", "DATABASE_URL": "d", "SHARDS": "1", "CLOCK": "real"}
    environment = {f"STOCKIFY_{name}": value for name, value in values.items()}
    environment["STOCKIFY_STATE_DIR"] = str(state.path)
    with state.held(this_process(SINCE)):
        state.write_running(Running(gateway="http://there", environment=environment))
        printed = invoke("env").output
    script = f'{printed}\nprintf %s "$STOCKIFY_REDIS_URL"'
    shell = subprocess.run(("/bin/sh", "-c", script), capture_output=True, text=True, check=True)
    assert shell.stdout == "redis://:p'w@h/0"


def test_logs_of_an_unknown_process_name_the_known_ones(state: StateDirectory) -> None:
    (state.logs / "ingest.log").write_text("x\n")
    result = invoke("logs", "nosuch")
    assert result.exit_code == 2
    assert "there are: ingest" in result.output


def test_logs_are_merged_and_filtered(state: StateDirectory) -> None:
    event = '{"event":"%s","level":"%s","at":"2026-01-20T04:00:0%dZ","n":1}\n'
    (state.logs / "one.log").write_text(event % ("late", "error", 2) + event % ("x", "info", 3))
    (state.logs / "two.log").write_text(event % ("early", "warning", 1))
    lines = invoke("logs", "--level", "warning").output.splitlines()
    assert [line.split()[-2] for line in lines] == ["early", "late"]
    assert lines[0].startswith("04:00:01.000  two  warning")
