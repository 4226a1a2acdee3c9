"""Which problem an exception becomes."""

import json

import pytest
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from api.errors import ApiError, as_api_error, invalid_parameter, problem_body
from pipeline.errors import BusUnavailable, DecodeError, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundException(), 404, "not_found"),
        (MethodNotAllowedException(), 405, "method_not_allowed"),
        (ValidationException("x"), 400, "bad_request"),
        (HTTPException(status_code=413), 413, "body_too_large"),
        (HTTPException(status_code=415), 415, "unsupported_media_type"),
        (HTTPException(status_code=418), 418, "error"),
        (BusUnavailable("redis://:secret@host"), 503, "redis_unavailable"),
        (StoreUnavailable("password=secret"), 503, "database_unavailable"),
        (DecodeError("secret"), 500, "undecodable_value"),
        (ZeroDivisionError("secret"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exception_becomes_a_problem_without_its_inner_words(
    error: Exception, status: int, code: str
) -> None:
    answer = as_api_error(error)
    assert (answer.status, answer.code) == (status, code)
    assert b"secret" not in problem_body(answer, "r1")


def test_problem_has_every_member() -> None:
    body = json.loads(problem_body(invalid_parameter("limit", "too much"), "r1"))
    assert body == {
        "type": "urn:stockify:problem:invalid_query",
        "title": "Bad Request",
        "status": 400,
        "detail": "limit: too much",
        "code": "invalid_query",
        "request_id": "r1",
        "errors": [{"parameter": "limit", "detail": "too much"}],
    }


def test_outage_says_when_to_come_back() -> None:
    assert int(as_api_error(BusUnavailable("x")).headers["Retry-After"]) > 0
    assert isinstance(as_api_error(ApiError(404, "a", "b")), ApiError)
