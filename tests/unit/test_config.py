from pathlib import Path

import pytest

from pipeline import config
from pipeline.config import Settings
from pipeline.errors import ConfigError


def test_environment_gives_another_process_the_same_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(underlyings=("NIFTY", "SENSEX"), shards=1, poll_closed_market=True)
    for name, text in config.environment(settings).items():
        monkeypatch.setenv(name, text)
    assert config.load() == settings


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stockify.toml"
    path.write_text('rate = 0.07\ngateway_port = 1\nunderlyings = ["NIFTY"]\n')
    monkeypatch.setenv("STOCKIFY_CONFIG", str(path))
    monkeypatch.setenv("STOCKIFY_GATEWAY_PORT", "2")
    settings = config.load()
    assert (settings.rate, settings.gateway_port) == (0.07, 2)
    assert settings.underlyings == ("NIFTY",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHARDS", "0"),
        ("SHARDS", "many"),
        ("GREEKS", "some"),
        ("CHAIN_BUDGET", "mine"),
        ("JWT_SECRET", "short"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_wrong_setting_is_refused_by_name(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STOCKIFY_{name}", text)
    with pytest.raises(ConfigError, match=name.lower() if text == "many" else name):
        config.load()


def test_unknown_setting_in_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stockify.toml"
    path.write_text("shard = 2\n")
    monkeypatch.setenv("STOCKIFY_CONFIG", str(path))
    with pytest.raises(ConfigError, match="shard"):
        config.load()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        pytest.param({"JWT_SECRET": "short"}, "JWT_SECRET.*32 bytes", id="short"),
        pytest.param({"JWT_SECRETS": f"{'a' * 32},short"}, "JWT_SECRETS.*32 bytes", id="one-short"),
        pytest.param({"JWT_SECRET": f"-----BEGIN {'x' * 40}"}, "file's form", id="a-public-key"),
        pytest.param({"JWT_JWKS": "keys.json"}, "JWT_ISSUER", id="whose-keys"),
        pytest.param(
            {"JWT_JWKS": "http://127.0.0.1/keys", "JWT_ISSUER": "i"}, "https", id="plain-http"
        ),
        pytest.param({"JWT_AUDIENCE": ""}, "JWT_AUDIENCE", id="no-audience"),
        pytest.param({"REVOCATION_GRACE_S": "-1"}, "REVOCATION_GRACE_S", id="negative"),
        pytest.param({"REVOCATION_GRACE_S": "nan"}, "REVOCATION_GRACE_S", id="no-number"),
    ],
)
def test_keys_of_tokens_are_checked_at_the_start(
    given: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in given.items():
        monkeypatch.setenv(f"STOCKIFY_{name}", text)
    with pytest.raises(ConfigError, match=complaint):
        config.load()


def test_secrets_are_read_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKIFY_JWT_SECRETS", f"{'a' * 32}, {'b' * 32}")
    assert config.load().jwt_secrets == ("a" * 32, "b" * 32)


def test_no_secret_can_be_read_from_the_redacted_settings() -> None:
    settings = Settings(
        redis_url="redis://user:hunter2@127.0.0.1:6379/0",
        database_url="postgresql://stockify:hunter2@127.0.0.1/stockify",
        jwt_secret="hunter2" * 6,
        jwt_secrets=("hunter2" * 5, "hunter2" * 7),
        jwt_jwks="https://me:hunter2@issuer.example/keys",
        dhan_access_token="hunter2",
    )
    assert "hunter2" not in str(settings.redacted())
    assert settings.redacted()["redis_url"] == "redis://user:***@127.0.0.1:6379/0"


def test_several_nodes_are_told_apart_and_no_password_of_them_is_shown() -> None:
    settings = Settings(redis_url="redis://:one,two@a:1/0, redis://:three@b:2", redis_cluster=True)
    assert settings.redis_urls() == ("redis://:one,two@a:1/0", "redis://:three@b:2")
    assert settings.redacted()["redis_url"] == "redis://:***@a:1/0,redis://:***@b:2"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        pytest.param("REDIS_URL", "redis://a:1,redis://b:2", "CLUSTER", id="nodes-of-no-cluster"),
        pytest.param("REDIS_CLUSTER", "true", "REDIS_URL", id="cluster-without-a-node"),
    ],
)
def test_cluster_and_its_nodes_go_together(
    name: str, text: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STOCKIFY_{name}", text)
    with pytest.raises(ConfigError, match=complaint):
        config.load()
