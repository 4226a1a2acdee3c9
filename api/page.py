"""The page: files that `api/web` was built into, under a strict policy. Loads nothing from outside.

Hashed names may be kept for ever, the document that names them is asked for each time.
"""

import mimetypes
from pathlib import Path

from litestar import Response, get
from litestar.params import FromPath

from api.errors import ApiError

DIST = Path(__file__).parent / "web" / "dist"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
NOT_BUILT = (
    "The page is not built. Run `make page` in the checkout, or install the wheel, which carries"
    " it.\nREST and WebSocket work without it: see /openapi.json.\n"
)
_TYPES = {".js": "text/javascript; charset=utf-8", ".map": "application/json"}


@get("/", opt={"is_page": True})
async def document() -> Response[bytes]:
    """The page itself."""
    return _document("index.html")


@get("/docs", opt={"is_page": True})
async def docs() -> Response[bytes]:
    """The REST reference, to read and to try."""
    return _document("docs.html")


@get("/docs/ws", opt={"is_page": True})
async def docs_live() -> Response[bytes]:
    """The reference of the live feed."""
    return _document("docs-live.html")


def _document(name: str) -> Response[bytes]:
    path = DIST / name
    if not path.is_file():
        return Response(
            NOT_BUILT.encode(),
            status_code=503,
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )
    return _file(path, "no-cache")


@get("/assets/{name:str}", opt={"is_page": True})
async def asset(name: FromPath[str]) -> Response[bytes]:
    """A built file, whose name holds the hash of what is in it."""
    return _file(_inside(DIST / "assets", name), "public, max-age=31536000, immutable")


@get("/LICENSES.txt", opt={"is_page": True})
async def licences() -> Response[bytes]:
    """The licences of what is bundled."""
    return _file(_inside(DIST, "LICENSES.txt"), "no-cache")


def _inside(directory: Path, name: str) -> Path:
    """A file that lies in the directory itself; names are matched, never joined unseen."""
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name == name and path.is_file():
                return path
    raise ApiError(404, "not_found", "there is no such file")


def _file(path: Path, caching: str) -> Response[bytes]:
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    if kind is not None and kind.startswith("text/") and "charset" not in kind:
        kind += "; charset=utf-8"
    return Response(
        path.read_bytes(),
        media_type=kind or "application/octet-stream",
        headers={"Cache-Control": caching, "Content-Security-Policy": POLICY},
    )
