"""What every problem says, by status and code. Tells only; `api.errors` is what answers."""

_THINGS = ("symbol", "underlying", "chain", "contract", "snapshot", "letter", "dataset")

# By status what it says, and each code with what it says of itself.
PROBLEMS: dict[int, tuple[str, dict[str, str]]] = {
    400: (
        "a parameter, a path or a body cannot be read; `errors` names what",
        {
            "invalid_query": "limit: want a whole number from 1 to 10000",
            "invalid_path": "expiry: want a date such as 2026-01-27, or nearest",
            "invalid_body": "the body is no JSON",
            "bad_request": "that is no HTTP request",
        },
    ),
    401: (
        "no token, or one that does not hold",
        {"unauthenticated": "a token is needed", "invalid_token": "the token has expired"},
    ),
    403: (
        "the token lacks the scope, or a foreign page asks",
        {
            "insufficient_scope": "the scope history is needed",
            "foreign_origin": "pages of that origin may not connect",
        },
    ),
    404: (
        "nothing is known under that name",
        {
            **{f"unknown_{what}": f"no {what} 'X' is known" for what in _THINGS},
            "not_found": "there is no such path",
        },
    ),
    405: ("the path has no such method", {"method_not_allowed": "Method Not Allowed"}),
    406: (
        "it cannot be had in what `Accept` or `format` asks for",
        {"not_acceptable": "this can be had as json, msgpack, ndjson"},
    ),
    408: (
        "the request did not come in time",
        {
            "body_too_slow": "the body did not come in time",
            "head_too_slow": "the head did not come in time",
        },
    ),
    409: (
        "a dead letter does not say where it came from",
        {"no_source": "the letter does not say where it came from"},
    ),
    413: ("the body is too large", {"body_too_large": "a body has at most 65536 bytes"}),
    414: ("the query is too long", {"uri_too_long": "a query has at most 8192 bytes"}),
    415: (
        "the body is of a type that is not taken",
        {"unsupported_media_type": "want a body of application/json"},
    ),
    421: (
        "the host is not one of ours",
        {"bad_host": "this gateway does not answer under that name"},
    ),
    429: (
        "too many units; wait for as long as `Retry-After` says",
        {"too_many_requests": "too many requests; try again in 2 s"},
    ),
    431: (
        "the head of the request is too large",
        {"head_too_large": "a head has at most 16384 bytes"},
    ),
    500: (
        "the gateway failed; its log has the `request_id`",
        {
            "internal_error": "the gateway failed; its log has this request_id",
            "undecodable_value": "a stored value cannot be read",
        },
    ),
    503: (
        "something that it needs is away; try again",
        {
            "redis_unavailable": "the latest values are away",
            "database_unavailable": "the history is away",
            "keys_unavailable": "the keys of that issuer cannot be had",
            "no_signing_key": "this gateway has no secret to sign tokens with",
            "exports_busy": "as many exports as may are under way",
        },
    ),
}
