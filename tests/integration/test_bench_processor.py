"""The processor's bench runs as its user runs it, and leaves nothing running."""

import subprocess
import sys

import msgspec
import psutil


def test_quick_run_prints_the_figures_asked_for() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "stockify", "bench", "processor", "--quick", "--json"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    figures = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])
    assert set(figures) >= {"contracts_per_s", "ratio_decode", "ratio_decode_untyped"}
    assert all(value > 0.0 for value in figures.values())
    assert figures["contracts_per_chain"] > 400
    # Whatever the machine does meanwhile: the process decodes, so it cannot cost less than that.
    assert figures["ratio_decode"] > 1.0
    assert figures["decode_us"] + figures["decompress_us"] < figures["cpu_us"]
    left = [one.cmdline() for one in psutil.Process().children(recursive=True)]
    assert left == []
