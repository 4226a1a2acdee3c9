"""The shape of every success: `data`, `meta`, `next`; formats, instants, entity tags and cursors.

Bodies are spliced from encoded parts, so that rows which Redis holds as JSON are never decoded
only to be encoded again. In formats that have rows alone, `meta` and `next` stand in the headers,
and in the metadata of the schema where there is one.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response

from api.errors import ApiError, invalid_parameter
from api.rest.arrow import to_arrow, to_parquet
from api.rest.compression import LEAST_BYTES, coding_of, compressed
from api.rest.encoders import to_csv, to_lines, to_msgpack
from api.rest.formats import OF_LISTS, OF_OBJECTS, Format, negotiate
from pipeline.clock import to_rfc3339

JSON_TYPE = Format.JSON.media_type
META_BYTES = 4 * 1024  # of the header; servers and clients bound all headers together at 8 KiB
VARY = "Accept, Accept-Encoding"
NOT_MODIFIED = 304
FORM_BYTES = 512  # browsers say a hundred of what they accept
_BRACKET = ord("[")
_encode = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


class Ready(Response[bytes]):
    """An answer that goes out as it stands: Litestar's own way with one costs half a small one."""

    def __init__(
        self,
        body: bytes,
        media_type: str,
        headers: Mapping[str, str],
        status_code: int = 200,
        *,
        rest: bytes = b"",
    ) -> None:
        self.content = body
        self._rest = rest  # of the body, where putting both together would copy them
        self.media_type = media_type
        self.headers = dict(headers)
        self.status_code = status_code

    def to_asgi_response(self, *_parts: Any, **_defaults: Any) -> Any:
        """The ASGI application that sends it."""
        return self._send

    async def _send(self, _scope: Any, _receive: Any, send: Any) -> None:
        headers = [(name.lower().encode(), text.encode()) for name, text in self.headers.items()]
        status = self.status_code
        if status != NOT_MODIFIED:
            charset = "; charset=utf-8" if str(self.media_type).startswith("text/") else ""
            headers.append((b"content-type", f"{self.media_type}{charset}".encode()))
            headers.append((b"content-length", b"%d" % (len(self.content) + len(self._rest))))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        is_more = bool(self._rest)
        await send({"type": "http.response.body", "body": self.content, "more_body": is_more})
        if is_more:
            await send({"type": "http.response.body", "body": self._rest})


def answer(
    request: AnyRequest,
    data: Any,
    meta: dict[str, Any],
    *,
    following: str | None = None,
    tag: str | None = None,
) -> Response[bytes]:
    """A success. `data` is a value or a msgspec.Raw; `following` is the cursor of the next page.

    Told in the format that the request asks for: a list in each, anything else in those that have
    objects. Raises ApiError 406 where there is none for it.
    """
    is_list = memoryview(data)[0] == _BRACKET if isinstance(data, msgspec.Raw) else None
    is_list = isinstance(data, list | tuple) if is_list is None else is_list
    kind = format_of(request, OF_LISTS if is_list else OF_OBJECTS)
    headers = {"Cache-Control": "no-store" if tag is None else "private, no-cache", "Vary": VARY}
    if tag is not None:
        headers["ETag"] = _tag_in(kind, tag)
    if following is not None:
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        query = urlencode([*pairs, ("cursor", following)])
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    meta["request_id"] = request_id_of(request)
    if kind is Format.JSON or kind is Format.MSGPACK:
        body = _encode({"data": data, "meta": meta, "next": following})
        if kind is Format.MSGPACK:
            body = to_msgpack(body)
    else:
        headers["X-Meta"] = meta_header(meta)
        body = _rows(request, kind, data, meta, following)
    if kind.is_text and len(body) >= LEAST_BYTES:
        coding = coding_of(header_of(request, b"accept-encoding") or "")
        if coding is not None:
            headers["Content-Encoding"] = coding
            body = compressed(body, coding)
    return Ready(body, media_type=kind.media_type, headers=headers)


def format_of(
    request: AnyRequest, possible: Sequence[Format], default: Format = Format.JSON
) -> Format:
    """The format that a request asks for, of those that are possible. Raises ApiError 400 or 406.

    What writes was done by the time it is told of, so there `Accept` refuses nothing.
    """
    name = request.query_params.get("format") if request.scope["query_string"] else None
    try:
        return negotiate(name, header_of(request, b"accept"), possible, default=default)
    except ApiError:
        if request.method == "GET":
            raise
        return default


