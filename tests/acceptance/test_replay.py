"""Recorded bodies, the whole way to REST: what was recorded, when it was recorded, once."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import chains, recordings
from tests.support import instance as instances
from tests.support.instance import Instance, until

LIVE = "dhan_v2_optionchain_NIFTY_exp20250130_at20250128T093332Z_LIVE.json"
RECEIVED = "Tue, 20 Jan 2026 06:30:00 GMT"
AT = "2026-01-20T06:30:00Z"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with instances.prepared(UNDERLYINGS="FINNIFTY", EXPIRIES_PER_UNDERLYING="1") as prepared:
        prepared.start()
        yield prepared


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A synthetic recording beside its index."""
    body = tmp_path / "chain.json"
    body.write_bytes(chains.encoded(chains.body(21)))
    asked = {"UnderlyingScrip": 13, "UnderlyingSeg": "IDX_I", "Expiry": "2026-01-27"}
    entry = {
        "file": body.name,
        "url": "https://provider.invalid/v2/optionchain",
        "request_body": json.dumps(asked),
        "http_status": 200,
        "http_date": RECEIVED,
    }
    (tmp_path / "recordings_index.json").write_text(json.dumps([entry]))
    return body


def replayed(instance: Instance, *arguments: str) -> str:
    done = instance.command("replay", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(instance: Instance, path: str) -> dict[str, Any]:
    """The chain at `path`, once storage has committed it."""
    until(lambda: instance.get(path).status_code == 200, 30, lambda: instance.get(path).text)
    body: dict[str, Any] = instance.get(path).json()
    return body


def test_recording_is_served_with_the_time_at_which_it_was_received(
    instance: Instance, recording: Path
) -> None:
    assert "NIFTY" in replayed(instance, str(recording))
    latest = stored(instance, "/v1/chains/NIFTY/2026-01-27")
    past = stored(instance, f"/v1/chains/NIFTY/20260127?as_of={AT}")
    for chain in (latest, past):
        assert chain["meta"]["ts_ingest"] == "2026-01-20T06:30:00.000000Z"
        assert len(chain["data"]) == 42
        assert all(row["iv"] is not None for row in chain["data"])
    assert [row["last"] for row in latest["data"]] == [row["last"] for row in past["data"]]


def test_recording_replayed_twice_is_stored_once(instance: Instance, recording: Path) -> None:
    for _time in range(2):
        replayed(instance, str(recording))
    path = "/v1/contracts/NIFTY-20260127-25000-CE/history?start=2026-01-20&end=2026-01-21"
    until(lambda: bool(instance.get(path).json()["data"]), 30)
    until(lambda: instance.status()["processes"]["storage"]["gauges"]["lag"] == 0, 30)
    rows = instance.get(path).json()["data"]
    assert [row["ts_ingest"] for row in rows] == ["2026-01-20T06:30:00.000000Z"]


def test_body_without_an_index_is_described_by_options(instance: Instance, tmp_path: Path) -> None:
    body = tmp_path / "alone.json"
    body.write_bytes(chains.encoded(chains.body(5)))
    refused = instance.command("replay", str(body))
    assert refused.returncode == 1
    assert "--underlying" in refused.stderr
    options = ("--underlying", "NIFTY", "--expiry", "2026-02-03", "--at", "2026-01-20T12:00")
    replayed(instance, str(body), *options)
    chain = stored(instance, "/v1/chains/NIFTY/2026-02-03")
    assert chain["meta"]["ts_ingest"] == "2026-01-20T06:30:00.000000Z"


def test_recorded_live_chain_has_one_volatility_a_strike_where_the_provider_has_two(
    instance: Instance,
) -> None:
    shared = recordings.shared_dir()
    if shared is None:
        pytest.skip("no recorded chains beside this checkout")
    replayed(instance, str(shared / "data" / "dhan" / LIVE))
    chain = stored(instance, "/v1/chains/NIFTY/2025-01-30?as_of=2025-01-28T09:33:32Z")
    assert chain["meta"]["ts_ingest"] == "2025-01-28T09:33:32.000000Z"
    assert chain["meta"]["forward"] == pytest.approx(22_980.24, abs=0.05)
    ours, theirs = gaps(chain, "iv"), gaps(chain, "iv_provider")
    assert statistics.median(ours) <= 0.1
    assert max(ours) <= 0.25
    assert statistics.median(theirs) == pytest.approx(2.04, abs=0.01)
    assert max(theirs) == pytest.approx(18.9, abs=0.05)


def gaps(chain: dict[str, Any], column: str) -> list[float]:
    """|call − put| in vol points at the 21 strikes nearest to the forward."""
    sides: dict[float, dict[str, float]] = {}
    for row in chain["data"]:
        sides.setdefault(row["strike"], {})[row["kind"]] = 100 * (row[column] or 0.0)
    forward = chain["meta"]["forward"]
    near = sorted(sides, key=lambda strike: abs(strike - forward))[:21]
    return [abs(sides[strike]["call"] - sides[strike]["put"]) for strike in near]
