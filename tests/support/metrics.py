"""The names under which the project's processes show their metrics, read from its source.

Each `telemetry.counter|gauge|histogram(…)` call is found in the syntax trees; a name that is
computed becomes a pattern. What Prometheus then calls it is the rule of `pipeline.telemetry`,
which a unit test holds against a real exposition.
"""

import ast
import functools
import re
from collections.abc import Iterator

from tests.support import rooms

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "labelled_gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
# Shown by every process without a line of ours, and by the scraper itself.
_GIVEN = ("up", *(f"process_{name}" for name in ("resident_memory_bytes", "cpu_seconds_total")))


@functools.cache
def exposed() -> re.Pattern[str]:
    """Matches every metric name that some process of the project can show."""
    patterns = {re.escape(name) for name in _GIVEN}
    for module in rooms.modules().values():
        patterns |= set(_of_module(module))
    return re.compile("|".join(sorted(patterns)))


def prometheus_names(kind: str, name_pattern: str, unit: str) -> list[str]:
    """What Prometheus calls an instrument; `name_pattern` is a regular expression."""
    base = f"stockify_{name_pattern}"
    word = {"s": "_seconds", "By": "_bytes"}.get(unit, "")
    if word and not base.endswith(word):
        base += word
    return [base + suffix for suffix in _SUFFIXES[kind]]


def _of_module(module: rooms.Module) -> Iterator[str]:
    for function in module.nodes:
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        values = _assigned(function)
        for call in ast.walk(function):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in _SUFFIXES
                and call.args
            ):
                for name in _patterns(call.args[0], values):
                    yield from prometheus_names(call.func.attr, name, _unit(call))


def _assigned(function: ast.AST) -> dict[str, ast.expr]:
    return {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _patterns(node: ast.expr, values: dict[str, ast.expr]) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [re.escape(node.value)]
    if isinstance(node, ast.JoinedStr):
        return [
            "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z0-9_]+"
                for part in node.values
            )
        ]
    if isinstance(node, ast.IfExp):
        return _patterns(node.body, values) + _patterns(node.orelse, values)
    if isinstance(node, ast.Name) and node.id in values:
        return _patterns(values[node.id], values)
    return []


def _unit(call: ast.Call) -> str:
    kind = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    position = {"gauge": 3, "labelled_gauge": 3, "histogram": 2}.get(kind)
    for keyword in call.keywords:
        if keyword.arg == "unit" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    if position is not None and len(call.args) > position:
        given = call.args[position]
        return str(given.value) if isinstance(given, ast.Constant) else ""
    return "s" if kind == "histogram" else ""
