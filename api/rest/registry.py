"""The schema registry over REST, in the shape of Confluent's: what stands registered, and whether
a schema would be let in. Read only: schemas are registered by who writes them.
"""

import asyncio
from typing import Any

import msgspec
from litestar import Response, Router, get, post, route
from litestar.params import FromPath

from api.errors import ApiError
from api.gateway import gateway_of
from api.rest.answers import JSON_TYPE, AnyRequest
from api.rest.query import Query, flag, integer, text
from api.rest.registry_answers import (
    INVALID_SCHEMA,
    INVALID_VERSION,
    REGISTRY_TYPES,
    SCHEMA_NOT_FOUND,
    SUBJECT_NOT_FOUND,
    VERSION_NOT_FOUND,
    RegistryError,
    bare_answer,
    respond_in_kind,
)
from pipeline.compatibility import Level
from pipeline.documents import Document, parse_document
from pipeline.errors import DecodeError
from pipeline.shapes import DEFAULT_LEVEL, VERSION_MAXIMUM
from pipeline.subjects import Revision, Subject, level_of, objections

_BODY_TYPES = (*REGISTRY_TYPES, JSON_TYPE, "application/octet-stream", "")
_SCHEMA_TYPE = "JSON"

_STRING, _NUMBER = {"type": "string"}, {"type": "integer"}
_SUBJECT_VERSION = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("subject", "schemaType", "schema"), _STRING),
        **dict.fromkeys(("version", "id"), _NUMBER),
    },
}
_SCHEMA = {"type": "object", "properties": dict.fromkeys(("schemaType", "schema"), _STRING)}
_LEVEL = {
    "type": "object",
    "properties": {"compatibilityLevel": {"type": "string", "enum": [*Level]}},
}
_VERDICT = {
    "type": "object",
    "properties": {
        "is_compatible": {"type": "boolean"},
        "messages": {"type": "array", "items": _STRING},
    },
}

# What clients of that API send is taken, also where it has no effect here.
_deleted = flag("deleted", "also what was deleted: nothing ever is")
_format = text("format", "of no effect on JSON Schema", at_most=32)
_listing = (
    _deleted,
    flag("deletedOnly", "only what was deleted"),
    flag("deleted_only", "the same"),
    integer("offset", "how many of the first to leave out", default=0),
    integer("limit", "how many to list; below zero: all", default=-1),
)
_SUBJECTS = Query(
    text("subjectPrefix", "subjects that begin so", at_most=128), *_listing, is_bare=True
)
_VERSIONS = Query(*_listing, is_bare=True)
_VERSION = Query(_deleted, _format, is_bare=True)
_BY_ID = Query(
    text("subject", "only if it is registered under this subject", at_most=128),
    flag("fetchMaxId", "of no effect"),
    _format,
    is_bare=True,
)
_CONFIG = Query(
    flag("defaultToGlobal", "the global level for a subject that is not known"), is_bare=True
)
_CHECK = Query(
    flag("verbose", "say what is incompatible"),
    flag("normalize", "taken, and of no effect"),
    is_bare=True,
)


class _Candidate(msgspec.Struct):
    """The body of a check."""

    text: str = msgspec.field(name="schema")
    kind: str | None = msgspec.field(name="schemaType", default=None)


