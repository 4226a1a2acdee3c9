"""The storage worker, which kills itself: `python -m tests.support.dying_storage POINT N`.

At the Nth time that it comes by a named point it is gone, as by kill -9.
"""

import os
import signal
import sys
from typing import Any

from workers.storage.__main__ import main


def die_at(point: str, times: int) -> None:
    """End this process the `times`th time that it comes by a point."""
    passed = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal passed
        if event == "stockify.storage" and arguments[0] == point:
            passed += 1
            if passed == times:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    main()
