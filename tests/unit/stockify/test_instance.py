import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.attached import Running
from pipeline.errors import ConfigError
from stockify.instance import AlreadyHeld, StateDirectory, this_process

SINCE = "2026-01-20T03:45:00.000000Z"


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_second_holder_is_told_of_the_first(state: StateDirectory) -> None:
    first = msgspec.structs.replace(this_process(SINCE), page="http://127.0.0.1:8700")
    with state.held(first):
        with pytest.raises(AlreadyHeld) as refusal, state.held(this_process(SINCE)):
            pass
        assert refusal.value.holder == first
    for part in (f"pid {os.getpid()}", SINCE, "http://127.0.0.1:8700", str(state.path)):
        assert part in str(refusal.value)


def test_refused_holder_leaves_the_first_as_it_is(state: StateDirectory) -> None:
    with state.held(this_process(SINCE)):
        state.write_running(Running(gateway="http://there", environment={}))
        with pytest.raises(AlreadyHeld), state.held(this_process(SINCE)):
            pass
        assert state.running() is not None
        assert state.holder() is not None


def test_lock_of_a_killed_holder_is_no_obstacle(state: StateDirectory) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from stockify.instance import StateDirectory, this_process\n"
        "with StateDirectory(Path(sys.argv[1])).held(this_process('then')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run((sys.executable, "-c", program, str(state.path)), check=False)
    assert killed.returncode == -9
    assert (state.path / "run" / "holder.json").exists()
    assert state.holder() is None
    with state.held(this_process(SINCE)):
        assert state.holder() is not None


def test_later_process_with_the_same_pid_is_not_taken_for_the_holder(state: StateDirectory) -> None:
    me = this_process(SINCE)
    state.write_holder(msgspec.structs.replace(me, created=me.created - 3_600))
    assert state.holder() is None


def test_nothing_runs_once_the_holder_has_left(state: StateDirectory) -> None:
    with state.held(this_process(SINCE)):
        state.write_running(Running(gateway="http://there", environment={"A": "1"}))
        running = state.running()
        assert running is not None
        assert running.environment == {"A": "1"}
    assert (state.holder(), state.running(), state.status()) == (None, None, None)


def test_secrets_are_made_once_and_long_enough(state: StateDirectory) -> None:
    assert state.secrets() is None
    made = state.ensure_secrets()
    assert state.ensure_secrets() == made
    assert StateDirectory(state.path).secrets() == made
    assert len(made.jwt_secret) >= 32


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_can_read_the_state_whatever_the_umask(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "a" / "state")
    state.prepare()
    state.ensure_secrets()
    with state.held(this_process(SINCE)):
        state.write_running(Running(gateway="", environment={}))
        for path in state.path.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o077 == 0, f"{path} {mode:o}"
        assert state.path.stat().st_mode & 0o066 == 0


def test_state_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="state directory"):
        StateDirectory(tmp_path / "file" / "state").prepare()


def test_marks_of_two_runs_differ(state: StateDirectory) -> None:
    assert StateDirectory(state.path).marks != state.marks
