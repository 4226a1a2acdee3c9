from pathlib import Path

import jwt
import pytest

from pipeline.config import Settings
from pipeline.errors import ConfigError
from stockify import tokens
from stockify.instance import StateDirectory


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path)
    directory.prepare()
    return directory


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("5s", 5)]
)
def test_span_is_read_in_seconds(text: str, seconds: int) -> None:
    assert tokens.parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "0h", "-1h", "1.5h", "12 hours", "1w"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 12h"):
        tokens.parse_ttl(text)


def test_token_is_signed_with_the_secret_of_the_state(state: StateDirectory) -> None:
    secret = state.ensure_secrets().jwt_secret
    token = tokens.local_token(Settings(), state, ["live"], 60)
    claims = jwt.decode(token, secret, ["HS256"], audience="stockify", issuer="stockify")
    assert claims["scope"] == "live"
    assert claims["exp"] - claims["iat"] == 60


def test_given_secret_comes_before_the_generated(state: StateDirectory) -> None:
    state.ensure_secrets()
    given = "g" * 32
    token = tokens.local_token(Settings(jwt_secret=given), state, ["live", "history"], 60)
    assert jwt.decode(token, given, ["HS256"], audience="stockify")["scope"] == "live history"


def test_without_a_secret_the_way_to_one_is_named(state: StateDirectory) -> None:
    with pytest.raises(ConfigError, match="stockify up"):
        tokens.local_token(Settings(), state, ["live"], 60)


def test_unknown_scope_is_refused(state: StateDirectory) -> None:
    state.ensure_secrets()
    with pytest.raises(ConfigError, match="no such scope: root"):
        tokens.local_token(Settings(), state, ["root"], 60)
