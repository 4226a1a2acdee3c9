"""The AsyncAPI 3 document of the live feed, generated from the types of its messages.

Said from the side of the gateway: it receives operations, and sends everything else.
"""

import inspect
from collections.abc import Iterable
from typing import Any, get_args

import msgspec
from litestar import Response, get

from api.live import session
from api.live.events import QUERY
from api.live.messages import JSON_PROTOCOL, MSGPACK_PROTOCOL
from api.live.operations import Operation
from api.live.wire import SAID, Close
from api.reference.examples import LIVE
from api.reference.openapi import stockify_version
from api.rest.answers import AnyRequest
from api.rest.query import Parameter

_DESCRIPTION = (
    "Live option chains with volatilities and Greeks. The server always sends an array of messages,"
    " one array a flush; the client sends one operation a message, at most 10 a second. A snapshot"
    " comes first, then updates; each names the position before it, so that nothing is lost unseen."
    " The operation `auth` lets in who came without a header or a ticket."
)
CLOSE_CODES = {
    1009: "a message above 64 KiB",
    session.FAILED: "the gateway failed; its log says why",
    session.RESTART: "the gateway restarts, or cannot tell now what is revoked; come back",
    session.STALLED: (
        "nothing was drained for 30 s, 4 MiB of answers waited, "
        "or there was no room for `disconnect`"
    ),
    session.MALFORMED: "a message that is no object of the agreed encoding",
    session.UNAUTHENTICATED: "the token does not hold, has expired or was revoked",
    session.FORBIDDEN: "the token lacks the scope `live`",
    session.LATE: "no valid `auth` within 10 s",
    session.TOO_MANY_SESSIONS: "the subject has too many sessions open, over all gateways",
    session.TOO_MANY_CHANNELS: "more channels in one message than a session may have",
    session.TOO_MANY_OPERATIONS: "more than 10 operations a second, beyond a burst of 20",
}
OPERATIONS: tuple[type[msgspec.Struct], ...] = get_args(Operation)
# What an operation is answered with, beside `Error`.
_ANSWERS = {
    "Auth": "AuthAck",
    "Subscribe": "Ack",
    "Unsubscribe": "Ack",
    "Resync": "Ack",
    "Ping": "Pong",
}
_UNASKED = ("Hello", "Snapshot", "Update", "Skipped", "Joined", "Heartbeat")
_EVENTS = ("Hello", "Ack", "Snapshot", "Update", "Skipped", "Joined", "Close")


@get("/asyncapi.json", opt={"is_page": True})
async def asyncapi(request: AnyRequest) -> Response[bytes]:
    """The description of the live feed."""
    host = request.headers.get("host", "localhost")
    body = msgspec.json.encode(document(host))
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-cache"})


def document(host: str) -> dict[str, Any]:
    """The whole document, for a gateway at this host."""
    types: list[type[msgspec.Struct]] = [*SAID, Close, *OPERATIONS]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = _text(schema["description"])
    said, asked = [_name(kind) for kind in SAID], [_name(kind) for kind in OPERATIONS]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stockify",
            "version": stockify_version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "socket": {"host": host, "protocol": "ws", **_security("bearer", "ticket")},
            "events": {"host": host, "protocol": "http", **_security("bearer", "ticket")},
        },
        "channels": {
            "socket": {
                "address": "/v1/ws",
                "title": "WebSocket",
                "description": _socket_text(),
                "servers": [{"$ref": "#/servers/socket"}],
                "messages": _message_references([*asked, *said]),
                "bindings": {
                    "ws": {"method": "GET", "query": _ticket(), "bindingVersion": "0.1.0"}
                },
            },
            "events": {
                "address": "/v1/stream",
                "title": "Server-sent events",
                "description": _events_text(),
                "servers": [{"$ref": "#/servers/events"}],
                "messages": _message_references(_EVENTS),
            },
        },
        "operations": _operations() | {"events": _events()},
        "components": {
            "messages": {_name(kind): _message(kind) for kind in types},
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "ticket": {"type": "httpApiKey", "name": "ticket", "in": "query"},
            },
        },
        "x-close-codes": {str(code): why for code, why in sorted(CLOSE_CODES.items())},
    }


def _operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in OPERATIONS:
        name = _name(kind)
        found[name] = {
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "summary": _text(kind.__doc__ or "").split("\n")[0],
            "messages": _references("socket", [name]),
            "reply": {
                "channel": {"$ref": "#/channels/socket"},
                "messages": _references("socket", [_small(_ANSWERS[kind.__name__]), "error"]),
            },
        }
    found["feed"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/socket"},
        "summary": "What comes by itself: snapshots, updates, and what became of them.",
        "messages": _references("socket", map(_small, _UNASKED)),
    }
    return found


def _events() -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": "#/channels/events"},
        "summary": "The same messages one way; the id of the last event resumes.",
        "messages": _references("events", map(_small, _EVENTS)),
        "bindings": {"http": _binding(_query_schema(QUERY.parameters), "0.3.0")},
    }


def _binding(query: dict[str, Any], binding_version: str) -> dict[str, Any]:
    return {"method": "GET", "query": query, "bindingVersion": binding_version}


def _query_schema(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    properties = {
        each.name: {**each.schema, "description": each.description} for each in parameters
    }
    needed = [each.name for each in parameters if each.is_required]
    return {"type": "object", "properties": properties, "required": needed}


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    summary, _, rest = _text(kind.__doc__ or "").partition("\n\n")
    name = _name(kind)
    message = {
        "name": name,
        "title": kind.__name__,
        "summary": " ".join(summary.split()),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": [{"name": name, "payload": LIVE[name]}],
    }
    return message | ({"description": rest} if rest else {})


def _message_references(names: Iterable[str]) -> dict[str, Any]:
    return {_small(name): {"$ref": f"#/components/messages/{_small(name)}"} for name in names}


def _references(channel: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]


def _security(*names: str) -> dict[str, Any]:
    return {"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in names]}


def _ticket() -> dict[str, Any]:
    ticket = {
        "type": "string",
        "description": "what `POST /v1/tickets` gives, once, for clients that can send no header",
    }
    return {"type": "object", "properties": {"ticket": ticket}}


def _socket_text() -> str:
    return (
        f"Subprotocol `{JSON_PROTOCOL}` (JSON, also when none is asked for) or `{MSGPACK_PROTOCOL}`"
        " (MessagePack). Frames of the server are arrays of the messages described here."
    )


def _events_text() -> str:
    return (
        "Server-sent events: the data of each is an array of messages, its id resumes by"
        " `Last-Event-ID`. A heartbeat is a comment; an event `close` says with which code it ends."
    )


def _name(kind: type[msgspec.Struct]) -> str:
    return _small(kind.__name__)


def _small(name: str) -> str:
    return name[0].lower() + name[1:]


def _text(docstring: str) -> str:
    return inspect.cleandoc(docstring)
