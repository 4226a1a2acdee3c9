"""Dhan's REST answers, as received. Knows headers, paths and time-outs; parses no chain."""

from collections.abc import Callable
from datetime import date

import httpx
import msgspec

from pipeline import dhan
from pipeline.dhan import CHAIN_PATH, EXPIRIES_PATH, DhanUnderlying
from pipeline.errors import ProviderUnavailable, ProviderUnreachable

TIMEOUT = httpx.Timeout(8.0, connect=3.0)
KEPT_ALIVE = httpx.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=60.0)
USER_AGENT = "stockify/0.1"  # the provider's edge refuses requests without one


class Answer(msgspec.Struct, frozen=True):
    """A body that holds data, with what its HTTP answer said beside it."""

    path: str
    status: int
    http_date: str | None
    body: bytes


class DhanRest:
    """The option chain calls. `token` is asked before each request, so that it may change."""

    def __init__(self, base_url: str, client_id: str, token: Callable[[], str]) -> None:
        self._client_id = client_id
        self._token = token
        is_local = httpx.URL(base_url).host in ("127.0.0.1", "localhost", "::1")
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=TIMEOUT,
            limits=KEPT_ALIVE,
            headers={"Accept": "application/json", "User-Agent": USER_AGENT},
            trust_env=not is_local,  # a proxy of the environment cannot reach this machine
        )

    async def option_chain(self, underlying: DhanUnderlying, expiry: date) -> Answer:
        """The whole chain of one expiry. Raises ProviderError."""
        return await self._post(CHAIN_PATH, _asked(underlying) | {"Expiry": expiry.isoformat()})

    async def expiry_list(self, underlying: DhanUnderlying) -> Answer:
        """The expiries that are listed. Raises ProviderError."""
        return await self._post(EXPIRIES_PATH, _asked(underlying))

    async def close(self) -> None:
        """Close the kept-alive connections."""
        await self._client.aclose()

    async def _post(self, path: str, asked: dict[str, object]) -> Answer:
        headers = {
            "access-token": self._token(),
            "client-id": self._client_id,
            "Content-Type": "application/json",
        }
        try:
            answer = await self._client.post(
                path, content=msgspec.json.encode(asked), headers=headers
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ProviderUnreachable(f"{path}: {error or type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"{path}: {type(error).__name__} {error}".strip()) from error
        failure = dhan.failure(answer.status_code, answer.content)
        if failure is not None:
            raise failure
        return Answer(path, answer.status_code, answer.headers.get("Date"), answer.content)


def _asked(underlying: DhanUnderlying) -> dict[str, object]:
    return {"UnderlyingScrip": underlying.security_id, "UnderlyingSeg": underlying.segment}
