"""Which secret signs, and how a token tells by which."""

import jwt

from pipeline.config import Settings
from pipeline.credentials import issue_token, key_id, signing_secrets

NEW, OLD, SINGLE = "n" * 32, "o" * 32, "s" * 32


def test_first_of_several_signs_and_the_single_one_verifies_still() -> None:
    assert signing_secrets(Settings(jwt_secrets=(NEW, OLD), jwt_secret=SINGLE)) == (
        *(NEW, OLD),
        SINGLE,
    )
    assert signing_secrets(Settings(jwt_secrets=(NEW, SINGLE), jwt_secret=SINGLE)) == (NEW, SINGLE)
    assert signing_secrets(Settings(jwt_secret=SINGLE)) == (SINGLE,)
    assert signing_secrets(Settings()) == ()


def test_token_names_its_secret_and_tells_nothing_of_it() -> None:
    token = issue_token(NEW, extra={"key": "k1"}, now=1_000)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": key_id(NEW)}
    assert len({key_id(secret) for secret in (NEW, OLD, SINGLE)}) == 3
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iat"], claims["key"]) == (1_000, "k1")


def test_each_token_has_an_id_of_its_own() -> None:
    ids = {
        jwt.decode(issue_token(NEW), options={"verify_signature": False})["jti"] for _ in range(3)
    }
    assert len(ids) == 3
