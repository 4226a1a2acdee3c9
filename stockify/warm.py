"""Warm kernels: compiled code is kept on disk, one directory a role, and known to be current.

`python -m stockify.warm ROLE` fills the cache of `NUMBA_CACHE_DIR`, one caller at a time. Whether
that is needed is told by a stamp beside the cache, without loading the compiler (0.6 s and 80 MB).
"""

import fcntl
import hashlib
import importlib
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline import config
from stockify import plan
from stockify.instance import write_private
from stockify.processes import Launch

ROLES = ("processor", "storage")
# The module whose `warmup` compiles what that role calls; the bench fills its own when it runs.
_WARMED_BY = {
    "processor": "workers.processor",
    "storage": "pipeline.rows",
    "bench": "stockify.bench.ours",
    "bench-avx2": "stockify.bench.ours",
}
_SOURCES = Path(__file__).resolve().parent.parent / "pipeline" / "kernels"


def cold_roles() -> Sequence[str]:
    """Roles whose cache is missing or was made from other sources, numba or processor."""
    stamp = _stamp()
    return [role for role in ROLES if _read(_stamp_path(role)) != stamp]


def launch(role: str, *, again: bool = False) -> Launch:
    """How to fill a role's cache; `again`: from nothing, even where it is up to date."""
    return Launch(
        name=f"warmup-{role}",
        argv=(sys.executable, "-m", "stockify.warm", role, *(("again",) if again else ())),
        env=plan.environment(config.load(), role),
        cwd=Path("/"),
    )


def kernels(role: str) -> int:
    """How many compiled kernels the role's cache holds now; it grows while one fills it."""
    return sum(1 for _ in plan.kernel_cache(role).rglob("*.nbi"))


def fill(role: str, *, again: bool = False) -> None:
    """Compile, or load from the cache, what the role calls; two callers take turns."""
    directory = plan.kernel_cache(role)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = _stamp()
        if again or _read(_stamp_path(role)) != stamp:
            _empty(directory)
        importlib.import_module(_WARMED_BY[role]).warmup()
        write_private(_stamp_path(role), stamp.encode())


def _empty(directory: Path) -> None:
    # Numba believes a cached kernel while its own file is unchanged, though the machine code holds
    # the kernels of other files that it calls.
    for cached in directory.rglob("*.nb[ci]"):
        cached.unlink(missing_ok=True)


def _stamp() -> str:
    """What compiled kernels depend on: where and what the sources are, versions, the processor."""
    sources = [
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(_SOURCES.glob("*.py"))
    ]
    versions = (platform.python_version(), metadata.version("numba"), metadata.version("numpy"))
    parts = [str(_SOURCES), sources, versions, platform.machine(), processor_flags()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def processor_flags() -> str:
    """The processor's features, as Linux lists them; empty where it does not."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            return line
    return ""


def _stamp_path(role: str) -> Path:
    return plan.kernel_cache(role) / "stamp"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def main() -> None:
    """Fill the cache of the role that the argument names; `again` after it: from nothing."""
    fill(sys.argv[1], again="again" in sys.argv[2:])


if __name__ == "__main__":
    main()
