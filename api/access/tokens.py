"""`/v1/token`, `/v1/token/revoke`, `/v1/tickets`: what lets a caller in, given out and taken back.

The only routes that change anything of access. Never shows a key, and a token or ticket only to
whom it is given.
"""

import time
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Response, Router, post

from api.access.auth import (
    ANY_SCOPE,
    authorization_of,
    bearer_token,
    demand,
    insufficient,
    principal_of,
    unauthenticated,
)
from api.access.following import refresh
from api.access.revoked import APPLIED_S
from api.errors import ApiError
from api.gateway import Gateway, gateway_of
from api.rest.answers import JSON_TYPE, AnyRequest, answer
from api.rest.query import Query, parse_instant
from pipeline.clock import SECOND_NS, to_rfc3339
from pipeline.credentials import OF_KEY, SCOPES, issue_token
from pipeline.keys import KEY_PREFIX, TICKET_TTL_S, ApiKey

LONGEST_S = 86_400  # a key is exchanged again; what leaked in a token is over within a day
USUAL_S = 3_600
_NO_QUERY = Query(is_bare=True)
_Body = TypeVar("_Body", bound=msgspec.Struct)


class Exchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a token: the `key` unless it is in the header, at most its scopes, seconds."""

    key: str | None = None
    scopes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(SCOPES))] | None = None
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_S)] = USUAL_S


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Takes back the token of the request; or, with scope `admin`, one by its id, or all of a
    subject that were given up to an instant."""

    token_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    before: Annotated[str, msgspec.Meta(max_length=64)] | None = None


@post("/token", status_code=200, opt={"takes_key": True, "query": _NO_QUERY, "body_type": Exchange})
async def exchange(request: AnyRequest) -> Response[bytes]:
    """A token for an API key, in the header as a bearer or in the body as `key`.

    It has at most the key's scopes and ends with the key at the latest.
    """
    _NO_QUERY.parse(request.query_params.multi_items())
    gateway = gateway_of(request)
    wanted = await _body(request, Exchange)
    now = time.time()  # before the key is looked at: one revoked meanwhile revokes the token too
    key = await _key(request, gateway, wanted)
    scopes = key.scopes if wanted.scopes is None else tuple(dict.fromkeys(wanted.scopes))
    for scope in scopes:
        if scope not in key.scopes:
            raise insufficient("the key does not have a scope asked for", " ".join(key.scopes))
    secret = gateway.verifier.keyring.signing_secret
    if secret is None:
        raise ApiError(503, "no_signing_key", "this gateway has no secret to sign tokens with")
    ttl_s = min(wanted.ttl_s, key.expires - now) if key.expires else wanted.ttl_s
    token = issue_token(
        secret,
        subject=key.subject,
        scopes=scopes,
        ttl_s=ttl_s,
        audience=gateway.settings.jwt_audience,
        extra={OF_KEY: key.id},
        now=now,
    )
    principal = gateway.verifier.verify(token)
    data = {
        "token": token,
        "type": "Bearer",
        "token_id": principal.token_id,
        "subject": principal.subject,
        "scopes": sorted(scopes),
        "expires": _instant(principal.expires),
    }
    return answer(request, data, {})


@post(
    "/token/revoke",
    status_code=200,
    opt={"scope": ANY_SCOPE, "query": _NO_QUERY, "body_type": Revocation},
)
async def revoke(request: AnyRequest) -> Response[bytes]:
    """Takes a token back: one's own, or with scope `admin` any, by id or by subject.

    Every gateway refuses it within the seconds that the answer tells, and its sessions end.
    """
    _NO_QUERY.parse(request.query_params.multi_items())
    gateway = gateway_of(request)
    own = principal_of(request)
    wanted = await _body(request, Revocation)
    if wanted.before is not None and wanted.subject is None:
        raise _invalid_body("before goes with a subject")
    if wanted.token_id is not None and wanted.subject is not None:
        raise _invalid_body("either token_id or subject")
    data: dict[str, Any] = {"applies_within_s": APPLIED_S}
    if wanted.subject is not None:
        demand(own, "admin")
        before = _before(wanted.before)
        since = await gateway.revocations.revoke_subject(wanted.subject, before)
        data |= {"subject": wanted.subject, "before": _instant(since)}
    else:
        token_id = wanted.token_id or own.token_id
        is_own = token_id == own.token_id
        if not is_own:
            demand(own, "admin")
        await gateway.revocations.revoke_token(token_id, own.expires if is_own else None)
        data |= {"token_id": token_id}
    await refresh(gateway.verifier)
    return answer(request, data, {})


@post("/tickets", status_code=200, opt={"scope": "live", "query": _NO_QUERY})
async def ticket(request: AnyRequest) -> Response[bytes]:
    """A stream ticket: opens one socket or event stream, once, within 30 seconds.

    For clients that cannot send a header, as `?ticket=`. The session ends with the token that the
    ticket was asked for with.
    """
    _NO_QUERY.parse(request.query_params.multi_items())
    text = await gateway_of(request).tickets.issue(principal_of(request))
    expires = _instant(time.time() + TICKET_TTL_S)
    return answer(request, {"ticket": text, "expires": expires}, {})


async def _key(request: AnyRequest, gateway: Gateway, wanted: Exchange) -> ApiKey:
    header = authorization_of(request)
    if header is not None and wanted.key is not None:
        raise _invalid_body("the key stands in the header or in the body, not in both")
    text = wanted.key if wanted.key is not None else bearer_token(header)
    key = await gateway.api_keys.check(text)
    if key is None:
        is_key = text.startswith(KEY_PREFIX)
        raise unauthenticated("the key does not hold" if is_key else "an API key is needed")
    return key


async def _body(request: AnyRequest, shape: type[_Body]) -> _Body:
    """The JSON object of a body; of none the one without fields. Raises ApiError 400, 415."""
    data = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if data and kind != JSON_TYPE:
        raise ApiError(415, "unsupported_media_type", f"want a body of {JSON_TYPE}")
    try:
        return msgspec.json.decode(data or b"{}", type=shape)
    except msgspec.ValidationError as error:
        detail = str(error)
        if "unknown field" in detail:  # whose name could be a key, put in the wrong place
            detail = f"there are {', '.join(shape.__struct_fields__)}"
        raise _invalid_body(detail) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _invalid_body("not a JSON object") from None


def _before(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = parse_instant(text) / SECOND_NS
    except ValueError as error:
        raise _invalid_body(f"before: {error}") from None
    if seconds > time.time() + 1:
        raise _invalid_body("before: lies in the future")
    return seconds


def _instant(seconds: float) -> str:
    return to_rfc3339(int(seconds) * SECOND_NS)


def _invalid_body(detail: str) -> ApiError:
    return ApiError(400, "invalid_body", detail)


routes = Router("/", route_handlers=[exchange, revoke, ticket])
