"""Named queries as text, and URLs that are none."""

import pytest

from pipeline.database import Database, parse_queries, queries
from pipeline.errors import ConfigError


def test_every_query_says_what_it_is_for() -> None:
    assert [name for name, query in queries().items() if not query.description.endswith(".")] == []


def test_fragment_is_put_in_and_is_no_query() -> None:
    found = parse_queries(
        "-- fragment: columns\na, b\n-- name: all_of_it\n-- Everything.\nSELECT {columns} FROM t\n"
    )
    assert {name: query.text for name, query in found.items()} == {
        "all_of_it": "SELECT a, b FROM t"
    }
    assert found["all_of_it"].description == "Everything."


@pytest.mark.parametrize(
    "text",
    [
        "-- name: twice\nSELECT 1\n-- name: twice\nSELECT 2\n",
        "-- name: lacking\nSELECT {nothing}\n",
        "-- name: empty\n-- Only words.\n",
    ],
    ids=["same name", "unknown fragment", "no statement"],
)
def test_malformed_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_queries(text)


@pytest.mark.parametrize("url", ["", "postgresql://me:hidden@[half/x", "host=a pass word=hidden"])
def test_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Database(url)
    assert "hidden" not in str(refused.value)
