"""Migrations: the numbered files of `sql/`, applied once each, forward only.

A file may begin with marks: `-- requires: plain`, `timescale` or `community` (what the server must
have), `-- not transactional` (its statements cannot run inside a transaction). A database that
began with native partitions stays with them, also where TimescaleDB is installed later.
"""

import hashlib
import re
from collections.abc import Iterable
from importlib import resources
from typing import Literal

import msgspec

from pipeline.database import Database, Session
from pipeline.errors import MigrationError

Edition = Literal["plain", "apache", "community"]
State = Literal["applied", "pending", "not for"]

# What a mark is satisfied by. Without TimescaleDB's own licence the policies, the columnstore and
# continuous aggregates are refused by the server.
_SATISFIED_BY: dict[str, tuple[str, ...]] = {
    "": ("plain", "apache", "community"),
    "plain": ("plain",),
    "timescale": ("apache", "community"),
    "community": ("community",),
}
_FILE_NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")
_REQUIRES = re.compile(r"^-- requires: (\w+)$", re.MULTILINE)
_NOT_TRANSACTIONAL = re.compile(r"^-- not transactional$", re.MULTILINE)
_STATEMENT_END = re.compile(r";[ \t]*(?:\n|$)")


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, its name, its text, and what it asks of the server."""

    number: int
    name: str
    text: str
    requires: str
    is_transactional: bool

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def suits(self, edition: Edition) -> bool:
        """Whether a server of this edition takes it."""
        return edition in _SATISFIED_BY[self.requires]


class Plan(msgspec.Struct, frozen=True):
    """What a server is, and how each file stands to it: applied, pending, or not for it."""

    edition: Edition
    files: list[tuple[State, Migration]]

    @property
    def pending(self) -> list[Migration]:
        """What `migrate` would apply."""
        return [migration for state, migration in self.files if state == "pending"]


def load() -> list[Migration]:
    """The migrations of `sql/`, by number. Raises MigrationError if two have one number."""
    files = [
        (path.name, path.read_text())
        for path in resources.files("sql").iterdir()
        if path.name.endswith(".sql") and path.name[:1].isdigit()
    ]
    return parse(files)


def parse(files: Iterable[tuple[str, str]]) -> list[Migration]:
    """Migrations from file names and texts, by number. Raises MigrationError."""
    found: dict[int, Migration] = {}
    for file_name, text in files:
        match = _FILE_NAME.match(file_name)
        if match is None:
            raise MigrationError(f"{file_name}: want a name like 0001_what_it_does.sql")
        requires = _REQUIRES.search(text)
        word = requires[1] if requires else ""
        if word not in _SATISFIED_BY:
            raise MigrationError(f"{file_name}: requires {word!r}, which is no edition")
        number = int(match[1])
        if number in found:
            raise MigrationError(f"{file_name}: number {number} is taken by {found[number].name}")
        transactional = _NOT_TRANSACTIONAL.search(text) is None
        found[number] = Migration(number, match[2], text, word, transactional)
    return [found[number] for number in sorted(found)]


async def plan(url: str, files: list[Migration] | None = None) -> Plan:
    """How the files stand to a server; changes nothing. Raises MigrationError or StoreError."""
    every = files if files is not None else load()
    database = Database(url, max_size=1)
    await database.open()
    try:
        async with database.session() as session:
            edition, applied = await _edition(session), await _applied(session)
    finally:
        await database.close()
    waiting = {migration.number for migration in pending(every, applied, edition)}

    def state(number: int) -> State:
        return "applied" if number in applied else "pending" if number in waiting else "not for"

    return Plan(edition, [(state(one.number), one) for one in every])


async def migrate(url: str, files: list[Migration] | None = None) -> list[Migration]:
    """Apply what is missing and give it; callers at the same time wait for one another.

    Raises MigrationError if an applied file has changed or is unknown, StoreError if a statement
    fails: a transactional file then leaves nothing behind.
    """
    every = files if files is not None else load()
    done: list[Migration] = []
    database = Database(url, max_size=1)
    await database.open()
    try:
        async with database.session() as session:
            await session.fetch("lock_migrations")
            try:
                await session.execute("create_schema_migrations")
                while waiting := pending(every, await _applied(session), await _edition(session)):
                    await _apply(session, waiting[0])
                    done.append(waiting[0])
            finally:
                await session.fetch("unlock_migrations")
    finally:
        await database.close()
    return done


async def server_edition(url: str) -> Edition:
    """`plain`, `apache` or `community`: what this database can be given. Raises StoreError."""
    database = Database(url, max_size=1)
    await database.open()
    try:
        async with database.session() as session:
            return await _edition(session)
    finally:
        await database.close()


def pending(
    files: list[Migration], applied: dict[int, tuple[str, str]], edition: Edition
) -> list[Migration]:
    """The files still to apply, in order. Raises MigrationError if the record contradicts them."""
    known = {migration.number: migration for migration in files}
    for number, (name, checksum) in applied.items():
        if number not in known:
            raise MigrationError(
                f"the database has migration {number:04d}_{name}, which this version does not know"
            )
        if known[number].checksum != checksum:
            raise MigrationError(
                f"migration {number:04d}_{name} was changed after it was applied; "
                "restore the file and put the change into a new one"
            )
    newest = max(applied, default=0)
    waiting = [
        migration
        for migration in files
        if migration.number not in applied and migration.suits(edition)
    ]
    for migration in waiting:
        if migration.number < newest and not migration.requires:
            raise MigrationError(
                f"migration {migration.number:04d}_{migration.name} is new, "
                f"but {newest:04d} is applied already; give it a higher number"
            )
    return waiting


def statements(text: str) -> list[str]:
    """The statements of a file that is not transactional: each ends where a line ends with `;`."""
    return [statement for statement in _STATEMENT_END.split(text) if statement.strip()]


async def _apply(session: Session, migration: Migration) -> None:
    record = {"number": migration.number, "name": migration.name, "checksum": migration.checksum}
    if migration.is_transactional:
        async with session.transaction():
            await session.run_script(migration.text)
            await session.execute("record_migration", **record)
        return
    for statement in statements(migration.text):
        await session.run_script(statement)
    await session.execute("record_migration", **record)


async def _applied(session: Session) -> dict[int, tuple[str, str]]:
    there = await session.fetch("has_schema_migrations")
    if not there[0]["is_there"]:
        return {}
    rows = await session.fetch("applied_migrations")
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


async def _edition(session: Session) -> Edition:
    server = (await session.fetch("server_edition"))[0]
    if server["is_partitioned"] or not (server["is_installed"] or server["is_available"]):
        return "plain"
    # Before the extension is there the licence cannot be read; the next look, after it, can.
    return "community" if server["license"] == "timescale" else "apache"
