"""The documents agree with the code and with each other."""

import re
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from stockify import bench, cli, plan, reference
from tests.support import documents
from tests.support.rooms import CHECKOUT

DOCS = CHECKOUT / "docs"
PAGES = documents.pages()
SERVICES = ("simulator", "prometheus")  # names inside the container network
# A call of ours at the start of a line, in `$(…)` or inside a container.
_STOCKIFY = re.compile(r"(?:.*\$\(|.* exec \w+ )?(?:\.venv/bin/)?stockify ([a-z]+)([^)|]*)")


def commands_shown(page: Path) -> list[tuple[str, str]]:
    """Subcommand and rest of every `stockify …` in the page's shell blocks and inline code."""
    inline = re.findall(r"`([^`\n]+)`", page.read_text())
    found = []
    for text in [*documents.shell_lines(page), *inline]:
        match = _STOCKIFY.match(text)
        if match:
            found.append((match[1], match[2]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in documents.links(page):
        if re.match(r"https?://", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not fragment or fragment in documents.anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    for name, rest in commands_shown(page):
        assert name in cli.COMMANDS, f"stockify {name}"
        command = cli.commands.get_command(click.Context(cli.commands), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in known or isinstance(command, click.Group), f"{name} {option}"


def test_commands_shown_are_found() -> None:
    shown = {name for page in PAGES for name, _rest in commands_shown(page)}
    assert {"up", "token", "compare", "replay", "run", "env", "status", "doctor"} <= shown


def test_make_targets_shown_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (CHECKOUT / "Makefile").read_text()))
    shown = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert {"up", "test"} <= shown
    assert shown <= targets


def test_readme_shows_two_commands_first() -> None:
    assert documents.shell_lines(CHECKOUT / "README.md")[:2] == ["make up", "make test"]


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = (CHECKOUT / ".ci/run").read_text().strip().splitlines()
    assert script[-1] == "exec make test"
    workflow = (CHECKOUT / ".github/workflows/test.yml").read_text()
    assert re.findall(r"- run: (.*)", workflow) == ["make test"]


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [CHECKOUT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in documents.links(page)
            if not target.startswith("http")
        ]
    assert {page for page in PAGES if page.is_relative_to(DOCS)} <= reached


def test_configuration_page_is_what_the_settings_say() -> None:
    written = (DOCS / "configuration.md").read_text()
    assert written == reference.configuration_page(), "run `make docs`"


def test_leg_table_is_the_leg_layout() -> None:
    page = (DOCS / "data-model.md").read_text()
    assert page == reference.with_leg_table(page), "run `make docs`"


def test_schema_files_are_what_the_types_say() -> None:
    written = {path.name: path.read_bytes() for path in (DOCS / "schemas").iterdir()}
    assert written == reference.schema_files(), "run `make docs`"


def test_glossary_is_in_order_and_says_each_word_once() -> None:
    words = re.findall(r"(?m)^\| ([a-z][^|]*?) \|", (DOCS / "glossary.md").read_text())[1:]
    assert len(words) > 30
    assert words == sorted(set(words))


def test_picture_draws_every_process_and_nothing_from_outside() -> None:
    text = (DOCS / "flow.svg").read_text()
    root = ElementTree.fromstring(text)  # noqa: S314 - our own file
    names = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set(plan.MODULES) - names == {"simulator"}  # stands in the provider's box
    assert {"stream:raw", "stream:enriched", "stream:dead"} <= names
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?(?!#)(\S+)", text) == []


def test_no_page_names_a_machine_or_a_foreign_host() -> None:
    """Where packages come from is each machine's own affair, so no address of any stands here."""
    known = {"127.0.0.1", "semver.org", "www.w3.org", "api.dhan.co", *SERVICES}
    paths = [*PAGES, *(CHECKOUT / "setup").iterdir(), CHECKOUT / "Makefile", DOCS / "flow.svg"]
    paths += [CHECKOUT / "constraints.txt", CHECKOUT / "compose.yaml", CHECKOUT / "pyproject.toml"]
    paths += [path for path in (CHECKOUT / "deploy").rglob("*") if path.is_file()]
    found = []
    for path in paths:
        text = path.read_text()
        hosts = re.findall(r"https?://([\w.\-]+)", text)
        found += [(path.name, host) for host in hosts if host not in known]
        found += [(path.name, place) for place in re.findall(r"(?:/home/\w+|/root\b)", text)]
    assert found == []


def test_constraints_hold_versions_and_nothing_else() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    assert len(requirements) > 50
    assert [line for line in requirements if not re.fullmatch(r"[\w.\-]+==[\w.+!]+", line)] == []
    assert not any(line.lower().startswith("stockify") for line in requirements)


def test_bench_page_names_only_commands() -> None:
    text = (DOCS / "performance.md").read_text()
    figures = re.findall(r"\b\d[\d,.]*\s*(?:/s|ms|µs|ns|rows|contracts|percent|%)", text)
    assert figures == []


def test_every_bench_is_on_the_bench_page() -> None:
    shown = re.findall(r"`stockify bench (\w+)`", (DOCS / "performance.md").read_text())
    assert sorted(shown) == sorted(bench.BENCHES)
