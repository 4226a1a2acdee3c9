"""Exports over REST: every stored row of a range, as one file that is made while it is sent."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from functools import partial
from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.access.auth import principal_of
from api.errors import ApiError, invalid_parameter, not_found
from api.gateway import Gateway, database_of, gateway_of
from api.rest.answers import VARY, AnyRequest, format_of, instant, meta_header, schema_metadata
from api.rest.batches import writer_of
from api.rest.compression import coding_of
from api.rest.coverage import coverage_of, expiry_or_all, uncounted
from api.rest.formats import Format
from api.rest.history import known_underlying
from api.rest.pages import place_of, range_parameters
from api.rest.query import Query, day, listed, text, times
from api.rest.streams import Streamed, ahead
from pipeline.clock import to_datetime
from pipeline.exports import BATCH_ROWS, DATASETS, Asked, Dataset, Export, opened

COST = 50  # a whole server's core for as long as it takes
EXPORTS_AT_ONCE = 2  # of a process, which have connections of their own
RETRY_AFTER_S = 10
TEXT_ROWS = 8_192  # of a batch that becomes text, which is five times as large
PIECES_AHEAD = 1  # some 5 MB that wait for the client, beside what is being sent
KINDS = (Format.ARROW, *(kind for kind in Format if kind is not Format.ARROW))
_FIELDS = 64
_UNCOUNTED = DATASETS["ticks"]  # nobody says how many were to come

_EXPORT = Query(
    *range_parameters(),
    text("underlying", "rows of one underlying alone", at_most=32),
    day("expiry", "rows of one expiry alone"),
    listed("fields", "columns of the file", at_most=_FIELDS),
    times(),
)


@get("/exports/{dataset:str}", opt={"scope": "export", "query": _EXPORT, "cost": COST})
async def export(request: AnyRequest, dataset: FromPath[str]) -> Response[bytes]:
    """Every stored row of a dataset in `[start, end)`, as one file of any size.

    Arrow where nothing else is asked for. `X-Meta` has the range and its coverage; Arrow and
    Parquet have both in the metadata of their schema, JSON in `meta`. A file that breaks off has no
    end: its last chunk does not come, and Arrow lacks its end of stream, Parquet its footer.
    """
    query = _EXPORT.parse(request.query_params.multi_items())
    known = DATASETS.get(dataset)
    if known is None:
        raise not_found("dataset", dataset)
    unknown = [name for name in query["fields"] or () if name not in known.names]
    if unknown:
        raise invalid_parameter("fields", f"{dataset} has no {', '.join(unknown)[:200]}")
    kind = format_of(request, KINDS, Format.ARROW)
    gateway, database = gateway_of(request), database_of(request)
    exported = gateway.exported or database
    place = place_of(request, query | {"cursor": None})
    if query["underlying"] is not None:
        await known_underlying(database, query["underlying"])
    asked = Asked(
        place.start_ns, place.end_ns, query["underlying"], query["expiry"], query["fields"] or ()
    )
    meta = await _meta(request, known, asked, query["ts"])
    rows = TEXT_ROWS if kind.is_text else BATCH_ROWS
    coding = coding_of(request.headers.get("accept-encoding", "")) if kind.is_text else None
    headers = {
        "Content-Type": kind.content_type,
        "Content-Disposition": f'attachment; filename="{_file_name(known, asked, kind)}"',
        "Cache-Control": "no-store",
        "Vary": VARY,
        "X-Meta": meta_header(meta),
    }
    if coding is not None:
        headers["Content-Encoding"] = coding

    @contextlib.asynccontextmanager
    async def pieces() -> AsyncIterator[AsyncIterator[bytes]]:
        with _counted(gateway):
            async with (
                opened(exported, known, asked, rows) as found,
                ahead(_encoded(found, kind, coding, meta, query["ts"]), PIECES_AHEAD) as made,
            ):
                yield made

    broken = partial(_log, gateway, meta)
    bounds = {"stalled_s": gateway.limits.stalled_s, "longest_s": gateway.limits.export_s}
    attended = partial(gateway.verifier.attending, principal_of(request))
    return Streamed(pieces, headers, broken=broken, attended=attended, **bounds)


async def _encoded(
    found: Export, kind: Format, coding: str | None, meta: dict[str, Any], form: str
) -> AsyncGenerator[bytes, None]:
    """The pieces of the file; while one is encoded, the rows of the next are read."""
    schema = found.schema.with_metadata(schema_metadata(meta, None))
    writer = writer_of(kind, schema, coding, form=form, meta=meta)

    def encode(chunk: Any) -> bytes:
        return writer.write(found.batch(chunk))

    under_way: asyncio.Task[bytes] | None = None
    async with contextlib.aclosing(found.chunks()) as chunks:
        try:
            async for chunk in chunks:
                if under_way is not None:
                    yield await under_way
                under_way = asyncio.create_task(asyncio.to_thread(encode, chunk))
            if under_way is not None:
                yield await under_way
        finally:
            if under_way is not None:
                await asyncio.wait((under_way,))  # a thread cannot be left
    yield writer.finish()


@contextlib.contextmanager
def _counted(gateway: Gateway) -> Iterator[None]:
    """Raises ApiError 503 where as many exports as there may be are under way."""
    if len(gateway.exports) >= EXPORTS_AT_ONCE:
        detail = f"{EXPORTS_AT_ONCE} exports are under way here"
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        raise ApiError(503, "exports_busy", detail, headers=retry)
    mark = object()
    gateway.exports.add(mark)
    try:
        yield
    finally:
        gateway.exports.discard(mark)


async def _meta(request: AnyRequest, dataset: Dataset, asked: Asked, form: str) -> dict[str, Any]:
    symbol = asked.underlying and expiry_or_all(asked.underlying, asked.expiry)
    told = request, symbol, asked.start_ns, asked.end_ns, form
    return {
        "dataset": dataset.name,
        "start": instant(asked.start_ns, form),
        "end": instant(asked.end_ns, form),
        "underlying": asked.underlying,
        "expiry": asked.expiry,
        "coverage": uncounted(*told) if dataset is _UNCOUNTED else await coverage_of(*told),
        "request_id": request.scope["state"].get("request_id", ""),
    }


def _file_name(dataset: Dataset, asked: Asked, kind: Format) -> str:
    ends = [f"{to_datetime(ns):%Y%m%dT%H%M%SZ}" for ns in (asked.start_ns, asked.end_ns)]
    of = [asked.underlying] if asked.underlying is not None else []
    expiry = [f"{asked.expiry:%Y%m%d}"] if asked.expiry is not None else []
    return "-".join([dataset.name, *of, *expiry, *ends]) + f".{kind.suffix}"


def _log(gateway: Gateway, meta: dict[str, Any], error: Exception) -> None:
    names = ("dataset", "start", "end", "request_id")
    said = {name: meta[name] for name in names}
    gateway.telemetry.log.warning("export_broken", error=repr(error), **said)


routes = [export]
