"""Compiled kernels of the tests lie in a folder named after the text of all of them.

Numba believes a cached kernel while its own file is unchanged, though the machine code holds the
kernels of other files that it calls; a test must never run yesterday's. Set before numba loads.
"""

import hashlib
import os
from pathlib import Path

pytest_plugins = ["tests.support.hangs"]
_ROOT = Path(__file__).resolve().parents[1]


def _kernel_cache() -> Path:
    digest = hashlib.sha256()
    for source in sorted((_ROOT / "pipeline" / "kernels").glob("*.py")):
        digest.update(source.read_bytes())
    return _ROOT / ".pytest_cache" / f"kernels-{digest.hexdigest()[:16]}"


os.environ.setdefault("NUMBA_CACHE_DIR", str(_kernel_cache()))
