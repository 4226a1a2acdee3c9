"""The application: routes, guards and error answers, put together. Holds no state of its own."""

from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from api import health, page
from api.access import tokens
from api.access.admission import admit
from api.edge import BODY_BYTES, Edge
from api.errors import respond
from api.gateway import Gateway
from api.live import events, sockets
from api.reference import asyncapi, openapi
from api.rest import (
    admin,
    analytics,
    candles,
    chains,
    exports,
    gaps,
    history,
    registry,
    series,
    strikes,
    symbols,
    ticks,
)


def create_app(gateway: Gateway) -> Any:
    """The ASGI application of a gateway."""
    app = routed(State({"gateway": gateway}))
    return Edge(app, gateway.settings, gateway.requests, gateway.limiter, gateway.telemetry.log)


def routed(state: State) -> Litestar:
    """The routes alone, without the rim; answers want the `gateway` in the state."""
    routes = Router(
        "/v1",
        route_handlers=[
            chains.underlyings,
            chains.underlying_latest,
            chains.expiries,
            chains.chain,
            chains.contract,
            chains.snapshots,
            chains.snapshot,
            *analytics.routes,
            *strikes.routes,
            *series.routes,
            *history.routes,
            *exports.routes,
            *candles.routes,
            *gaps.routes,
            *symbols.routes,
            *ticks.routes,
            registry.routes,
            tokens.routes,
            *admin.routes,
            events.stream,
        ],
    )
    return Litestar(
        route_handlers=[
            routes,
            sockets.stream,
            health.healthz,
            health.readyz,
            openapi.openapi,
            asyncapi.asyncapi,
            registry.subject_alone,
            page.document,
            page.docs,
            page.docs_live,
            page.asset,
            page.licences,
        ],
        exception_handlers={HTTPException: respond, Exception: respond},
        before_request=admit,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=BODY_BYTES,
        state=state,
    )
