"""The processor's bench runs as its user runs it, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil


def test_quick_run_prints_the_figures_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "stockify", "bench", "processor", "--quick", "--json"),
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    figures = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])
    assert set(figures) >= {"contracts_per_s", "ratio_decode", "ratio_decode_untyped"}
    assert figures["contracts_per_s"] > 0.0
    assert figures["contracts_per_chain"] > 400
    # Whatever the machine does meanwhile: the process decodes, so it cannot cost less than that.
    assert figures["ratio_decode"] > figures["ratio_decode_untyped"] > 0.0
    assert figures["ratio_decode"] > 1.0
    assert started_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def started_in(folder: Path) -> list[psutil.Process]:
    """The processes whose temporary files go there: the bench's and those it started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process)
        except psutil.Error:  # it has ended, or is another user's
            continue
    return found
