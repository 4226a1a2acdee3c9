"""The shape of every success: `data`, `meta`, `next`; instants, entity tags and cursors.

Bodies are spliced from encoded parts, so that rows which Redis holds as JSON are never decoded
only to be encoded again.
"""

import base64
import binascii
import hashlib
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response

from api.errors import invalid_parameter
from pipeline.clock import to_rfc3339

JSON_TYPE = "application/json"
_encode = msgspec.json.Encoder().encode

AnyRequest = Request[Any, Any, Any]


def answer(
    request: AnyRequest,
    data: Any,
    meta: dict[str, Any],
    *,
    following: str | None = None,
    tag: str | None = None,
) -> Response[bytes]:
    """A success. `data` is a value or a msgspec.Raw; `following` is the cursor of the next page."""
    headers = {"Cache-Control": "no-store" if tag is None else "private, no-cache"}
    if tag is not None:
        headers["ETag"] = tag
    if following is not None:
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        query = urlencode([*pairs, ("cursor", following)])
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    meta["request_id"] = request.scope["state"].get("request_id", "")
    body = _encode({"data": data, "meta": meta, "next": following})
    return Response(body, media_type=JSON_TYPE, headers=headers)


def entity_tag(*parts: object) -> str:
    """A weak tag: the data is the same, `meta.request_id` is not."""
    digest = hashlib.blake2s("\n".join(map(str, parts)).encode(), digest_size=12)
    return f'W/"{digest.hexdigest()}"'


def not_modified(request: AnyRequest, tag: str) -> Response[bytes] | None:
    """304 where the client holds this entity already."""
    held = request.headers.get("if-none-match")
    if held is None:
        return None
    bare = tag.removeprefix("W/")
    tags = [part.strip().removeprefix("W/") for part in held.split(",")]
    if "*" not in tags and bare not in tags:
        return None
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    return Response(b"", status_code=304, media_type=JSON_TYPE, headers=headers)


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
