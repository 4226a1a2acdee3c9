"""Days out of Postgres into files and back: every row once, whatever breaks off where."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from pipeline.cold import slices
from pipeline.cold.manifest import MANIFEST, read_manifest
from pipeline.cold.writing import days_to_export
from pipeline.errors import ColdStoreError, ConfigError, StoreError
from stockify import cli
from tests.support import cold
from tests.support.postgres import PostgresServer, open_database
from tests.support.rooms import CHECKOUT

# A process that kills itself at a call of the function `point`, the `left`th.
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from datetime import date
from pipeline.cold import manifest, slices
from pipeline.cold.reading import Importer
from pipeline.cold.writing import Exporter
from pipeline.database import Database, Session

slices.GROUP_LEGS = 50
what, url, root, day, now_ns, point, left = sys.argv[1:]
left = int(left)

def dying(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

owner = {"copy_buffer": Session, "write_manifest": manifest, "_append": slices}[point]
setattr(owner, point, dying(getattr(owner, point)))

async def run():
    database = Database(url)
    await database.open()
    if what == "export":
        exporter = Exporter(database, Path(root), int(now_ns))
        steps = exporter.export(date.fromisoformat(day))
    else:
        importer = Importer(database, Path(root))
        steps = importer.load(importer.check())
    async for _ in steps:
        pass

asyncio.run(run())
"""


@pytest.fixture
def other_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A second database on the same server."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def another_edition_url(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[str]:
    """A database on the server of the other kind."""
    servers = [request.getfixturevalue(name) for name in ("wheel_server", "timescale_server")]
    with next(one for one in servers if one is not postgres_server).database() as url:
        yield url


@pytest.fixture(autouse=True, scope="module")
def small_groups() -> Iterator[None]:
    """Several groups of legs an underlying, as days have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "GROUP_LEGS", 50)
        yield


class Origin(NamedTuple):
    """A database with a day, and the directory into which the day was exported."""

    url: str
    directory: Path


@pytest.fixture(scope="module")
def kept(
    wheel_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Origin]:
    """A day that no test changes."""
    root = tmp_path_factory.mktemp("cold")
    with wheel_server.database() as url:
        asyncio.run(_exported(url, root))
        yield Origin(url, root / f"day={cold.DAY}")


@pytest.fixture
def origin(kept: Origin, tmp_path: Path) -> Origin:
    """The same database with files of one's own."""
    directory = tmp_path / kept.directory.name
    shutil.copytree(kept.directory, directory)
    return Origin(kept.url, directory)


async def _exported(url: str, root: Path) -> None:
    await cold.store(url, cold.a_day(12))
    cold.add_coverage(url)
    await cold.export(url, root)


