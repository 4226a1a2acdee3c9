"""The named queries of `sql/`: read from its files, fragments put in, found by name.

`sql/queries.sql` has the fragments and what every room asks; `sql/queries/<topic>.sql` what one
topic asks. A name stands once in all of them, and a fragment of any file can be used in every
other. Never talks to a server.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from pipeline.errors import ConfigError

_BLOCK = re.compile(r"^-- (name|fragment): (\w+)[ \t]*\n", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*--.*\n?", re.MULTILINE)
_PLACE = re.compile(r"\{(\w+)\}")


class Query:
    """A named query: its text, and what the comment under its name says of it."""

    __slots__ = ("description", "name", "text")

    def __init__(self, name: str, text: str, description: str) -> None:
        self.name, self.text, self.description = name, text, description


@cache
def queries() -> Mapping[str, Query]:
    """The queries of `sql/` by name. Raises ConfigError if a file is malformed."""
    root = resources.files("sql")
    topics = sorted(root.joinpath("queries").iterdir(), key=lambda path: path.name)
    files = [root.joinpath("queries.sql"), *(p for p in topics if p.name.endswith(".sql"))]
    return parse_queries({path.name: path.read_text() for path in files})


def parse_queries(files: Mapping[str, str]) -> dict[str, Query]:
    """The named queries in texts by file name, fragments put in. Raises ConfigError."""
    fragments: dict[str, str] = {}
    bodies: dict[str, str] = {}
    for file_name, text in files.items():
        parts = _BLOCK.split(text)
        for kind, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            if name in fragments or name in bodies:
                raise ConfigError(f"{file_name}: {name} stands there twice, or elsewhere too")
            (fragments if kind == "fragment" else bodies)[name] = body
    pieces = {name: _COMMENT.sub("", body).strip() for name, body in fragments.items()}
    found: dict[str, Query] = {}
    for name, body in bodies.items():
        statement = _filled(name, _COMMENT.sub("", body).strip(), pieces, ())
        lines = [line for line in body.splitlines() if line.startswith("-- ")]
        found[name] = Query(name, statement, " ".join(line[3:] for line in lines))
    return found


def statement(name: str) -> bytes:
    """The text of a named query, for the driver. Raises KeyError if there is none."""
    return queries()[name].text.encode()


def _filled(name: str, text: str, pieces: Mapping[str, str], within: tuple[str, ...]) -> str:
    """A statement with the fragments it names put in, and theirs."""

    def piece(place: re.Match[str]) -> str:
        if place[1] in within or place[1] not in pieces:
            raise ConfigError(f"sql: {name} names {place[1]}, which is no fragment or its own")
        return _filled(name, pieces[place[1]], pieces, (*within, place[1]))

    filled = _PLACE.sub(piece, text)
    if "{" in filled or not filled:
        raise ConfigError(f"sql: {name} is empty or has a brace that closes nowhere")
    return filled
