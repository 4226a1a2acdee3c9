"""The kernel cache is thrown away exactly when what it was made from has changed."""

import fcntl
import threading
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


def test_a_forced_filling_starts_from_nothing(directory: Path) -> None:
    warm.fill("processor")
    current = directory / "greeks._solve_legs-1.py311.1.nbc"
    current.write_bytes(b"machine code of today")
    warm.fill("processor", again=True)
    assert not current.exists()


def test_second_filler_of_a_cache_waits_for_the_first(directory: Path) -> None:
    second = threading.Thread(target=warm.fill, args=("processor",))
    with open(directory / "lock", "ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert "processor" in warm.cold_roles()
    second.join(60.0)
    assert "processor" not in warm.cold_roles()


def test_the_kernels_of_a_role_are_counted_alone(directory: Path) -> None:
    (directory / "greeks._solve_legs-1.py311.nbi").write_bytes(b"")
    (directory / "greeks._solve_legs-1.py311.1.nbc").write_bytes(b"")
    assert warm.kernels("processor") == 1
    assert warm.kernels("storage") == 0
