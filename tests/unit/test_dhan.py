import pytest

from pipeline import dhan
from pipeline.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProviderUnavailable,
    RateLimited,
    RequestRejected,
)
from tests.support import chains
from tests.support.chains import encoded, request_context


def test_expiries_come_ascending() -> None:
    body = b'{"data":["2026-02-03","2026-01-27"],"status":"success"}'
    listed = dhan.map_expiries(body, request_context(expiry=None), 1).expiries
    assert [day.isoformat() for day in listed] == ["2026-01-27", "2026-02-03"]


FAILURES = [
    (429, b'{"data":{"805":"Too many requests"},"status":"failed"}', RateLimited),
    (200, b'{"data":{"805":"Too many requests"},"status":"failed"}', RateLimited),
    (200, b'{"data":{"807":"Access token expired"},"status":"failed"}', AuthenticationFailed),
    (401, b'{"errorType":"x","errorCode":"DH-901","errorMessage":"bad"}', AuthenticationFailed),
    (400, b'{"errorCode":"DH-906","errorMessage":"Invalid Token"}', AuthenticationFailed),
    (400, b'{"data":{"811":"Invalid Expiry"},"status":"failed"}', RequestRejected),
    (401, b'{"data":{"806":"not subscribed"},"status":"failed"}', AccessDenied),
    (500, b'{"data":{"800":"server"},"status":"failed"}', ProviderUnavailable),
    (502, b"<html>Bad Gateway</html>", ProviderUnavailable),
    (200, b"<html>hello</html>", ProviderUnavailable),
    (429, b"slow down", RateLimited),
    (503, b"", ProviderUnavailable),
    (404, b'{"status":404,"error":"Not Found","path":"/v2/x"}', RequestRejected),
]


@pytest.mark.parametrize(
    ("status", "body", "kind"), FAILURES, ids=[f"{s} {b[:24]!r}" for s, b, _k in FAILURES]
)
def test_failure_is_classified_by_its_code_before_its_status(
    status: int, body: bytes, kind: type[Exception]
) -> None:
    assert type(dhan.failure(status, body)) is kind


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(encoded(chains.body(21)), id="chain"),
        pytest.param(b'{"data":["2026-01-27"],"status":"success"}', id="expiries"),
        pytest.param(b'{"data":{"last_price":1,"oc":{}},"status":"success"}', id="empty chain"),
        pytest.param(b'{"data":{"last_pri', id="truncated, judged when decoded"),
    ],
)
def test_data_is_no_failure(body: bytes) -> None:
    assert dhan.failure(200, body) is None
