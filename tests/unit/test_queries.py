"""Named queries as text: fragments of any file put in, and what is malformed refused."""

from importlib import resources

import pytest

from pipeline.errors import ConfigError
from pipeline.queries import parse_queries, queries


def test_every_query_says_what_it_is_for() -> None:
    assert [name for name, query in queries().items() if not query.description.endswith(".")] == []


def test_queries_of_every_file_are_found() -> None:
    root = resources.files("sql")
    files = [root.joinpath("queries.sql"), *root.joinpath("queries").iterdir()]
    named = [
        line.removeprefix("-- name: ")
        for path in files
        for line in path.read_text().splitlines()
        if line.startswith("-- name: ")
    ]
    assert sorted(named) == sorted(queries())


def test_fragment_is_put_in_and_is_no_query() -> None:
    found = parse_queries(
        {
            "one.sql": "-- fragment: columns\na, b\n"
            "-- name: all_of_it\n-- Everything.\nSELECT {columns} FROM t\n"
        }
    )
    assert {name: query.text for name, query in found.items()} == {
        "all_of_it": "SELECT a, b FROM t"
    }
    assert found["all_of_it"].description == "Everything."


def test_fragment_of_a_later_file_is_put_in_with_those_it_names() -> None:
    found = parse_queries(
        {
            "one.sql": "-- name: some\n-- Some.\n{rows} LIMIT 1\n",
            "two.sql": "-- fragment: rows\nSELECT {columns} FROM t\n-- fragment: columns\na, b\n",
        }
    )
    assert found["some"].text == "SELECT a, b FROM t LIMIT 1"


@pytest.mark.parametrize(
    "texts",
    [
        ["-- name: twice\nSELECT 1\n-- name: twice\nSELECT 2\n"],
        ["-- name: twice\nSELECT 1\n", "-- fragment: twice\nSELECT 2\n"],
        ["-- name: lacking\nSELECT {nothing}\n"],
        ["-- name: turning\n{ring}\n-- fragment: ring\nSELECT {ring}\n"],
        ["-- name: empty\n-- Only words.\n"],
        ["-- name: open\nSELECT '{'\n"],
    ],
    ids=["same name", "in two files", "unknown fragment", "circle", "no statement", "brace"],
)
def test_malformed_file_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_queries({f"{number}.sql": text for number, text in enumerate(texts)})
