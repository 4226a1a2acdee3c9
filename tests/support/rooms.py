"""Reads the project's own source as syntax trees: who imports whom, and which texts stand where.

Typing-only imports, imports inside functions and `importlib.import_module("…")` all count.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("pipeline", "workers", "api", "stockify", "sql")

# In capitals anywhere in a text; in small letters only where English would not say it.
_SQL = re.compile(
    r"\bSELECT\s+\S|\bINSERT\s+INTO\b|\bUPDATE\s+\S+\s+SET\b|\bDELETE\s+FROM\b"
    r"|\b(?:CREATE|ALTER|DROP)\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|SCHEMA|EXTENSION|TYPE)\b"
    r"|\bCOPY\s+\S+.*\bFROM\s+STDIN\b|\bTRUNCATE\s+\w"
    r"|^\s*select\s+(?:[\d*(]|\S.*\bfrom\s)|^\s*insert\s+into\s+\w+|^\s*delete\s+from\s+\w+"
    r"|^\s*update\s+\w+\s+set\s+\w+\s*=|^\s*with\s+\w+\s+as\s*\(",
    re.DOTALL,
)
_REDIS_KEY = re.compile(
    r"^(?:stream|latest|latest-at|live|seq|lease|group|schema|worker|limit|ticket):(?!\s)"
    r"|^(?:api-keys|revoked-\w+)\b(?!\s)|__keyspace@"
)


class Module(NamedTuple):
    """One source file: its dotted name, whether it is a package's `__init__`, and its syntax."""

    name: str
    is_package: bool
    nodes: tuple[ast.AST, ...]


class Import(NamedTuple):
    """One name imported by a module, absolute, and the line on which it stands."""

    module: str
    target: str
    line: int


class Text(NamedTuple):
    """A string literal that is no docstring, or a literal piece of an f-string."""

    module: str
    value: str
    line: int


def parse(name: str, source: str, *, is_package: bool = False) -> Module:
    """A module from its source."""
    return Module(name, is_package, tuple(ast.walk(ast.parse(source))))


@functools.cache
def modules(checkout: Path = CHECKOUT) -> dict[str, Module]:
    """Every module of the project by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((checkout / room).rglob("*.py")):
            if "node_modules" in path.parts:
                continue
            parts = path.relative_to(checkout).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = parse(name, path.read_text(), is_package=is_package)
    return found


def imports(module: Module) -> list[Import]:
    """Every import of a module, wherever it stands. `from a import b` gives `a.b`."""
    found = []
    for node in module.nodes:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _is_dynamic_import(node):
            targets = [node.args[0].value]  # type: ignore[attr-defined]  # checked just above
        else:
            continue
        found += [Import(module.name, target, node.lineno) for target in targets]
    return found


def graph(project: Mapping[str, Module]) -> dict[str, set[str]]:
    """Module -> the project's modules it imports."""
    return {
        name: {
            owner
            for found in imports(module)
            if (owner := owner_of(found.target, project)) and owner != name
        }
        for name, module in project.items()
    }


def owner_of(target: str, project: Mapping[str, Module]) -> str | None:
    """The project's module that an imported name lives in, or None for a stranger."""
    while target:
        if target in project:
            return target
        target = target.rpartition(".")[0]
    return None


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of two or more modules that reach each other, each sorted."""
    reached = {name: reach(name, edges) for name in edges}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, ())))
        for name in edges
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def reach(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    """Every module that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = list(edges.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges.get(name, ())
    return seen


def environment_reads(module: Module) -> list[int]:
    """Lines on which a module touches the environment through `os`."""
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    lines = []
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr in names:
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            lines += [node.lineno for alias in node.names if alias.name in names]
    return lines


def sql_texts(module: Module) -> list[Text]:
    """Texts that are SQL statements."""
    return [text for text in texts(module) if _SQL.search(text.value)]


def redis_keys(module: Module) -> list[Text]:
    """Texts that name a Redis key or begin one."""
    return [text for text in texts(module) if _REDIS_KEY.search(text.value)]


def texts(module: Module) -> Iterator[Text]:
    """String and bytes literals of a module, without docstrings."""
    documentation = _documentation(module)
    for node in module.nodes:
        if not isinstance(node, ast.Constant) or id(node) in documentation:
            continue
        if isinstance(node.value, str):
            yield Text(module.name, node.value, node.lineno)
        elif isinstance(node.value, bytes):
            yield Text(module.name, node.value.decode("latin-1"), node.lineno)


def long_functions(module: Module, limit: int) -> list[str]:
    """Functions of more lines than the limit; decorators and docstring do not count."""
    found = []
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None and first.end_lineno is not None
            skipped = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - skipped
            if length > limit:
                found.append(f"{module.name}.{node.name}: {length} lines")
    return found


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    above = node.level - 1 if module.is_package else node.level
    parts = parts[: len(parts) - above]
    return ".".join([*parts, node.module] if node.module else parts)


def _is_dynamic_import(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    called = node.func.id if isinstance(node.func, ast.Name) else called
    first = node.args[0] if node.args else None
    return (
        called in ("import_module", "__import__")
        and isinstance(first, ast.Constant)
        and isinstance(first.value, str)
    )


def _documentation(module: Module) -> set[int]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return {
        id(node.body[0].value)
        for node in module.nodes
        if isinstance(node, kinds)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
