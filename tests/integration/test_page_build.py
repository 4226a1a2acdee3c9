"""Building the page: from its sources alone, only when needed, and whole or not at all."""

import fcntl
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from stockify import page


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A copy of the page's sources, with the installed packages beside it."""
    page.install_packages()
    copy = tmp_path / "web"
    shutil.copytree(page.WEB, copy, ignore=shutil.ignore_patterns("dist*", "node_modules"))
    (copy / "node_modules").symlink_to(page.WEB / "node_modules")
    return copy


def built_names(web: Path) -> set[str]:
    return {path.name for path in (web / "dist" / "assets").iterdir()}


def test_page_is_built_once_and_again_only_after_a_change(web: Path) -> None:
    assert page.ensure(web)
    first = built_names(web)
    assert not page.ensure(web)

    source = web / "src" / "format.ts"
    source.write_text(source.read_text().replace('ABSENT = "–"', 'ABSENT = "-"'))

    assert page.ensure(web)
    scripts = [
        {name for name in names if name.startswith("page-") and name.endswith(".js")}
        for names in (first, built_names(web))
    ]
    assert scripts[0].isdisjoint(scripts[1])
    styles = [
        {name for name in names if name.endswith(".css")} for names in (first, built_names(web))
    ]
    assert styles[0] == styles[1]


def test_same_sources_give_the_same_files(web: Path) -> None:
    page.ensure(web)
    first = {path.name: path.read_bytes() for path in (web / "dist" / "assets").iterdir()}
    shutil.rmtree(web / "dist")
    page.ensure(web)

    again = {path.name: path.read_bytes() for path in (web / "dist" / "assets").iterdir()}
    assert {name for name in first if not name.endswith(".map")} <= again.keys()
    assert all(again[name] == body for name, body in first.items() if not name.endswith(".map"))


def test_document_names_only_files_that_were_built(web: Path) -> None:
    page.ensure(web)
    for document in ("index.html", "docs.html", "docs-live.html"):
        html = (web / "dist" / document).read_text()

        named = set(re.findall(r'(?:src|href)="/assets/([^"]+)"', html))
        assert len(named) == 3
        assert named <= built_names(web)
        assert "{{" not in html
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)


def test_licences_of_everything_bundled_are_written_out(web: Path) -> None:
    page.ensure(web)
    text = (web / "dist" / "LICENSES.txt").read_text()

    for name in ("uplot", "lightweight-charts", "fancy-canvas", "swagger-ui-dist"):
        assert re.search(rf"^{name} \d", text, re.MULTILINE)
    assert "SmartBear" in text  # a notice
    assert "classnames" in text  # which comes within Swagger UI
    assert "esbuild" not in text


def test_broken_source_is_told_and_leaves_the_page_that_was_there(web: Path) -> None:
    page.ensure(web)
    before = built_names(web)
    (web / "src" / "main.ts").write_text("const = ;")

    with pytest.raises(page.PageError, match=r"main\.ts"):
        page.ensure(web)

    assert built_names(web) == before


def test_packages_are_installed_by_one_at_a_time(web: Path) -> None:
    handle = os.open(web, os.O_RDONLY)  # another one, that installs
    fcntl.flock(handle, fcntl.LOCK_EX)
    caller = threading.Thread(target=page.install_packages, args=(web,))
    caller.start()
    caller.join(0.2)
    assert caller.is_alive()
    os.close(handle)
    caller.join(10)
    assert not caller.is_alive()


def test_installed_page_without_sources_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.html").write_text("built elsewhere")

    assert not page.ensure(tmp_path)


def test_missing_page_and_missing_sources_are_told(tmp_path: Path) -> None:
    with pytest.raises(page.PageError, match="no page"):
        page.ensure(tmp_path)


def test_lock_names_every_package_with_its_hash_and_no_address() -> None:
    lock = (page.WEB / "package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert lock.count('"integrity"') == lock.count('"node_modules/')
