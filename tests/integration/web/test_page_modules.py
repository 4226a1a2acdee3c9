"""The page's own modules: their types, and their tests under the Node of the Python package."""

import subprocess
from pathlib import Path

import pytest

from stockify import page

HERE = Path(__file__).parent
TESTS = sorted(HERE.glob("*.test.ts"))


@pytest.fixture(scope="module")
def modules() -> Path:
    page.install_packages()
    return page.WEB / "node_modules"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(page.node_program()), *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("project", [page.WEB, HERE], ids=["page", "tests"])
def test_types_of_the_page_check(modules: Path, project: Path) -> None:
    compiler = modules / "typescript" / "bin" / "tsc"

    done = run(str(compiler), "--noEmit", "--project", str(project))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=[path.name.split(".")[0] for path in TESTS])
def test_module_of_the_page_keeps_its_claims(path: Path) -> None:
    done = run("--test", "--test-reporter=spec", path.name)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 0" not in done.stdout, "no test was run"


def test_every_test_file_is_run() -> None:
    assert len(TESTS) >= 8
