"""One constant answer of given bytes: by a route of Litestar, and by a bare ASGI application.

`python constant_peer.py PORT BODY`, with the Python of the project, so that the servers are of the
same releases as the gateway's, set up as the gateway's is. No token, no limits, no Redis.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

BARE = "/bare"
ROUTE = "/constant"


def application(body: bytes) -> Any:
    """Both, one beside the other."""
    litestar: Any = importlib.import_module("litestar")

    async def constant() -> Any:
        return litestar.Response(body, media_type="application/json")

    constant.__annotations__["return"] = litestar.Response[bytes]
    handler = litestar.get(ROUTE)(constant)
    routed = litestar.Litestar([handler], openapi_config=None, logging_config=None)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == BARE:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await routed(scope, receive, send)

    return app


def main() -> None:
    """Serve until told to stop."""
    uvicorn: Any = importlib.import_module("uvicorn")
    uvicorn.run(
        application(Path(sys.argv[2]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
