"""What a route may answer: its success in every format, and each of its errors, with examples."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from api.errors import PROBLEM_TYPE
from api.reference.examples import EXAMPLES
from api.reference.fields import answer_schema, schema_of
from api.reference.problems import PROBLEMS
from api.rest.encoders import to_csv, to_lines
from api.rest.exports import KINDS
from api.rest.formats import OF_LISTS, OF_OBJECTS, Format
from api.rest.registry_answers import REGISTRY_TYPES

JSON = Format.JSON.media_type
# What may stop any request, whatever it asks for.
_EVERYWHERE = (400, 405, 408, 413, 414, 421, 429, 431, 500, 503)
_WITH_HEADERS = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}
_REGISTRY = "registry_"  # before the status: its own errors, named apart from the problems
_REGISTRY_ERRORS = {
    400: (400, "a parameter, a path or a body cannot be read"),
    401: (401, "no token, or one that does not hold"),
    403: (403, "the token lacks the scope, or a foreign page asks"),
    404: (40401, "40401 subject, 40402 version or 40403 schema not found"),
    415: (415, "the body is of a type that is not taken"),
    422: (42202, "42201 invalid schema, 42202 invalid version"),
    500: (500, "the gateway failed; its log has the `request_id`"),
    503: (50001, "Redis is away; try again"),
}
_EVERY_HEADER = ("X-Request-Id", "RateLimit", "RateLimit-Policy")


def responses_of(
    name: str, opt: Mapping[str, Any], method: str, *, has_path: bool
) -> dict[str, Any]:
    """The responses of the route of that name, by status."""
    statuses = set(_EVERYWHERE)
    if "scope" in opt or "takes_key" in opt:
        statuses |= {401, 403}
    if has_path:
        statuses |= {404}
    if method == "GET" and "scope" in opt and "registry" not in opt:
        statuses |= {406}
    takes_body = "body" in opt or "body_type" in opt
    if takes_body:
        statuses |= {415}
    if name == "redrive":
        statuses |= {409}
    found = {"200": _success(name, opt)}
    if opt.get("is_tagged"):
        found["304"] = {
            "description": "what `If-None-Match` names is still the newest",
            **_headers("ETag"),
        }
    found |= {
        str(status): {"$ref": f"#/components/responses/{_name(status)}"}
        for status in sorted(statuses)
    }
    if "registry" in opt:
        own = {400, 401, 403, 500, 503, *opt["registry"]["statuses"], *({415} & statuses)}
        found |= {
            str(status): {"$ref": f"#/components/responses/{_REGISTRY}{status}"}
            for status in sorted(own)
        }
    if name == "readyz":
        report = {JSON: _content(EXAMPLES.get(name))}
        found["503"] = {"description": "not ready, and why", "content": report, **_headers()}
    return dict(sorted(found.items()))


def problems() -> dict[str, Any]:
    """The errors by their names, to which the responses of routes refer."""
    shared = {_name(status): _problem(status) for status in PROBLEMS}
    own = {f"{_REGISTRY}{status}": _registry_error(status) for status in _REGISTRY_ERRORS}
    return shared | own


def answers() -> dict[str, Any]:
    """The schemas of the successes that have `data`, to which responses refer by `name`."""
    return {
        _named(name): answer_schema(example)
        for name, example in EXAMPLES.items()
        if isinstance(example, dict) and {"data", "meta"} <= example.keys()
    }


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "").replace("-", "")


def _named(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_")) + "Answer"


def _success(name: str, opt: Mapping[str, Any]) -> dict[str, Any]:
    example = EXAMPLES.get(name)
    content: dict[str, Any]
    headers: tuple[str, ...] = ()
    if "registry" in opt:
        shape = opt["registry"]["shape"]
        content = {kind: {"schema": shape, "example": example} for kind in (JSON, *REGISTRY_TYPES)}
    elif opt.get("is_open"):
        content = {JSON: _content(example)}
    elif "media_type" in opt:
        content = {opt["media_type"]: {"schema": {"type": "string"}, "example": example}}
    else:
        data = (example or {}).get("data")
        is_list = isinstance(data, list)
        schema = {"$ref": f"#/components/schemas/{_named(name)}"}
        query = opt.get("query")
        is_paged = query is not None and any(each.name == "cursor" for each in query.parameters)
        headers = ("Link", "X-Meta") if is_paged else ("X-Meta",)
        kinds = KINDS if name == "export" else OF_LISTS if is_list else OF_OBJECTS
        content = {kind.media_type: _told(kind, schema, example, data) for kind in kinds}
    if opt.get("is_tagged"):
        headers = ("ETag", *headers)
    return {"description": "the answer", "content": content, **_headers(*headers)}


def _told(kind: Format, schema: dict[str, Any], example: Any, data: Any) -> dict[str, Any]:
    """An answer in a format: the whole one, or its rows alone."""
    if kind is Format.JSON:
        return {"schema": schema, "example": example}
    if kind is Format.MSGPACK:
        return {"schema": schema}
    if not kind.is_text:
        return {"schema": {"description": "rows alone, in bytes"}}
    rows = data if isinstance(data, list) else []
    text = to_csv(rows, ()) if kind is Format.CSV else to_lines(msgspec.json.encode(data))
    return {"schema": {"type": "string", "description": "rows alone"}, "example": text.decode()}


def _content(example: Any) -> dict[str, Any]:
    return {"schema": schema_of(example), "example": example}


def _problem(status: int) -> dict[str, Any]:
    description, codes = PROBLEMS[status]
    examples = {code: {"value": _example(status, code, detail)} for code, detail in codes.items()}
    schema = {"$ref": "#/components/schemas/Problem"}
    said: dict[str, Any] = {
        "description": description,
        "content": {PROBLEM_TYPE: {"schema": schema, "examples": examples}},
    }
    own = _WITH_HEADERS.get(status)
    return said | _headers(*([own] if own else []))


def _example(status: int, code: str, detail: str) -> dict[str, Any]:
    name, _, reason = detail.partition(": ")
    return {
        "type": f"urn:stockify:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "5c8ae0b1f2d34a67",
        "errors": [{"parameter": name, "detail": reason}] if reason else [],
    }


def _registry_error(status: int) -> dict[str, Any]:
    """An error in the words of the registry's own API; a problem of that status beside it."""
    code, text = _REGISTRY_ERRORS[status]
    schema = {"$ref": "#/components/schemas/RegistryError"}
    example = {"error_code": code, "message": text}
    content: dict[str, Any] = {
        kind: {"schema": schema, "example": example} for kind in (JSON, *REGISTRY_TYPES)
    }
    said = {"description": text, **_headers()}
    if status in PROBLEMS:
        said = _problem(status)
        content |= said["content"]
    return said | {"description": text, "content": content}


def _headers(*names: str) -> dict[str, Any]:
    each = {name: {"$ref": f"#/components/headers/{name}"} for name in (*_EVERY_HEADER, *names)}
    return {"headers": each}
