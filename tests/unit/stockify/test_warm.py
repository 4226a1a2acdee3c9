"""The kernel cache is thrown away exactly when what it was made from has changed."""

from pathlib import Path

import pytest

from stockify import plan, warm


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = plan.kernel_cache("processor")
    folder.mkdir(parents=True)
    return folder


def test_code_compiled_from_other_sources_is_thrown_away(directory: Path) -> None:
    stale = directory / "kernels" / "greeks._solve_legs-1.py311.1.nbc"
    stale.parent.mkdir()
    stale.write_bytes(b"machine code of yesterday")
    assert "processor" in warm.cold_roles()
    warm.fill("processor")
    assert not stale.exists()
    assert "processor" not in warm.cold_roles()


def test_a_current_cache_is_kept(directory: Path) -> None:
    warm.fill("processor")
    current = directory / "greeks._solve_legs-1.py311.1.nbc"
    current.write_bytes(b"machine code of today")
    warm.fill("processor")
    assert current.exists()