def meta_header(meta: dict[str, Any]) -> str:
    """`meta` on one line of ASCII; what has parts of its own is left out where it gets too long."""
    values = msgspec.to_builtins(meta)
    text = _line(values)
    if len(text) > META_BYTES and isinstance(values.get("coverage"), dict):
        counts = {n: v for n, v in values["coverage"].items() if not isinstance(v, list)}
        text = _line(values := values | {"coverage": counts})
    if len(text) > META_BYTES:
        text = _line({n: v for n, v in values.items() if not isinstance(v, list | dict)})
    return text


def schema_metadata(meta: dict[str, Any], following: str | None) -> dict[str, str]:
    """`meta` and `next` as they stand in a schema."""
    said = {"stockify.meta": _encode(meta).decode()}
    return said if following is None else said | {"stockify.next": following}


def entity_tag(*parts: object) -> str:
    """A weak tag: the data is the same, `meta.request_id` is not."""
    digest = hashlib.blake2s("\n".join(map(str, parts)).encode(), digest_size=12)
    return f'W/"{digest.hexdigest()}"'


def not_modified(request: AnyRequest, tag: str) -> Response[bytes] | None:
    """304 where the client holds this entity already."""
    held = header_of(request, b"if-none-match")
    if held is None:
        return None
    tag = _tag_in(format_of(request, OF_LISTS), tag)
    bare = tag.removeprefix("W/")
    tags = [part.strip().removeprefix("W/") for part in held.split(",")]
    if "*" not in tags and bare not in tags:
        return None
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": VARY}
    return Ready(b"", status_code=NOT_MODIFIED, media_type=JSON_TYPE, headers=headers)


def request_id_of(request: AnyRequest) -> str:
    """What the rim calls this request."""
    request_id: str = request.scope["state"].get("request_id", "")
    return request_id


def asked_form(request: AnyRequest) -> tuple[object, ...] | None:
    """What decides how an answer is told, beside its path.

    None where the client holds one, or asks at such a length that nobody will ask the same.
    """
    if header_of(request, b"if-none-match") is not None:
        return None
    query: bytes = request.scope["query_string"]
    headers = (header_of(request, name) or "" for name in (b"accept", b"accept-encoding"))
    form = (query, *headers)
    return form if sum(map(len, form)) <= FORM_BYTES else None


def pairs_of(request: AnyRequest) -> Iterable[tuple[str, str]]:
    """What the query says; without one nothing is made for it."""
    return request.query_params.multi_items() if request.scope["query_string"] else ()


def header_of(request: AnyRequest, name: bytes) -> str | None:
    """The first header of that name in lower case, looked up without a copy of them all."""
    for key, value in request.scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


def instant(ns: int | None, form: str) -> str | int | None:
    """An instant in the form asked for: `rfc3339`, `ns` or `ms`."""
    if ns is None or form == "ns":
        return ns
    return to_rfc3339(ns) if form == "rfc3339" else ns // 1_000_000


def with_instants(values: dict[str, Any], form: str) -> dict[str, Any]:
    """A copy in which every `ts_…` is in the form asked for."""
    return {
        name: instant(value, form) if name.startswith("ts_") else value
        for name, value in values.items()
    }


def encode_cursor(*parts: int | str) -> str:
    """A position as opaque text."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, shape: type[Any]) -> Any:
    """The position in a cursor, of the given tuple type. Raises ApiError 400."""
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.msgpack.decode(packed, type=shape)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise invalid_parameter("cursor", "not a cursor of this list") from None


def _rows(
    request: AnyRequest, kind: Format, data: Any, meta: dict[str, Any], following: str | None
) -> bytes:
    """The rows of an answer alone, as a format has them."""
    encoded = _encode(data)
    if kind is Format.NDJSON:
        return to_lines(encoded)
    elements = msgspec.json.decode(encoded)
    rows = [row if isinstance(row, dict) else {"value": row} for row in elements]
    columns = () if rows else _columns(request)
    if kind is Format.CSV:
        return to_csv(rows, columns)
    write = to_arrow if kind is Format.ARROW else to_parquet
    return write(rows, columns, schema_metadata(meta, following))


def _columns(request: AnyRequest) -> tuple[str, ...]:
    """The columns of a list in which nothing is, as far as its route tells."""
    asked = request.query_params.get("fields")
    query = request.route_handler.opt.get("query")
    parameters = query.parameters if query is not None else ()
    known = next((p for p in parameters if p.name == "fields"), None)
    if known is None:
        return ()
    return tuple(known.parse(asked)) if asked else tuple(known.known)


def _tag_in(kind: Format, tag: str) -> str:
    """The tag of an entity in a format."""
    return tag if kind is Format.JSON else f'{tag[:-1]}.{kind.suffix}"'


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))
