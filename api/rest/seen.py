"""Chains as they are seen now, by what Redis holds, or at an instant, by what is stored.

What is calculated from chains is the same for both; only this room knows where they come from.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

import msgspec

from api.errors import ApiError, not_found
from api.gateway import database_of, gateway_of
from api.rest.answers import AnyRequest, entity_tag
from api.rest.coverage import coverage_of
from api.rest.query import Parameter, day, symbol_of
from pipeline import history
from pipeline.clock import expiry_ns
from pipeline.models import ChainHeader, ChainId, chain_symbol

NEAREST = "nearest"
_EXPIRY = re.compile(r"^\d{4}-\d{2}-\d{2}$|^\d{8}$")
_WANTED = "want 2026-01-27, 20260127 or nearest"
_decode_rows = msgspec.json.Decoder(list[dict[str, Any]]).decode


class Seen(NamedTuple):
    """One chain: its header, and its legs by the names of the leg layout."""

    header: ChainHeader
    legs: list[dict[str, Any]]
    tag: str | None
    coverage: dict[str, Any] | None


class SeenHeaders(NamedTuple):
    """The chains of an underlying that had not settled, nearest first.

    None stands for one that is listed and was not received. `tag` is of now, `coverage` of an
    instant of the past, from the oldest of these snapshots on.
    """

    headers: dict[date, ChainHeader | None]
    tag: str | None
    coverage: dict[str, Any] | None


def expiry_parameter() -> Parameter:
    """One chain of an underlying: an expiry, or `nearest`."""
    description = "2026-01-27, 20260127 or `nearest`, the chain that settles next"
    schema = {"type": "string", "default": NEAREST}
    return Parameter("expiry", description, schema, parse_expiry, NEAREST)


def expiry_bounds() -> tuple[Parameter, Parameter]:
    """Which of several expiries are wanted."""
    return day("expiry.gte", "expiries from this day"), day("expiry.lte", "expiries to this day")


def is_within(query: Mapping[str, Any], expiry: date) -> bool:
    """Whether an expiry is one of those that `expiry_bounds` keep."""
    first, last = query["expiry.gte"], query["expiry.lte"]
    return (first is None or expiry >= first) and (last is None or expiry <= last)


def parse_expiry(text: str) -> date | str:
    """A day, or NEAREST. Raises ValueError with words for the client."""
    if text == NEAREST:
        return NEAREST
    try:
        if _EXPIRY.match(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(_WANTED)


def path_expiry(text: str) -> date | str:
    """The same of a path. Raises ApiError 400."""
    try:
        return parse_expiry(text)
    except ValueError as error:
        errors = [{"parameter": "expiry", "detail": str(error)}]
        raise ApiError(400, "invalid_path", f"expiry: {error}", errors=errors) from None


async def chain_id_of(
    request: AnyRequest, underlying: str, expiry: date | str, at_ns: int | None
) -> ChainId:
    """The chain that is meant, now or at an instant. Raises ApiError 404."""
    if not isinstance(symbol_of(underlying), str):
        raise not_found("underlying", underlying)
    if isinstance(expiry, date):
        return ChainId(underlying, expiry)
    if at_ns is not None:
        nearest = await history.expiry_as_of(database_of(request), underlying, at_ns)
        if nearest is None:
            raise not_found("underlying", underlying)
        return ChainId(underlying, nearest)
    gateway = gateway_of(request)
    symbol = (await gateway.latest.catalog()).nearest(underlying, gateway.clock.now_ns())
    parts = symbol_of(symbol) if symbol else None
    if not isinstance(parts, ChainId):
        raise not_found("underlying", underlying)
    return parts


async def seen_chain(
    request: AnyRequest, underlying: str, query: Mapping[str, Any], *tagged: object
) -> Seen:
    """The chain of `expiry`, as of `as_of` where that is given. Raises ApiError 404."""
    at_ns = query["as_of"]
    chain_id = await chain_id_of(request, underlying, query["expiry"], at_ns)
    symbol = chain_symbol(*chain_id)
    if at_ns is None:
        known = await gateway_of(request).known_chains.chain(symbol)
        if known is None:
            raise not_found("chain", symbol)
        tag = entity_tag(symbol, known.position.epoch, known.position.seq, query["ts"], *tagged)
        return Seen(known.header, _decode_rows(known.rows), tag, None)
    found = await history.chain_as_of(database_of(request), *chain_id, at_ns)
    if found is None:
        raise not_found("snapshot", symbol)
    header = history.header_of(found[0])
    since_ns, form = header.ts_ingest, query["ts"]
    coverage = await coverage_of(request, symbol, since_ns, at_ns + 1_000, form)
    return Seen(header, found[1], None, coverage)


async def seen_headers(
    request: AnyRequest, underlying: str, query: Mapping[str, Any], *tagged: object
) -> SeenHeaders:
    """The headers of an underlying, as of `as_of` where that is given. Raises ApiError 404."""
    at_ns = query["as_of"]
    if not isinstance(symbol_of(underlying), str):
        raise not_found("underlying", underlying)
    if at_ns is None:
        return await _newest_headers(request, underlying, query["ts"], tagged)
    found = await history.headers_as_of(database_of(request), underlying, at_ns)
    if not found:
        raise not_found("snapshot", underlying)
    since_ns = min(header.ts_ingest for header in found)
    coverage = await coverage_of(request, underlying, since_ns, at_ns + 1_000, query["ts"])
    return SeenHeaders({header.expiry: header for header in found}, None, coverage)


async def _newest_headers(
    request: AnyRequest, underlying: str, form: str, tagged: tuple[object, ...]
) -> SeenHeaders:
    gateway = gateway_of(request)
    catalog = await gateway.latest.catalog()
    if underlying not in catalog.underlyings():
        raise not_found("underlying", underlying)
    card = catalog.listed.get(underlying)
    days = {chain.expiry for chain in catalog.chains_of(underlying).values()}
    days.update(card.expiries if card else ())
    now_ns = gateway.clock.now_ns()
    to_come = [each for each in sorted(map(date.fromisoformat, days)) if expiry_ns(each) >= now_ns]
    symbols = [chain_symbol(underlying, each) for each in to_come]
    chains = await asyncio.gather(*map(gateway.known_chains.chain, symbols))
    positions = [(one.position.epoch, one.position.seq) if one else None for one in chains]
    headers = dict(zip(to_come, (one.header if one else None for one in chains), strict=True))
    return SeenHeaders(headers, entity_tag(underlying, to_come, positions, form, *tagged), None)
