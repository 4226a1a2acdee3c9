"""The manifest of a day: read as it was written, and nothing that leads elsewhere."""

import json
from datetime import date
from pathlib import Path

import pytest

from pipeline.cold.datasets import DATASETS
from pipeline.cold.manifest import (
    MANIFEST,
    Manifest,
    Slice,
    check_files,
    describe_file,
    directory_of,
    file_path,
    ledger_hash,
    read_manifest,
    remove_parts,
    write_manifest,
)
from pipeline.errors import ColdStoreError

DAY = date(2026, 1, 22)
HASH = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = directory_of(tmp_path, DAY)
    (path / "underlying=NIFTY").mkdir(parents=True)
    return path


def slice_of(directory: Path) -> Slice:
    files = {}
    for dataset in DATASETS:
        path = file_path("NIFTY", dataset.name)
        (directory / path).write_bytes(b"abc")
        files[dataset.name] = describe_file(directory / path, path, 7)
    return Slice(files, (1, 2), 3, ledger_hash([("b:r1", 2), ("a:r1", 1)]))


def manifest_of(directory: Path) -> Manifest:
    return Manifest(day=DAY, written_at="", underlyings={"NIFTY": slice_of(directory)})


def test_manifest_is_read_as_it_was_written(directory: Path) -> None:
    manifest = manifest_of(directory)
    write_manifest(directory, manifest)
    assert read_manifest(directory) == manifest
    assert [path.name for path in directory.iterdir() if path.is_file()] == [MANIFEST]


def test_directory_without_a_manifest_has_none(directory: Path) -> None:
    assert read_manifest(directory) is None


def test_file_is_described_by_size_and_hash(directory: Path) -> None:
    stored = slice_of(directory).files["ledger"]
    assert (stored.rows, stored.bytes, stored.sha256) == (7, 3, HASH)
    assert stored.path == "underlying=NIFTY/ledger.parquet"


def test_hash_of_a_ledger_does_not_depend_on_order() -> None:
    assert ledger_hash([("a", 1), ("b", 2)]) == ledger_hash([("b", 2), ("a", 1)])
    assert ledger_hash([("a", 1), ("b", 2)]) != ledger_hash([("a", 1), ("b", 3)])


def test_lines_of_all_underlyings_are_counted(directory: Path) -> None:
    slices = {"NIFTY": slice_of(directory), "BANKNIFTY": slice_of(directory)}
    assert Manifest(day=DAY, written_at="", underlyings=slices).ledger_lines == 6


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden"])
def test_name_that_leads_elsewhere_is_refused(directory: Path, name: str) -> None:
    write_manifest(directory, manifest_of(directory))
    text = json.loads((directory / MANIFEST).read_text())
    text["underlyings"][name] = text["underlyings"]["NIFTY"]
    (directory / MANIFEST).write_text(json.dumps(text))
    with pytest.raises(ColdStoreError, match="is no underlying"):
        read_manifest(directory)


def test_underlying_without_one_of_its_files_is_refused(directory: Path) -> None:
    write_manifest(directory, manifest_of(directory))
    text = json.loads((directory / MANIFEST).read_text())
    del text["underlyings"]["NIFTY"]["files"]["gaps"]
    (directory / MANIFEST).write_text(json.dumps(text))
    with pytest.raises(ColdStoreError, match="the files of NIFTY"):
        read_manifest(directory)


def test_file_of_another_content_is_refused(directory: Path) -> None:
    slice = slice_of(directory)
    check_files(directory, slice)
    (directory / slice.files["gaps"].path).write_bytes(b"abd")
    with pytest.raises(ColdStoreError, match="its checksum is another"):
        check_files(directory, slice)


def test_parts_of_an_export_that_broke_off_go(directory: Path) -> None:
    part = directory / "underlying=NIFTY" / "contracts.parquet.part"
    part.touch()
    slice = slice_of(directory)
    remove_parts(directory)
    assert not part.exists()
    check_files(directory, slice)
