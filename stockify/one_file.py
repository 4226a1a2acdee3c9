"""Runs a worker of the user's own: `python -m stockify.one_file package.module:name`.

The name is a coroutine function that takes a `pipeline.runtime.Context`, or what
`pipeline.streams.worker` has made of a function; everything a worker is given (settings, telemetry,
Redis, heartbeat, drain) it is given too.
"""

import importlib
import inspect
import sys

from pipeline import runtime
from pipeline.errors import ConfigError


def find(target: str) -> runtime.Worker:
    """The worker of that name. Raises ConfigError where there is none."""
    module_name, _, attribute = target.partition(":")
    try:
        worker = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(f"worker {target!r}: {error}") from error
    except AttributeError:
        raise ConfigError(f"worker {target!r}: {module_name} has no {attribute!r}") from None
    if not callable(worker) or not _is_asynchronous(worker):
        raise ConfigError(
            f"worker {target!r}: want an async function that takes a Context,"
            " or a function under @worker(consume(…))"
        )
    return worker  # type: ignore[no-any-return]


def main() -> None:
    """Run the worker named by the argument, under the name of its attribute."""
    target = sys.argv[1]
    try:
        worker = find(target)
    except ConfigError as error:
        sys.exit(f"stockify run: {error}")
    runtime.run(target.partition(":")[2], worker)


def _is_asynchronous(worker: object) -> bool:
    call = getattr(worker, "__call__", None)  # noqa: B004 - an object may be asynchronous too
    return inspect.iscoroutinefunction(worker) or inspect.iscoroutinefunction(call)


if __name__ == "__main__":
    main()
