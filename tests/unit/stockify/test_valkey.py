from pathlib import Path

import pytest

from stockify import guard
from stockify.engines import valkey
from stockify.engines.valkey import Valkey

GOOD = {"maxmemory-policy": "noeviction", "notify-keyspace-events": "K$", "appendonly": "yes"}


def test_right_settings_give_no_finding() -> None:
    assert valkey.judge(GOOD) == []
    assert valkey.judge(GOOD | {"notify-keyspace-events": "AKE"}) == []


def test_eviction_is_fatal() -> None:
    (finding,) = valkey.judge(GOOD | {"maxmemory-policy": "allkeys-lru"})
    assert finding.is_fatal
    assert "allkeys-lru" in finding.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("notify-keyspace-events", ""), ("notify-keyspace-events", "E$"), ("appendonly", "no")],
)
def test_poor_setting_is_named_and_not_fatal(name: str, value: str) -> None:
    (finding,) = valkey.judge(GOOD | {name: value})
    assert not finding.is_fatal
    assert name in finding.text


def test_refused_question_is_told_as_such() -> None:
    (finding,) = valkey.judge(dict.fromkeys(GOOD))
    assert "not checked" in finding.text
    assert not finding.is_fatal


def test_password_is_in_a_file_of_its_owner_and_not_on_the_command_line(tmp_path: Path) -> None:
    engine = Valkey(tmp_path / "redis", 6_999, "s3cr3t")
    launch = engine.prepare({})
    path = Path(launch.argv[1])
    assert "s3cr3t" not in " ".join(launch.argv)
    assert "requirepass s3cr3t" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert launch.stage == guard.ENGINE_STAGE
    assert engine.url == "redis://:s3cr3t@127.0.0.1:6999/0"
