"""The simulated exchange's HTTP face: routes, and the order in which a request is judged.

Authentication, then the request itself, then the rate limit, then the answer; as JSON text that
the pure rooms write. The only file here that knows Litestar.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from datetime import date
from email.utils import formatdate
from typing import Any, TypeAlias

import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler

from pipeline.clock import SECOND_NS, Clock, to_rfc3339
from pipeline.telemetry import Counter
from workers.simulator import answers, exchange, instruments, requests
from workers.simulator.faults import Fault, Faults, spoil
from workers.simulator.limits import Limits
from workers.simulator.market import Market
from workers.simulator.requests import Refused

AnyRequest: TypeAlias = Request[Any, Any, Any]

_MOST_PREVIOUS = 48  # bodies kept for `stale`: every chain once
_LARGEST_BODY = 1_000_000  # bytes of a request; 1,000 ids take about 10,000


class Exchange:
    """The parts that answer, put together; one per process."""

    def __init__(
        self, market: Market, clock: Clock, limits: Limits, counter: Counter, accepted_token: str
    ) -> None:
        self.market = market
        self.clock = clock
        self.faults = Faults()
        self._limits = limits
        self._counter = counter
        self._accepted_token = accepted_token
        self._previous: OrderedDict[tuple[str, date], str] = OrderedDict()

    async def option_chain(self, request: AnyRequest) -> Response[str]:
        """POST /v2/optionchain."""
        body = await self._body(request)
        client, now_ns = self._client(request), self.clock.now_ns()
        asked = requests.chain_request(body, has_expiry=True)
        underlying, expiry = asked.underlying, asked.expiry
        if expiry is None or not exchange.is_answered(underlying, expiry, now_ns):
            raise Refused(811)
        if not self._limits.admit_chain(client, asked, now_ns):
            raise Refused(805)
        key = underlying.name, expiry
        text = answers.chain(self.market.chain(underlying, expiry, now_ns))
        kind = self.faults.take(*key)
        if kind is not None:
            spoilt = spoil(kind, text, self._previous.get(key))
            return self.respond(spoilt.body, spoilt.status, spoilt.media_type)
        self._previous[key] = text
        self._previous.move_to_end(key)
        if len(self._previous) > _MOST_PREVIOUS:
            self._previous.popitem(last=False)
        return self.respond(text)

    async def expiry_list(self, request: AnyRequest) -> Response[str]:
        """POST /v2/optionchain/expirylist."""
        body = await self._body(request)
        client, now_ns = self._client(request), self.clock.now_ns()
        asked = requests.chain_request(body, has_expiry=False)
        if not self._limits.admit_chain(client, asked, now_ns):
            raise Refused(805)
        return self.respond(answers.expiry_list(exchange.expiries(asked.underlying, now_ns)))

    async def feed(self, request: AnyRequest, kind: str) -> Response[str]:
        """POST /v2/marketfeed/{ltp,ohlc,quote}."""
        body = await self._body(request)
        client, now_ns = self._client(request), self.clock.now_ns()
        wanted = requests.feed_request(body)
        if not self._limits.admit_quote(client, now_ns):
            raise Refused(805)
        found = instruments.look_up(self.market, wanted, now_ns)
        return self.respond(answers.feed(kind, found))

    def respond(
        self, body: str, status: int = 200, media_type: str = "application/json"
    ) -> Response[str]:
        """An answer with the market's own date: the provider's bodies carry no time."""
        date_text = formatdate(self.clock.now_ns() / SECOND_NS, usegmt=True)
        return Response(
            body, status_code=status, media_type=media_type, headers={"Date": date_text}
        )

    def refuse(self, _request: AnyRequest, error: Refused) -> Response[str]:
        """The provider's error body for a request that is not answered."""
        status, body = answers.data_error(error.code)
        return self.respond(body, status)

    def http_error(self, request: AnyRequest, error: HTTPException) -> Response[str]:
        """The body for a path or method that does not exist."""
        reason = {404: "Not Found", 405: "Method Not Allowed"}.get(error.status_code, "Bad Request")
        now_ns = self.clock.now_ns()
        text = answers.http_error(error.status_code, reason, request.url.path, now_ns)
        return self.respond(text, error.status_code)

    def _client(self, request: AnyRequest) -> str:
        return requests.client_of(request.headers, self._accepted_token)

    async def _body(self, request: AnyRequest) -> bytes:
        self._counter.add()
        return await request.body()


def make_app(parts: Exchange, state: Callable[[], str]) -> Litestar:
    """The ASGI application; `state` says how the process is, for `/healthz`."""
    return Litestar(
        route_handlers=[*_data_routes(parts), *_own_routes(parts, state)],
        exception_handlers={
            Refused: parts.refuse,
            NotFoundException: parts.http_error,
            MethodNotAllowedException: parts.http_error,
        },
        request_max_body_size=_LARGEST_BODY,
        openapi_config=None,
        logging_config=None,
    )


def _data_routes(parts: Exchange) -> list[HTTPRouteHandler]:
    @post("/v2/optionchain", status_code=200)
    async def option_chain(request: AnyRequest) -> Response[str]:
        return await parts.option_chain(request)

    @post("/v2/optionchain/expirylist", status_code=200)
    async def expiry_list(request: AnyRequest) -> Response[str]:
        return await parts.expiry_list(request)

    @post("/v2/marketfeed/ltp", status_code=200)
    async def feed_ltp(request: AnyRequest) -> Response[str]:
        return await parts.feed(request, "ltp")

    @post("/v2/marketfeed/ohlc", status_code=200)
    async def feed_ohlc(request: AnyRequest) -> Response[str]:
        return await parts.feed(request, "ohlc")

    @post("/v2/marketfeed/quote", status_code=200)
    async def feed_quote(request: AnyRequest) -> Response[str]:
        return await parts.feed(request, "quote")

    return [option_chain, expiry_list, feed_ltp, feed_ohlc, feed_quote]


def _own_routes(parts: Exchange, state: Callable[[], str]) -> list[HTTPRouteHandler]:
    """What a real exchange does not have; each is plain JSON."""

    @get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"state": state(), "now": to_rfc3339(parts.clock.now_ns())}

    @post("/_faults", status_code=200)
    async def order_fault(request: AnyRequest) -> Response[Any]:
        if not _is_local(request):
            raise NotFoundException
        try:
            return Response(parts.faults.order(await request.body()))
        except msgspec.DecodeError as error:
            return Response({"error": str(error)}, status_code=400)

    @get("/_faults")
    async def list_faults() -> list[Fault]:
        return list(parts.faults.waiting)

    @delete("/_faults")
    async def clear_faults(request: AnyRequest) -> None:
        if not _is_local(request):
            raise NotFoundException
        parts.faults.clear()

    return [healthz, order_fault, list_faults, clear_faults]


def _is_local(request: AnyRequest) -> bool:
    """Whether the request comes from this machine."""
    client = request.client
    return client is not None and ipaddress.ip_address(client.host).is_loopback
