"""What every request passes before its handler: who asks, whether he may, and how often.

Runs as the hook before a request and not as guards: for each guard Litestar copies the handler,
60 µs, for each request.
"""

from typing import Any

from litestar import Request

from api.access.auth import guard
from api.access.limiting import limit

OPEN = ("is_page", "is_open")  # in the options of a route that asks nobody who he is


async def admit(request: Request[Any, Any, Any]) -> None:
    """Admits a request to its route, and counts it. Raises ApiError 401, 403, 429 or 503.

    A route that does not say what it needs is a failure of ours, and never open.
    """
    handler = request.route_handler
    if not any(handler.opt.get(name) for name in OPEN):
        await guard(request, handler)
    await limit(request, handler)