def bytes_of(directory: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*.*")}


async def killed(what: str, url: str, root: Path, point: str, left: int) -> bool:
    """Whether a process that exports or imports came to its `left`th call of something."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, what, url, str(root)),
        *(cold.DAY.isoformat(), str(cold.LATER), point, str(left)),
        env=os.environ,
    )
    return await process.wait() == -9


def counts(imported: list[cold.Imported]) -> list[tuple[int, int, int]]:
    return [(one.contracts, one.snapshots, one.known) for one in imported]


async def test_day_comes_back_row_for_row_in_either_edition(
    database_url: str, other_url: str, another_edition_url: str, tmp_path: Path
) -> None:
    await cold.store(database_url, cold.a_day())
    cold.add_coverage(database_url)
    stored = cold.contents(database_url)
    done = await cold.export(database_url, tmp_path)
    assert [(one.underlying, one.contracts, one.snapshots) for one in done] == [
        ("BANKNIFTY", 80, 10),
        ("NIFTY", 288, 36),
    ]
    directory = tmp_path / f"day={cold.DAY}"
    for url in (other_url, another_edition_url):
        assert counts(await cold.load(url, directory)) == [(80, 10, 0), (288, 36, 0)]
        assert cold.contents(url) == stored


async def test_second_import_does_nothing(origin: Origin) -> None:
    before = cold.contents(origin.url)
    assert counts(await cold.load(origin.url, origin.directory)) == [(0, 0, 4), (0, 0, 15)]
    assert cold.contents(origin.url) == before


async def test_partly_filled_database_gets_what_it_lacks(
    database_url: str, other_url: str, tmp_path: Path
) -> None:
    day = cold.a_day()
    await cold.store(database_url, day)
    await cold.export(database_url, tmp_path)
    await cold.store(other_url, day[5:20:2])  # no line of the export stands alone in its group
    assert counts(await cold.load(other_url, tmp_path / f"day={cold.DAY}")) == [
        (80, 10, 0),
        (224, 28, 8),
    ]
    for name in ("contracts", "snapshots", "coverage"):
        mine, theirs = cold.contents(other_url)[name], cold.contents(database_url)[name]
        assert len(mine) == len(theirs)
    assert cold.contents(other_url)["contracts"] == cold.contents(database_url)["contracts"]
    assert cold.contents(other_url)["coverage"] == cold.contents(database_url)["coverage"]


async def test_one_underlying_can_be_exported_and_imported_alone(
    plain_database_url: str, wheel_server: PostgresServer, tmp_path: Path
) -> None:
    await cold.store(plain_database_url, cold.a_day(6))
    directory = tmp_path / f"day={cold.DAY}"
    await cold.export(plain_database_url, tmp_path, cold.DAY, "NIFTY")
    manifest = read_manifest(directory)
    assert manifest is not None
    assert (list(manifest.underlyings), manifest.complete) == (["NIFTY"], False)
    await cold.export(plain_database_url, tmp_path)
    manifest = read_manifest(directory)
    assert manifest is not None
    assert (list(manifest.underlyings), manifest.complete) == (["BANKNIFTY", "NIFTY"], True)
    assert manifest.underlyings["NIFTY"].revisions == (1, 2)
    with wheel_server.database() as other:
        await cold.load(other, directory, "BANKNIFTY")
        assert {row[22] for row in cold.contents(other)["snapshots"]} == {"BANKNIFTY"}


async def test_unchanged_day_is_not_written_again(origin: Origin) -> None:
    before = bytes_of(origin.directory)
    assert all(one.is_known for one in await cold.export(origin.url, origin.directory.parent))
    assert bytes_of(origin.directory) == before


async def test_closed_days_are_those_whose_ledger_says_more(
    plain_database_url: str, tmp_path: Path
) -> None:
    root = tmp_path
    await _exported(plain_database_url, root)

    async def days(now_ns: int = cold.LATER) -> list[str]:
        async with open_database(plain_database_url) as database:
            return [day.isoformat() for day in await days_to_export(database, root, now_ns)]

    assert await days() == []
    await cold.store(plain_database_url, [cold.chain_at(60), cold.chain_at(60 * 500)])
    assert await days() == ["2026-01-25", "2026-01-26"]
    assert await days(cold.START) == []
    await cold.export(plain_database_url, root)
    assert await days() == ["2026-01-26"]


async def test_day_that_is_not_over_is_not_exported(
    plain_database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(ColdStoreError, match="not over"):
        await cold.export(plain_database_url, tmp_path, cold.FAR_DAY)


async def test_export_is_not_replaced_by_less(plain_database_url: str, tmp_path: Path) -> None:
    await _exported(plain_database_url, tmp_path)
    before = bytes_of(tmp_path)
    cold.execute(plain_database_url, "DELETE FROM ledger WHERE id LIKE '%:r1'")
    with pytest.raises(ColdStoreError, match=r"no longer in the database; the export is kept"):
        await cold.export(plain_database_url, tmp_path)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM ledger WHERE id LIKE 'dhan:NIFTY%:r1'", "snapshots without a line"),
        ("DELETE FROM market_snapshots WHERE rev = 1", "lines without a snapshot"),
        ("DELETE FROM option_contracts WHERE rev = 1", "legs were stored"),
    ],
    ids=["line", "snapshot", "legs"],
)
async def test_day_that_contradicts_its_ledger_is_not_exported(
    plain_database_url: str, tmp_path: Path, statement: str, message: str
) -> None:
    await cold.store(plain_database_url, cold.a_day(6))
    cold.execute(plain_database_url, statement)
    with pytest.raises(ColdStoreError, match=message):
        await cold.export(plain_database_url, tmp_path)
    manifest = read_manifest(tmp_path / f"day={cold.DAY}")
    assert manifest is None or "NIFTY" not in manifest.underlyings


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        manifest = json.loads((path.parents[1] / MANIFEST).read_text())
        change(manifest)
        (path.parents[1] / MANIFEST).write_text(json.dumps(manifest))

    return apply


def lead_out(manifest: dict[str, object]) -> None:
    files = manifest["underlyings"]["NIFTY"]["files"]  # type: ignore[index]
    files["contracts"]["path"] = "../../elsewhere.parquet"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "its checksum is another"),
        (shorten, r"bytes, and had"),
        (Path.unlink, "No such file"),
        (edit(lead_out), "no place for contracts"),
        (edit(lambda manifest: manifest.update(schema_version=99)), "schema version 99"),
        (edit(lambda manifest: manifest.update(day="2026-01-20")), "not what its directory says"),
        (edit(lambda manifest: manifest.update(format="other")), "no manifest of a day"),
    ],
    ids=["flipped bit", "cut", "missing", "path", "newer", "another day", "foreign"],
)
async def test_damaged_or_foreign_files_are_refused_and_nothing_changes(
    origin: Origin, wheel_server: PostgresServer, damage: Callable[[Path], None], message: str
) -> None:
    damage(origin.directory / "underlying=NIFTY" / "contracts.parquet")
    with wheel_server.database() as url:
        before = cold.contents(url)
        with pytest.raises(ColdStoreError, match=message):
            await cold.load(url, origin.directory)
        assert cold.contents(url) == before


async def test_damaged_export_is_written_anew(origin: Origin) -> None:
    flip(origin.directory / "underlying=NIFTY" / "ledger.parquet")
    done = await cold.export(origin.url, origin.directory.parent)
    assert [(one.underlying, one.is_known) for one in done] == [
        ("BANKNIFTY", True),
        ("NIFTY", False),
    ]
    await cold.load(origin.url, origin.directory)


async def test_export_killed_anywhere_is_whole_when_repeated(
    plain_database_url: str, wheel_server: PostgresServer, tmp_path: Path
) -> None:
    await cold.store(plain_database_url, cold.a_day(12))
    directory = tmp_path / f"day={cold.DAY}"
    # Among the legs of the second underlying, and between its files and its manifest.
    points = [("_append", 3), ("write_manifest", 1)]
    for point, left in points:
        assert await killed("export", plain_database_url, tmp_path, point, left)
        if read_manifest(directory) is not None:  # what it names is whole
            cold.check(directory)
    await cold.export(plain_database_url, tmp_path)
    assert list(directory.rglob("*.part")) == []
    with wheel_server.database() as url:
        await cold.load(url, directory)
        assert cold.contents(url) == cold.contents(plain_database_url)


async def test_import_killed_anywhere_is_whole_when_repeated(
    origin: Origin, wheel_server: PostgresServer
) -> None:
    with wheel_server.database() as url:
        assert await killed("import", url, origin.directory, "copy_buffer", 6)
        await cold.load(url, origin.directory)
        assert cold.contents(url) == cold.contents(origin.url)


async def test_day_that_retention_is_dropping_is_left_alone(
    plain_database_url: str, tmp_path: Path
) -> None:
    await _exported(plain_database_url, tmp_path)
    before = bytes_of(tmp_path)
    cold.execute(plain_database_url, "DELETE FROM option_contracts")
    cold.execute(plain_database_url, "DELETE FROM market_snapshots")
    with pytest.raises(ColdStoreError, match="retention has dropped the day"):
        await cold.load(plain_database_url, tmp_path / f"day={cold.DAY}")
    cold.execute(plain_database_url, "DELETE FROM ledger WHERE n > 0 AND id LIKE '%:r1'")
    async with open_database(plain_database_url) as database:
        assert await days_to_export(database, tmp_path, cold.LATER) == []
    cold.execute(plain_database_url, "DELETE FROM ledger")
    await cold.load(plain_database_url, tmp_path / f"day={cold.DAY}")
    assert [one.is_known for one in await cold.export(plain_database_url, tmp_path)] == [True] * 2
    assert bytes_of(tmp_path) == before


async def test_rows_that_stand_without_a_line_stop_their_group(
    plain_database_url: str, tmp_path: Path
) -> None:
    """Their ledger is gone, so that nobody can say whether they are the same."""
    await _exported(plain_database_url, tmp_path)
    cold.execute(plain_database_url, "DELETE FROM ledger")
    before = cold.contents(plain_database_url)["contracts"]
    with pytest.raises(StoreError, match="duplicate key"):
        await cold.load(plain_database_url, tmp_path / f"day={cold.DAY}")
    assert cold.contents(plain_database_url)["contracts"] == before


def test_files_are_read_as_the_guide_says(
    kept: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cold").symlink_to(kept.directory.parent)
    monkeypatch.chdir(tmp_path)
    text = (CHECKOUT / "docs" / "cold-store.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = {}
    for block in blocks:
        library = re.findall(r"(?m)^(?:import|from) (pandas|pyarrow|polars)", block)[0]
        if importlib.util.find_spec(library):
            names: dict[str, Any] = {}
            exec(block.replace("2026-01-22", cold.DAY.isoformat()), names)  # noqa: S102
            found[library] = names["legs"]
    assert len(found["pandas"]) == 120
    assert {"symbol", "strike", "kind", "expiry", "iv", "ts", "rev"} <= set(found["pandas"].columns)
    whole = found["pyarrow"].to_pandas()
    assert whole.groupby("underlying").size().to_dict() == {"BANKNIFTY": 32, "NIFTY": 120}


def test_commands_export_import_and_say_so(
    kept: Origin, tmp_path: Path, wheel_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKIFY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("STOCKIFY_DATABASE_URL", kept.url)

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(cli.commands, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    assert "NIFTY: 120 contracts in 15 snapshots" in said("export", "--closed")
    assert said("export", "--closed").startswith("nothing to export")
    day = cold.DAY.isoformat()
    assert said("export", "--day", day, "--underlying", "NIFTY").endswith("exported before\n")
    assert said("export", "--day", "2026-01-20").strip() == "2026-01-20: nothing is stored"
    with wheel_server.database() as url:
        monkeypatch.setenv("STOCKIFY_DATABASE_URL", url)
        monkeypatch.setenv("STOCKIFY_RETENTION_DAYS", "5")
        assert "the storage worker will drop it again" in said("import", "--day", day)
        cold.execute(url, "TRUNCATE ledger, market_snapshots, option_contracts")
        monkeypatch.setenv("STOCKIFY_RETENTION_DAYS", "0")
        assert "NIFTY: 120 contracts in 15 snapshots, 0 known" in said("import", "--day", day)
        assert "NIFTY: nothing new, 15 snapshots known" in said("import", str(tmp_path / "cold"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        ("export", "--closed", "--day", "2026-01-22"),
        ("export", "--until", "2026-01-22"),
        ("export", "--day", "2026-01-22", "--until", "2026-01-21"),
        ("export", "--closed", "--underlying", "NIFTY"),
        ("import",),
    ],
    ids=" ".join,
)
def test_contradicting_options_are_refused(
    arguments: tuple[str, ...], kept: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKIFY_DATABASE_URL", kept.url)
    with pytest.raises(ConfigError):
        CliRunner().invoke(cli.commands, arguments, catch_exceptions=False)
