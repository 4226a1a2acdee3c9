"""Compiled kernels of the tests lie in a folder named after the text of all of them.

Numba believes a cached kernel while its own file is unchanged, though the machine code holds the
kernels of other files that it calls; a test must never run yesterday's. Where the caches of the
workers are of this very text, as after `make kernels`, a new folder begins with what they hold:
compiling all takes every process that does it a minute. Set before numba loads.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from stockify import plan, warm

pytest_plugins = ["tests.support.hangs"]
_ROOT = Path(__file__).resolve().parents[1]


def _kernel_cache() -> Path:
    digest = hashlib.sha256()
    for source in sorted((_ROOT / "pipeline" / "kernels").glob("*.py")):
        digest.update(source.read_bytes())
    return _ROOT / ".pytest_cache" / f"kernels-{digest.hexdigest()[:16]}"


def _begin(cache: Path) -> None:
    """Make the folder at one stroke, for several processes may begin at once."""
    if cache.exists() or warm.cold_roles():
        return
    cache.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
        made = Path(scratch) / cache.name
        for role in warm.ROLES:
            shutil.copytree(
                plan.kernel_cache(role),
                made,
                ignore=shutil.ignore_patterns("lock", "stamp"),
                dirs_exist_ok=True,
            )
        with contextlib.suppress(OSError):  # another was faster
            made.rename(cache)


if "NUMBA_CACHE_DIR" not in os.environ:
    _begin(_kernel_cache())
    os.environ["NUMBA_CACHE_DIR"] = str(_kernel_cache())
