"""Days out of Postgres into files and back: every row once, whatever breaks off where."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cold import slices
from tests.support import cold
from tests.support.postgres import PostgresServer


@pytest.fixture
def other_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A second database on the same server."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "GROUP_LEGS", 50)


@pytest.mark.usefixtures("small_groups")
async def test_day_comes_back_row_for_row(
    database_url: str, other_url: str, tmp_path: Path
) -> None:
    await cold.store(database_url, cold.a_day())
    cold.add_coverage(database_url)
    stored = cold.contents(database_url)
    exported = await cold.export(database_url, tmp_path)
    assert [(one.underlying, one.contracts, one.snapshots) for one in exported] == [
        ("BANKNIFTY", 80, 10),
        ("NIFTY", 288, 36),
    ]
    directory = tmp_path / f"day={cold.DAY}"
    imported = await cold.load(other_url, directory)
    assert [(one.contracts, one.snapshots, one.known) for one in imported] == [
        (80, 10, 0),
        (288, 36, 0),
    ]
    assert cold.contents(other_url) == stored
    again = await cold.load(other_url, directory)
    assert [(one.contracts, one.snapshots, one.known) for one in again] == [(0, 0, 10), (0, 0, 36)]
    assert cold.contents(other_url) == stored