def _opt(query: Query, shape: dict[str, Any], *codes: int, **more: Any) -> dict[str, Any]:
    """The options of a route: what it needs and takes, and what the OpenAPI document says of it."""
    registry = {"shape": shape, "statuses": sorted({code // 100 for code in codes})}
    return {"scope": "live", "query": query, "registry": registry, **more}


_LIST = {"type": "array", "items": _STRING}
_NUMBERS = {"type": "array", "items": _NUMBER}
_OF_SUBJECT = (SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, INVALID_VERSION)


@get("/subjects", opt=_opt(_SUBJECTS, _LIST))
async def subjects(request: AnyRequest) -> Response[bytes]:
    """The names of what is registered."""
    query = _SUBJECTS.parse(request.query_params.multi_items())
    names = await gateway_of(request).registry.subjects()
    wanted = [name for name in names if name.startswith(query["subjectPrefix"] or "")]
    return bare_answer(request, _page(wanted, query))


@get("/subjects/{subject:str}/versions", opt=_opt(_VERSIONS, _NUMBERS, SUBJECT_NOT_FOUND))
async def subject_versions(request: AnyRequest, subject: FromPath[str]) -> Response[bytes]:
    """The registered versions of a subject."""
    query = _VERSIONS.parse(request.query_params.multi_items())
    return bare_answer(request, _page((await _subject(request, subject)).versions, query))


@get(
    "/subjects/{subject:str}/versions/{version:str}",
    opt=_opt(_VERSION, _SUBJECT_VERSION, *_OF_SUBJECT),
)
async def subject_version(
    request: AnyRequest, subject: FromPath[str], version: FromPath[str]
) -> Response[bytes]:
    """A version of a subject, or its `latest`: number, id and schema.

    The schema is a text. It may grow within a version; its id is then another, and the former ids
    still lead to the former texts.
    """
    _VERSION.parse(request.query_params.multi_items())
    revision = await _revision(request, subject, version)
    data = {
        "subject": subject,
        "version": revision.version,
        "id": revision.id,
        "schemaType": _SCHEMA_TYPE,
        "schema": revision.schema,
    }
    return bare_answer(request, data)


@get(
    "/subjects/{subject:str}/versions/{version:str}/schema",
    opt=_opt(_VERSION, {"type": "object"}, *_OF_SUBJECT),
)
async def subject_version_schema(
    request: AnyRequest, subject: FromPath[str], version: FromPath[str]
) -> Response[bytes]:
    """The schema of a version, as the JSON document that it is."""
    _VERSION.parse(request.query_params.multi_items())
    revision = await _revision(request, subject, version)
    return bare_answer(request, msgspec.Raw(revision.schema.encode()))


@get("/schemas/ids/{number:str}", opt=_opt(_BY_ID, _SCHEMA, SCHEMA_NOT_FOUND))
async def schema_by_id(request: AnyRequest, number: FromPath[str]) -> Response[bytes]:
    """The schema of an id. An id leads to the same text for ever."""
    wanted = _BY_ID.parse(request.query_params.multi_items())["subject"]
    is_number = number.isascii() and number.isdigit() and len(number) <= 10
    found = await gateway_of(request).registry.revision(int(number)) if is_number else None
    if found is None or wanted not in (None, found[0]):
        raise RegistryError(SCHEMA_NOT_FOUND, f"schema {number[:80]} is not known")
    return bare_answer(request, {"schemaType": _SCHEMA_TYPE, "schema": found[1].schema})


@get("/schemas/types", opt=_opt(Query(is_bare=True), _LIST))
async def schema_types(request: AnyRequest) -> Response[bytes]:
    """The kinds of schema there are: JSON Schema."""
    return bare_answer(request, [_SCHEMA_TYPE])


@get("/config", opt=_opt(_CONFIG, _LEVEL))
async def config(request: AnyRequest) -> Response[bytes]:
    """The compatibility level of a subject whose producer chooses none."""
    _CONFIG.parse(request.query_params.multi_items())
    return bare_answer(request, {"compatibilityLevel": DEFAULT_LEVEL})


@get("/config/{subject:str}", opt=_opt(_CONFIG, _LEVEL, SUBJECT_NOT_FOUND))
async def subject_config(request: AnyRequest, subject: FromPath[str]) -> Response[bytes]:
    """The compatibility level of a subject."""
    query = _CONFIG.parse(request.query_params.multi_items())
    found = await gateway_of(request).registry.subject(subject)
    if found is None and not query["defaultToGlobal"]:
        raise _unknown(subject)
    level = level_of(found) if found else DEFAULT_LEVEL
    return bare_answer(request, {"compatibilityLevel": level})


@post(
    "/compatibility/subjects/{subject:str}/versions/{version:str}",
    status_code=200,
    opt=_opt(_CHECK, _VERDICT, *_OF_SUBJECT, INVALID_SCHEMA, body=_SCHEMA),
)
async def compatibility(
    request: AnyRequest, subject: FromPath[str], version: FromPath[str]
) -> Response[bytes]:
    """Whether a schema could follow a version of a subject, at the subject's level.

    Nothing is registered by it. With `verbose`, `messages` names each field and the rule it breaks.
    """
    query = _CHECK.parse(request.query_params.multi_items())
    document = await _candidate(request)
    found = await _subject(request, subject)
    number = _known_version(found, version)
    return await _verdict(request, found.only(number), number, document, query["verbose"])


@post(
    "/compatibility/subjects/{subject:str}/versions",
    status_code=200,
    opt=_opt(_CHECK, _VERDICT, INVALID_SCHEMA, body=_SCHEMA),
)
async def compatibility_with_all(request: AnyRequest, subject: FromPath[str]) -> Response[bytes]:
    """Whether a schema would be let in as the newest of its subject.

    The check that a producer meets when it starts; nothing is registered by it.
    """
    query = _CHECK.parse(request.query_params.multi_items())
    document = await _candidate(request)
    found = await gateway_of(request).registry.subject(subject)
    if found is None:
        found = Subject(subject, None, (), {})
    number = max(found.versions, default=1)
    return await _verdict(request, found, number, document, query["verbose"])


@route(
    "/v1/subjects/{subject:str}",
    http_method=["GET", "POST", "PUT", "PATCH", "DELETE"],
    opt={"is_page": True},
)
async def subject_alone(subject: FromPath[str]) -> Response[bytes]:
    """Where other registries look up and delete: nothing is done here."""
    detail = f"subject {subject[:80]!r} is read by its versions"
    raise ApiError(405, "method_not_allowed", detail, headers={"Allow": ""})


routes = Router(
    "/",
    route_handlers=[
        subjects,
        subject_versions,
        subject_version,
        subject_version_schema,
        schema_by_id,
        schema_types,
        config,
        subject_config,
        compatibility,
        compatibility_with_all,
    ],
    exception_handlers={Exception: respond_in_kind},
)


def _page(names: list[Any], query: dict[str, Any]) -> list[Any]:
    """The part of a list that is asked for."""
    if query["deletedOnly"] or query["deleted_only"]:
        return []
    first = max(0, query["offset"])
    return names[first:] if query["limit"] < 0 else names[first : first + query["limit"]]


async def _subject(request: AnyRequest, name: str) -> Subject:
    found = await gateway_of(request).registry.subject(name)
    if found is None:
        raise _unknown(name)
    return found


async def _revision(request: AnyRequest, subject: str, version: str) -> Revision:
    _version(version)
    found = await _subject(request, subject)
    return found.newest(_known_version(found, version))


def _known_version(subject: Subject, text: str) -> int:
    number = _version(text) or max(subject.versions)
    if number not in subject.current:
        raise RegistryError(VERSION_NOT_FOUND, f"version {number} is not registered")
    return number


def _version(text: str) -> int:
    """The number that a path names, 0 for the latest."""
    if text in ("latest", "-1"):
        return 0
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    if not 1 <= number <= VERSION_MAXIMUM:
        message = f"version {text[:80]!r}: want 1 to {VERSION_MAXIMUM}, or latest"
        raise RegistryError(INVALID_VERSION, message)
    return number


def _unknown(subject: str) -> RegistryError:
    return RegistryError(SUBJECT_NOT_FOUND, f"subject {subject[:80]!r} is not registered")


async def _candidate(request: AnyRequest) -> Document:
    """The schema in the body of a check. Raises RegistryError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _BODY_TYPES:
        raise RegistryError(415, f"want a body of {REGISTRY_TYPES[0]} or {JSON_TYPE}")
    try:
        candidate = msgspec.json.decode(await request.body(), type=_Candidate)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RegistryError(400, f'want {{"schema": "…", "schemaType": "JSON"}}: {error}') from None
    if candidate.kind not in (None, _SCHEMA_TYPE):
        message = f"schemaType {candidate.kind[:80]!r} is not known, only {_SCHEMA_TYPE}"
        raise RegistryError(INVALID_SCHEMA, message)
    try:
        return parse_document(candidate.text)
    except DecodeError as error:
        raise RegistryError(INVALID_SCHEMA, f"invalid schema: {error}") from None


async def _verdict(
    request: AnyRequest, subject: Subject, version: int, document: Document, is_verbose: bool
) -> Response[bytes]:
    try:
        # A schema made to be slow shall cost its sender alone.
        reasons = await asyncio.to_thread(
            lambda: list(objections(subject, version, document, level_of(subject)))
        )
    except DecodeError as error:
        raise RegistryError(INVALID_SCHEMA, f"cannot be compared: {error}") from None
    verdict: dict[str, Any] = {"is_compatible": not reasons}
    if is_verbose:
        verdict["messages"] = reasons
    return bare_answer(request, verdict)
