"""Latest values over REST: underlyings, expiries, chains (also as of a time) and contracts."""

from datetime import date
from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from api.errors import not_found
from api.gateway import Gateway, database_of, gateway_of
from api.rest.answers import (
    JSON_TYPE,
    AnyRequest,
    Ready,
    answer,
    asked_form,
    entity_tag,
    instant,
    not_modified,
    pairs_of,
    request_id_of,
    with_instants,
)
from api.rest.coverage import coverage_of
from api.rest.query import (
    Query,
    around,
    check_symbols,
    choice,
    flag,
    listed,
    number,
    required,
    symbol_of,
    times,
)
from api.rest.query import instant as instant_parameter
from api.rest.rows import Window, select_rows
from api.rest.seen import chain_id_of, expiry_bounds, is_within, path_expiry
from pipeline import history
from pipeline.clock import expiry_ns
from pipeline.frames import ROW_FIELDS, LatestChain, LatestContract, LatestUnderlying
from pipeline.latest import Catalog, Known, decode_latest
from pipeline.models import ChainAggregates, ChainId, chain_symbol

SNAPSHOTS_MAXIMUM = 50  # fifty whole chains are some 7 MB

_PLAIN = Query(times())
_CHAIN = Query(
    number("strike.gte", "strikes from here"),
    number("strike.lte", "strikes to here"),
    choice("kind", "one side alone", "call", "put"),
    around(),
    listed("fields", "fields of the rows", at_most=len(ROW_FIELDS), known=ROW_FIELDS),
    choice("layout", "a row a contract, or a pair a strike", "rows", "pairs", default="rows"),
    instant_parameter("as_of", "the last snapshot at or before this instant, from history"),
    times(),
)
_SNAPSHOTS = Query(
    required(
        listed("ids", "symbols of underlyings, chains or contracts", at_most=SNAPSHOTS_MAXIMUM)
    ),
    instant_parameter("updated_since", "only what was calculated after this instant"),
    times(),
)
_EXPIRIES = Query(
    flag("past", "every past expiry that is stored too, from history"),
    *expiry_bounds(),
    times(),
)


@get("/underlyings", opt={"scope": "live", "query": _PLAIN, "is_tagged": True})
async def underlyings(request: AnyRequest) -> Response[bytes]:
    """Underlyings with their newest snapshot, and how many chains each has."""
    form = _PLAIN.parse(request.query_params.multi_items())["ts"]
    gateway = gateway_of(request)
    catalog = await gateway.latest.catalog()
    symbols = catalog.underlyings()
    texts = await gateway.latest.texts(symbols)
    pairs = zip(symbols, texts, strict=True)
    data = [_underlying(symbol, text, catalog, form) for symbol, text in pairs]
    return _tagged(request, data, {"n": len(data)}, data)


