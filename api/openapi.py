"""The OpenAPI 3.1 document, read off the routes themselves: paths, parameters, scopes, problems.

A route's parameters are those its own parser takes, so that the document cannot promise others.
"""

import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.errors import Problem
from api.rest.answers import AnyRequest
from api.rest.query import Query
from api.rest.registry_answers import REGISTRY_TYPES
from pipeline.models import LEG_COLUMNS, ChainAggregates, Smile

_DESCRIPTION = (
    "Option chains with volatilities and Greeks, live and as history. Prices in rupees, quantities"
    " in units, instants in UTC. null is 'not available'; 0 is a zero."
)
_PROBLEMS = {
    400: "a parameter is unknown or malformed; `errors` names it",
    401: "no token, or one that does not hold",
    403: "the token lacks the scope",
    404: "nothing is known under that name",
    405: "the path has no such method",
    413: "the body is too large",
    414: "the query is too long",
    421: "the host is not one of ours",
    503: "Redis or Postgres is away; try again",
}
_REGISTRY_ERRORS = {
    404: "40401 subject, 40402 version or 40403 schema not found",
    422: "42201 invalid schema, 42202 invalid version",
}
_JSON = "application/json"


@get("/openapi.json", opt={"is_page": True})
async def openapi(request: AnyRequest) -> Response[bytes]:
    """This description of the gateway."""
    app: Litestar = request.app
    body = msgspec.json.encode(document(app))
    return Response(body, media_type=_JSON, headers={"Cache-Control": "no-cache"})


def document(app: Litestar) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            for method in ("GET", "POST"):
                if method in handler.http_methods and not handler.opt.get("is_page"):
                    operations = paths.setdefault(route.path_format, {})
                    operations[method.lower()] = _operation(route, handler)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "Stockify", "version": _version(), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": _security(), "schemas": _schemas()},
    }


def _operation(route: HTTPRoute, handler: HTTPRouteHandler) -> dict[str, Any]:
    summary, _, rest = inspect.cleandoc(handler.fn.__doc__ or "").partition("\n\n")
    scope: str | None = handler.opt.get("scope")
    operation: dict[str, Any] = {
        "operationId": handler.fn.__name__,
        "summary": " ".join(summary.split()),
        "parameters": _parameters(route, handler.opt.get("query")),
        "responses": _responses(handler),
    }
    if rest:
        operation["description"] = rest
    body: dict[str, Any] | None = handler.opt.get("body")
    if body is not None:
        content = {kind: {"schema": body} for kind in (*REGISTRY_TYPES, _JSON)}
        operation["requestBody"] = {"required": True, "content": content}
    scopes = [scope] if scope else []
    scopes += handler.opt.get("scope_with", {}).values()
    operation["security"] = [{"bearer": [name]} for name in scopes]
    return operation


def _parameters(route: HTTPRoute, query: Query | None) -> list[dict[str, Any]]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.path_parameters
    ]
    asked = query.parameters if query is not None else ()
    return named + [
        {
            "name": parameter.name,
            "in": "query",
            "required": False,
            "description": parameter.description,
            "schema": parameter.schema,
        }
        for parameter in asked
    ]


def _responses(handler: HTTPRouteHandler) -> dict[str, Any]:
    scope = handler.opt.get("scope")
    if "registry" in handler.opt:
        return _registry_responses(**handler.opt["registry"])
    schema = {"$ref": "#/components/schemas/Answer"} if scope else {"type": "object"}
    responses: dict[str, Any] = {
        "200": {"description": "the answer", "content": {_JSON: {"schema": schema}}}
    }
    if scope is None:
        responses["503"] = {"description": "not ready", "content": {_JSON: {"schema": schema}}}
        return responses
    responses["304"] = {"description": "what If-None-Match names is still the newest"}
    return responses | _problems()


def _problems() -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": description, "content": problem}
        for status, description in _PROBLEMS.items()
    }


def _registry_responses(shape: dict[str, Any], statuses: list[int]) -> dict[str, Any]:
    """Those of the schema registry: bare values, and errors of its own beside the problems."""
    kinds = (_JSON, *REGISTRY_TYPES)
    content = {kind: {"schema": shape} for kind in kinds}
    error = {"$ref": "#/components/schemas/RegistryError"}
    refusals = {
        str(status): {
            "description": _REGISTRY_ERRORS[status],
            "content": {kind: {"schema": error} for kind in kinds},
        }
        for status in statuses
    }
    problems = {status: said for status, said in _problems().items() if status != "404"}
    return {"200": {"description": "the answer", "content": content}} | problems | refusals


def _security() -> dict[str, Any]:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "scopes: `live` for latest values, `history` for stored ones",
        }
    }


def _schemas() -> dict[str, Any]:
    _, types = msgspec.json.schema_components(
        [Problem, ChainAggregates, Smile], ref_template="#/components/schemas/{name}"
    )
    return {
        **types,
        "Answer": {
            "type": "object",
            "required": ["data", "meta", "next"],
            "properties": {
                "data": {"type": ["array", "object"], "description": "rows or one object"},
                "meta": {
                    "type": "object",
                    "required": ["request_id"],
                    "properties": {"request_id": {"type": "string"}},
                },
                "next": {"type": ["string", "null"], "description": "cursor of the next page"},
            },
        },
        "RegistryError": {
            "type": "object",
            "required": ["error_code", "message"],
            "properties": {"error_code": {"type": "integer"}, "message": {"type": "string"}},
        },
        "Leg": _leg_schema(),
    }


def _leg_schema() -> dict[str, Any]:
    properties: dict[str, Any] = {"symbol": {"type": "string"}}
    for column in LEG_COLUMNS:
        kind = "number" if column.dtype[1] == "f" else "integer"
        unit = f" ({column.unit})" if column.unit else ""
        properties[column.name] = {
            "type": [kind, "null"],
            "description": f"{column.meaning}{unit}",
        }
    properties["kind"] = {"type": "string", "enum": ["call", "put"]}
    return {"type": "object", "properties": properties}


def _version() -> str:
    try:
        return version("stockify")
    except PackageNotFoundError:
        return "0"
