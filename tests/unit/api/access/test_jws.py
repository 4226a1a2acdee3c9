"""Whatever stands in a token, it is read or refused, and nothing else happens."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.access.jws import TOKEN_BYTES, Claims, Header, Unusable, read_claims, take_apart
from tests.support.tokens import claims, encoded, part, signed

_VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e308,
        10**400,
        "",
        "a",
        "HS256",
        "stockify",
        [],
        ["stockify"],
        {},
        {"a": 1},
    ]
)
_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "aud", "sub", "exp", "iat", "scope"])
_OBJECTS = st.dictionaries(_NAMES, _VALUES, max_size=8)


@settings(max_examples=60)
@given(st.text(alphabet="abcAZ019-_.=+/ \n\x00é", max_size=60))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        take_apart(text)


@settings(max_examples=60)
@given(_OBJECTS, _OBJECTS)
def test_any_objects_are_read_by_their_types_or_refused(
    header: dict[str, Any], body: dict[str, Any]
) -> None:
    try:
        found = take_apart(f"{part(header)}.{part(body)}.{encoded(b'signature')}")
        said = read_claims(found.payload)
    except Unusable:
        return
    assert isinstance(found.header, Header)
    assert isinstance(said, Claims)
    assert set(header) <= {"alg", "kid", "typ", "x5t", "x5t#S256"}
    assert said.is_for(body["aud"]) or isinstance(body["aud"], list)


@settings(max_examples=60)
@given(st.binary(max_size=80))
def test_any_bytes_for_claims_are_refused(data: bytes) -> None:
    with pytest.raises(Unusable):
        read_claims(data)


def test_parts_are_those_that_were_signed() -> None:
    token = signed(sub="desk")
    found = take_apart(token)
    assert found.signed == token.rpartition(".")[0].encode()
    assert len(found.signature) == 32
    assert read_claims(found.payload).sub == "desk"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt"])
def test_types_of_bearer_tokens_are_taken(typ: str) -> None:
    text = f"{part({'alg': 'HS256', 'typ': typ, 'x5t': 'abc', 'x5t#S256': 'd'})}.{part({})}.aaaa"
    assert take_apart(text).header.typ == typ


def test_longest_token_is_read_and_one_byte_more_is_not() -> None:
    head, tail = part({"alg": "HS256"}), "a" * 43
    room = TOKEN_BYTES - len(head) - len(tail) - 2
    body = "a" * (room - room % 4)
    assert take_apart(f"{head}.{body}.{tail}")
    with pytest.raises(Unusable, match="too long"):
        take_apart(f"{head}.{body}aaaa.{tail}")


@pytest.mark.parametrize(
    "text",
    [
        '{"sub": "a", "sub": "a"}',
        '{"more": {"a": 1, "a": 2}}',
        '{"more": [{"a": 1, "a": 2}]}',
        '{"more": NaN}',
        '{"more": -Infinity}',
    ],
)
def test_ambiguous_json_is_refused_wherever_it_stands(text: str) -> None:
    whole = json.dumps(claims())[:-1] + ", " + text[1:]
    with pytest.raises(Unusable):
        read_claims(whole.encode())