@get("/underlyings/{underlying:str}", opt={"scope": "live", "query": _PLAIN, "is_tagged": True})
async def underlying_latest(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """One underlying with its newest snapshot."""
    form = _PLAIN.parse(request.query_params.multi_items())["ts"]
    gateway = gateway_of(request)
    catalog = await gateway.latest.catalog()
    if underlying not in catalog.underlyings():
        raise not_found("underlying", underlying)
    texts = await gateway.latest.texts([underlying])
    told = _underlying(underlying, texts[0], catalog, form)
    return _tagged(request, told, {}, told)


@get(
    "/underlyings/{underlying:str}/expiries",
    opt={
        "scope": "live",
        "scope_with": {"past": "history"},
        "query": _EXPIRIES,
        "is_tagged": True,
    },
)
async def expiries(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Expiries of an underlying: those to come, nearest first, then past ones, newest first.

    `ts_ingest` is that of the newest chain; null where none was received lately. Of past ones only
    those of the last days, unless `past`, which needs the scope `history`.
    """
    query = _EXPIRIES.parse(request.query_params.multi_items())
    gateway = gateway_of(request)
    catalog = await gateway.latest.catalog()
    cards = {card.expiry: card for card in catalog.chains_of(underlying).values()}
    card_of_list = catalog.listed.get(underlying)
    known = {*cards, *(card_of_list.expiries if card_of_list else ())}
    if query["past"]:
        stored = {row["underlying"]: row for row in await history.underlyings(database_of(request))}
        if underlying in stored:
            known |= {day.isoformat() for day in stored[underlying]["expiries"]}
    if not known:
        raise not_found("underlying", underlying)
    now_ns = gateway.clock.now_ns()
    days = sorted(day for day in known if is_within(query, date.fromisoformat(day)))
    to_come = [day for day in days if expiry_ns(date.fromisoformat(day)) >= now_ns]
    past = [day for day in reversed(days) if day not in to_come]
    data = []
    for day in (*to_come, *past):
        card = cards.get(day)
        data.append(
            {
                "expiry": day,
                "chain": chain_symbol(underlying, date.fromisoformat(day)),
                "is_expired": day in past,
                "ts_ingest": instant(card.ts_ingest, query["ts"]) if card else None,
                "n": card.n if card else None,
                "lot": card.lot if card else None,
            }
        )
    return _tagged(request, data, {"underlying": underlying, "n": len(data)}, underlying, data)


@get(
    "/chains/{underlying:str}/{expiry:str}",
    opt={
        "scope": "live",
        "scope_with": {"as_of": "history"},
        "query": _CHAIN,
        "is_tagged": True,
    },
)
async def chain(
    request: AnyRequest, underlying: FromPath[str], expiry: FromPath[str]
) -> Response[bytes]:
    """The newest snapshot of a chain, or that as of an instant; `expiry` may be `nearest`.

    With `as_of` the scope is `history`, without it `live`; it gives chains of any stored past, also
    expired ones, and `nearest` is then the next expiry of that instant. Its `meta.coverage` is from
    the snapshot to `as_of`, and so tells whether a newer one should be there.
    """
    query = _CHAIN.parse(pairs_of(request))
    gateway = gateway_of(request)
    day = path_expiry(expiry)
    chain_id = await chain_id_of(request, underlying, day, query["as_of"])
    if query["as_of"] is not None:
        return await _chain_as_of(request, chain_id, query["as_of"], _window(query), query["ts"])
    symbol = chain_symbol(*chain_id)
    known = await gateway.known_chains.chain(symbol)
    if known is None:
        raise not_found("symbol", symbol)
    position = known.position
    form = asked_form(request)
    key = symbol, form
    kept = gateway.kept_answers.get(key, position, request_id_of(request))
    if kept is not None:
        body, rest, headers = kept
        return Ready(body, media_type=JSON_TYPE, headers=headers, rest=rest)
    window = _window(query)
    tag = entity_tag(symbol, position.epoch, position.seq, window, query["ts"])
    unchanged = not_modified(request, tag)
    if unchanged is not None:
        return unchanged
    header = msgspec.structs.asdict(known.header)
    atm = known.header.aggregates.atm_strike or known.header.forward or known.header.spot
    rows, n = select_rows(known.rows, known.header.n, window, atm)
    meta = with_instants(header | _position(known) | {"rows": n}, query["ts"])
    told = answer(request, rows, meta, tag=tag)
    if form is not None and told.media_type == JSON_TYPE and "Content-Encoding" not in told.headers:
        gateway.kept_answers.put(key, position, request_id_of(request), told.content, told.headers)
    return told


def _window(query: dict[str, Any]) -> Window:
    return Window(
        strike_from=query["strike.gte"],
        strike_to=query["strike.lte"],
        kind=query["kind"],
        around=query["around"],
        fields=query["fields"] or (),
        in_pairs=query["layout"] == "pairs",
    )


@get("/contracts/{symbol:str}", opt={"scope": "live", "query": _PLAIN, "is_tagged": True})
async def contract(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """The newest row of a contract."""
    form = _PLAIN.parse(request.query_params.multi_items())["ts"]
    known = await _known(gateway_of(request), symbol)
    if not isinstance(known, LatestContract):
        raise not_found("contract", symbol)
    tag = entity_tag(symbol, known.position.epoch, known.position.seq, form)
    return not_modified(request, tag) or answer(
        request, known.row, with_instants(_contract_meta(known), form), tag=tag
    )


@get("/snapshots", opt={"scope": "live", "query": _SNAPSHOTS, "is_tagged": True})
async def snapshots(request: AnyRequest) -> Response[bytes]:
    """The newest values of many symbols; `meta.missing` names those that have none.

    With `updated_since` only those whose `ts_enrich` is after it; `meta.unchanged` names the rest,
    and `meta.ts_updated` is what to hand in the next time: the newest `ts_enrich` of them all.
    """
    query = _SNAPSHOTS.parse(request.query_params.multi_items())
    ids, since_ns, form = query["ids"], query["updated_since"], query["ts"]
    check_symbols("ids", ids)
    texts = await gateway_of(request).latest.texts(ids)
    known = {
        symbol: decode_latest(symbol, text)
        for symbol, text in zip(ids, texts, strict=True)
        if text is not None
    }
    updated = {symbol: one.position.ts_enrich for symbol, one in known.items()}
    changed = [name for name, at in updated.items() if since_ns is None or at > since_ns]
    data = [_snapshot(symbol, known[symbol], form) for symbol in changed]
    meta: dict[str, Any] = {
        "n": len(data),
        "missing": [symbol for symbol in ids if symbol not in known],
        "unchanged": [symbol for symbol in known if symbol not in changed],
        "ts_updated": instant(max(updated.values(), default=since_ns), form),
    }
    return _tagged(request, data, meta, "many", form, meta, *map(_mark, data))


@get("/snapshots/{symbol:str}", opt={"scope": "live", "query": _PLAIN, "is_tagged": True})
async def snapshot(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """The newest value of one symbol, of whichever kind."""
    form = _PLAIN.parse(request.query_params.multi_items())["ts"]
    symbol_of(symbol)
    text = (await gateway_of(request).latest.texts([symbol]))[0]
    if text is None:
        raise not_found("symbol", symbol)
    told = _snapshot(symbol, decode_latest(symbol, text), form)
    return _tagged(request, told, {}, form, _mark(told))


def _tagged(
    request: AnyRequest, data: Any, meta: dict[str, Any], *parts: object
) -> Response[bytes]:
    """The answer with a tag made of what it depends on, or 304."""
    tag = entity_tag(request.url.path, *parts)
    return not_modified(request, tag) or answer(request, data, meta, tag=tag)


def _mark(snapshot: dict[str, Any]) -> tuple[object, ...]:
    """What changes with a snapshot."""
    return tuple(snapshot[name] for name in ("symbol", "epoch", "seq", "ts_enrich"))


async def _known(gateway: Gateway, symbol: str) -> Any:
    """What Redis holds of a symbol. Raises ApiError 404."""
    symbol_of(symbol)
    text = (await gateway.latest.texts([symbol]))[0]
    if text is None:
        raise not_found("symbol", symbol)
    return decode_latest(symbol, text)


async def _chain_as_of(
    request: AnyRequest, chain_id: ChainId, at_ns: int, window: Window, form: str
) -> Response[bytes]:
    found = await history.chain_as_of(
        database_of(request), chain_id.underlying, chain_id.expiry, at_ns
    )
    if found is None:
        raise not_found("snapshot", chain_symbol(*chain_id))
    header, legs = found
    names = ChainAggregates.__struct_fields__
    aggregates = {name: header[name] for name in names}
    atm = header["atm_strike"] or header["forward"] or header["spot"]
    encoded = msgspec.Raw(
        msgspec.json.encode([{name: leg.get(name) for name in ROW_FIELDS} for leg in legs])
    )
    rows, n = select_rows(encoded, len(legs), window, atm)
    meta = {name: value for name, value in header.items() if name not in aggregates}
    meta |= {"aggregates": aggregates, "rows": n, "as_of": instant(at_ns, form)}
    symbol = chain_symbol(*chain_id)
    meta["coverage"] = await coverage_of(request, symbol, header["ts_ingest"], at_ns + 1_000, form)
    return answer(request, rows, with_instants(meta, form))


def _underlying(symbol: str, text: bytes | None, catalog: Catalog, form: str) -> dict[str, Any]:
    values: dict[str, Any] = {"symbol": symbol, "spot": None, "ts_ingest": None, "ts_event": None}
    if text is not None:
        known = decode_latest(symbol, text)
        if isinstance(known, LatestUnderlying):
            values |= msgspec.structs.asdict(known.snapshot)
    values["chains"] = len(catalog.chains_of(symbol))
    return with_instants(values, form)


def _position(known: LatestChain | LatestContract | LatestUnderlying) -> dict[str, Any]:
    position = known.position
    return {"epoch": position.epoch, "seq": position.seq, "ts_enrich": position.ts_enrich}


def _contract_meta(known: LatestContract) -> dict[str, Any]:
    names = ("symbol", "chain", "ts_ingest", "ts_event", "spot", "forward")
    return {name: getattr(known, name) for name in names} | _position(known)


def _snapshot(symbol: str, known: Known, form: str) -> dict[str, Any]:
    values: dict[str, Any] = {"type": known.type, "symbol": symbol} | _position(known)
    if isinstance(known, LatestChain):
        header = with_instants(msgspec.structs.asdict(known.header), form)
        values |= {"ts_ingest": known.header.ts_ingest, "header": header, "rows": known.rows}
    elif isinstance(known, LatestContract):
        values |= _contract_meta(known) | {"rows": [known.row]}
    else:
        rows = [with_instants(msgspec.structs.asdict(known.snapshot), form)]
        values |= {"ts_ingest": known.snapshot.ts_ingest, "rows": rows}
    return with_instants(values, form)
