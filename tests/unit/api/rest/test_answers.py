"""What decides how an answer is told."""

import pytest
from litestar import Request

from api.rest.answers import FORM_BYTES, asked_form

Headers = list[tuple[bytes, bytes]]


def form_of(query: bytes = b"", headers: Headers | None = None) -> object:
    scope = {"type": "http", "method": "GET", "query_string": query, "headers": headers or []}
    return asked_form(Request(scope))  # type: ignore[arg-type]


def test_questions_are_alike_where_query_and_what_is_accepted_are() -> None:
    asked = [
        form_of(b"", []),
        form_of(b"fields=bid"),
        form_of(b"", [(b"accept", b"text/csv")]),
        form_of(b"", [(b"accept-encoding", b"gzip")]),
    ]
    assert len(set(asked)) == len(asked)
    assert form_of(b"fields=bid", [(b"x-request-id", b"1")]) == asked[1]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"", [(b"if-none-match", b"*")]),
        (b"f" * (FORM_BYTES + 1), []),
        (b"", [(b"accept", b"a" * (FORM_BYTES + 1))]),
        (b"f" * FORM_BYTES, [(b"accept-encoding", b"gzip")]),
    ],
)
def test_what_nobody_asks_again_has_no_form(query: bytes, headers: Headers) -> None:
    assert form_of(query, headers) is None
