import hashlib

import pytest

from pipeline.streams.tally import (
    MINUTE_NS,
    again_bucket_of,
    bucket_of,
    dead_bucket_of,
    identity,
)

ID = "dhan:NIFTY-20260127:1769000000000000000:0123456789abcdef"


def by_the_book(raw_id: str) -> int:
    """The definition that SQL and other languages can follow: ten hex digits of md5."""
    return int(hashlib.md5(raw_id.encode()).hexdigest()[:10], 16)  # noqa: S324 - no secret


@pytest.mark.parametrize(
    ("message_id", "raw_id"),
    [
        pytest.param(ID, ID, id="raw"),
        pytest.param(f"{ID}:r3", ID, id="enriched"),
        pytest.param(f"{ID}:r12", ID, id="two digits"),
        pytest.param(f"{ID}:r", f"{ID}:r", id="no number, no revision"),
        pytest.param(f"{ID}:r²", f"{ID}:r²", id="a superscript is no number"),
        pytest.param(f"{ID}:r3:r4", f"{ID}:r3", id="the last revision alone"),
        pytest.param("order:red", "order:red", id="a word that begins with r"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_identity_is_that_of_the_raw_message_id(message_id: str, raw_id: str) -> None:
    assert identity(message_id) == by_the_book(raw_id)


def test_identity_has_forty_bits() -> None:
    found = [identity(f"{ID}{number}") for number in range(2_000)]
    assert len(set(found)) == len(found)
    assert 2**39 < max(found) < 2**40


@pytest.mark.parametrize(
    ("kind", "ts", "bucket"),
    [
        pytest.param("chain.raw.v1", 0, "0:chain", id="raw chain"),
        pytest.param("chain.enriched.v2", MINUTE_NS - 1, "0:chain", id="last instant of a minute"),
        pytest.param("expiries.raw.v1", MINUTE_NS, "1:expiries", id="first instant of the next"),
        pytest.param("signal", 1_769_000_000_000_000_000, "29483333:signal", id="one word"),
        pytest.param("a:b.c", 0, "0:a_b", id="no colon gets into a kind"),
        pytest.param("", 0, "0:untyped", id="no type"),
    ],
)
def test_bucket_is_the_minute_of_receipt_and_the_first_word_of_the_type(
    kind: str, ts: int, bucket: str
) -> None:
    assert bucket_of(kind, ts) == bucket


def test_what_a_group_set_aside_is_counted_apart_from_others() -> None:
    assert dead_bucket_of("chain.raw.v1", 0, "processor") == "0:chain:dead:processor"
    assert dead_bucket_of("chain.raw.v1", 0, "my:group") == "0:chain:dead:my_group"
    assert again_bucket_of("chain.raw.v1", 0, "my:group") == "0:chain:again:my_group"
    assert again_bucket_of("chain.raw.v1", 0, "") == "0:chain:again:"
