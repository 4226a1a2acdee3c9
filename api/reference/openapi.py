"""The OpenAPI 3.1 document, read off the routes themselves: paths, parameters, scopes, problems.

A route's parameters are those its own parser takes, so that the document cannot promise others.
"""

import inspect
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.reference.examples import EXAMPLES, LAST_EVENT, PARAMETERS, PATHS
from api.reference.fields import components
from api.reference.responses import JSON, answers, problems, responses_of
from api.rest.answers import AnyRequest
from api.rest.query import Parameter, Query
from api.rest.registry_answers import REGISTRY_TYPES

_DESCRIPTION = (
    "Option chains with volatilities and Greeks, live and as history. Prices in rupees, quantities"
    ' in units, instants in UTC. `null` is "not available", 0 is a zero. The live feed, `/v1/ws`'
    " and `/v1/stream`, is described in `/asyncapi.json`.\n\n"
    "Every answer has `X-Request-Id`, which names it in the gateway's log, and every one that was"
    " counted `RateLimit` and `RateLimit-Policy`. Every error is an RFC 9457 problem. HEAD is"
    " answered wherever GET is."
)
_SCOPES = {
    "live": "latest values, socket and event stream",
    "history": "stored values",
    "export": "exports of any size",
    "admin": "dead letters, the state of the pipeline, revoking anybody's token",
}
_METHODS = ("GET", "POST", "DELETE")
# What routes are listed under, in this order, and with what their paths begin.
_TAGS = {
    "underlyings": ("what options are written on, and what their chains tell", {"underlyings"}),
    "chains": ("all contracts of an underlying and expiry", {"chains"}),
    "contracts": ("one option", {"contracts"}),
    "snapshots": ("the newest of many symbols at once", {"snapshots"}),
    "symbols": ("what there is, by what people type", {"symbols"}),
    "candles": ("prices by interval", {"candles"}),
    "gaps": ("when there are no snapshots, and why", {"gaps"}),
    "exports": ("stored rows of any range as a file", {"exports"}),
    "stream": ("the live feed as server-sent events", {"stream"}),
    "tokens": ("tokens for API keys, and tickets for streams", {"token", "tickets"}),
    "registry": ("what entries hold", {"subjects", "schemas", "config", "compatibility"}),
    "admin": ("dead letters, and the state of the pipeline", {"admin", "ops"}),
    "health": ("whether the gateway lives, and is of use", {"healthz", "readyz"}),
}
# Headers that say something of their own to routes with that option.
_HEADERS = {
    "is_tagged": ("If-None-Match", "the `ETag` of what the client holds", 'W/"5f1d7a84db6b"'),
    "takes_ticket": ("Last-Event-ID", "the id of the last event: from there on", LAST_EVENT),
}


@get("/openapi.json", opt={"is_page": True})
async def openapi(request: AnyRequest) -> Response[bytes]:
    """This description of the gateway."""
    app: Litestar = request.app
    body = msgspec.json.encode(document(app))
    return Response(body, media_type=JSON, headers={"Cache-Control": "no-cache"})


def document(app: Litestar) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            for method in _METHODS:
                if method in handler.http_methods and not handler.opt.get("is_page"):
                    operations = paths.setdefault(route.path_format, {})
                    operations[method.lower()] = _operation(route, handler, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stockify",
            "version": stockify_version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, (text, _) in _TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": _components(),
    }


def _operation(route: HTTPRoute, handler: HTTPRouteHandler, method: str) -> dict[str, Any]:
    summary, _, rest = inspect.cleandoc(handler.fn.__doc__ or "").partition("\n\n")
    name = handler.fn.__name__
    operation: dict[str, Any] = {
        "operationId": name,
        "tags": [_tag(route.path_format)],
        "summary": " ".join(summary.replace("`", "").split()),
        "parameters": _parameters(route, handler.opt),
        "responses": responses_of(name, handler.opt, method, has_path=bool(route.path_parameters)),
        "security": _needed(handler),
    }
    if rest:
        operation["description"] = rest
    body = _body(name, handler)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _tag(path: str) -> str:
    parts = path.strip("/").split("/")
    first = parts[1] if len(parts) > 1 else parts[0]
    return next(name for name, (_, begin) in _TAGS.items() if first in begin)


def _components() -> dict[str, Any]:
    said = components()
    schemas = {**said.pop("schemas"), **answers()}
    return {
        "securitySchemes": _security(),
        "schemas": dict(sorted(schemas.items())),
        "responses": problems(),
        **said,
    }


def _body(name: str, handler: HTTPRouteHandler) -> dict[str, Any] | None:
    """What a route reads of a body: a schema of the registry's, or a struct that may be absent."""
    example = EXAMPLES.get(f"{name}.body")
    shape: dict[str, Any] | None = handler.opt.get("body")
    if shape is not None:
        content = {kind: {"schema": shape, "example": example} for kind in (*REGISTRY_TYPES, JSON)}
        return {"required": True, "content": content}
    struct = handler.opt.get("body_type")
    if struct is None:
        return None
    reference = {"$ref": f"#/components/schemas/{struct.__name__}"}
    return {"required": False, "content": {JSON: {"schema": reference, "example": example}}}


def _needed(handler: HTTPRouteHandler) -> list[dict[str, list[str]]]:
    """Any one of these lets a request in; the key of an exchange may also stand in its body."""
    if handler.opt.get("takes_key"):
        return [{"key": []}, {}]
    scope: str | None = handler.opt.get("scope")
    if scope is None:
        return []
    scopes = [scope, *handler.opt.get("scope_with", {}).values()]
    needed: list[dict[str, list[str]]] = [
        {"bearer": [one] if one else []} for one in dict.fromkeys(scopes)
    ]
    return [*needed, {"ticket": []}] if handler.opt.get("takes_ticket") else needed


def _parameters(route: HTTPRoute, opt: Mapping[str, Any]) -> list[dict[str, Any]]:
    named = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATHS[name][0] if name in PATHS else "",
            "schema": {"type": "string", "minLength": 1},
            "example": PATHS[name][1] if name in PATHS else None,
        }
        for name in route.path_parameters
    ]
    query: Query | None = opt.get("query")
    asked = query.parameters if query is not None else ()
    heard = [_heard(*said) for option, said in _HEADERS.items() if opt.get(option)]
    return named + [_asked(parameter) for parameter in asked] + heard


def _heard(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


def _asked(parameter: Parameter) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    schema = parameter.schema
    if schema.get("type") == "array":  # a,b
        said |= {"style": "form", "explode": False}
    known = [*parameter.known[:2]]
    given = (known, PARAMETERS.get(parameter.name), schema.get("default"), *schema.get("enum", ()))
    example = next((one for one in given if one not in (None, "", [])), schema.get("minimum"))
    return said | {"example": example}


def _security() -> dict[str, Any]:
    scopes = "; ".join(f"`{name}`: {allows}" for name, allows in _SCOPES.items())
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "bearer": bearer | {"bearerFormat": "JWT", "description": f"A token. Scopes: {scopes}."},
        "ticket": {
            "type": "apiKey",
            "in": "query",
            "name": "ticket",
            "description": "What `POST /v1/tickets` gives: once, within 30 seconds.",
        },
        "key": bearer | {"description": "An API key, which `stockify key create` prints once."},
    }


def stockify_version() -> str:
    """The version that is installed, `0` where it is not."""
    try:
        return version("stockify")
    except PackageNotFoundError:
        return "0"
