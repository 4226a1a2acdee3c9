"""The words of the schema registry's API: bare values, its error codes, its content types.

What the gateway itself refuses (a token, a parameter, Redis away) is a problem as everywhere,
unless the client asks for that API's own content type.
"""

from typing import Any

import msgspec
from litestar import Response

from api.errors import as_api_error, respond
from api.rest.answers import JSON_TYPE, AnyRequest
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.redaction import blotted

REGISTRY_TYPES = ("application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json")

SUBJECT_NOT_FOUND = 40401
VERSION_NOT_FOUND = 40402
SCHEMA_NOT_FOUND = 40403
INVALID_SCHEMA = 42201
INVALID_VERSION = 42202
STORE_ERROR = 50001


class RegistryError(Exception):
    """An error in the words of the registry's API; the status is the code's first three digits."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.status = int(str(error_code)[:3])


def bare_answer(request: AnyRequest, data: Any) -> Response[bytes]:
    """A success: the value alone."""
    media = _wanted_type(request) or JSON_TYPE
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(data), media_type=media, headers=headers)


def respond_in_kind(request: AnyRequest, error: Exception) -> Response[bytes]:
    """An error of these routes: in the registry's words where they are its own or asked for."""
    if isinstance(error, RegistryError):
        status, code, message, headers = error.status, error.error_code, str(error), {}
    elif _wanted_type(request) is None:
        return respond(request, error)
    else:
        problem = as_api_error(error)
        respond(request, error)  # for its line in the log
        is_stored = isinstance(error, BusUnavailable | DecodeError)
        status, message, headers = problem.status, problem.detail, problem.headers
        code = STORE_ERROR if is_stored else status
    body = msgspec.json.encode({"error_code": code, "message": blotted(message)})
    media = _wanted_type(request) or JSON_TYPE
    return Response(body, status_code=status, media_type=media, headers=headers)


def _wanted_type(request: AnyRequest) -> str | None:
    """The registry's own content type where the client asks for it."""
    accepted = request.headers.get("accept", "")
    return next((kind for kind in REGISTRY_TYPES if kind in accepted), None)
