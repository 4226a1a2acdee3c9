"""No route is open that does not say so, and none leaves out what admits."""

import dataclasses
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from api.access.admission import OPEN, admit
from api.app import create_app
from api.gateway import Gateway
from pipeline.config import Settings


def handlers() -> list[tuple[str, Any]]:
    parts = dict.fromkeys(field.name for field in dataclasses.fields(Gateway))
    gateway: Any = Gateway(**{**parts, "settings": Settings(), "telemetry": _Silent()})
    edge = create_app(gateway)
    app: Litestar = edge._app
    return [
        (route.path, handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if set(handler.http_methods) != {"OPTIONS"}
    ]


class _Silent:
    log = None


@pytest.mark.parametrize(("path", "handler"), handlers())
def test_every_route_admits_and_says_whom(path: str, handler: Any) -> None:
    assert handler.resolve_before_request() is admit
    is_open = any(handler.opt.get(name) for name in OPEN)
    assert is_open != ("scope" in handler.opt or bool(handler.opt.get("takes_key")))
    if path.startswith("/v1") and path != "/v1/subjects/{subject:str}":
        assert not is_open
