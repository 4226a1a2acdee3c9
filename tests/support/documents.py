"""Reads the project's Markdown: links, headings, shell commands and the examples that run."""

import re
from pathlib import Path

from tests.support.rooms import CHECKOUT

_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_EXAMPLE = re.compile(r"(?ms)^<!-- runs: (\w+) -->\n```python\n(.*?)^```$")
_FILE = re.compile(r"(?ms)^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every page: those at the top and those below docs."""
    return sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


def links(page: Path) -> list[str]:
    """Targets of the links and images of a page, code left out."""
    return _LINK.findall(_FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be reached by."""
    text = _FENCE.sub("", page.read_text())
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def shell_lines(page: Path) -> list[str]:
    """Lines of the shell blocks of a page, without comments."""
    blocks = [body for language, body in _FENCE.findall(page.read_text()) if language == "sh"]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def example(page: Path, name: str) -> str:
    """The source of the example that a page marks with `<!-- runs: name -->`."""
    found = dict(_EXAMPLE.findall(page.read_text()))
    return str(found[name])


def files_shown(page: Path) -> dict[str, str]:
    """What a page shows as whole files, marked `<!-- file: name -->`, by name."""
    return dict(_FILE.findall(page.read_text()))
