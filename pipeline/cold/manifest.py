"""What a day of the cold store consists of: written behind the files, checked before they are read.

A manifest never speaks of a file that is not whole and on the disk. Never opens a database, and
knows nothing of what stands inside a file.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.cold.datasets import DATASETS, SCHEMA_VERSION
from pipeline.errors import ColdStoreError

FORMAT: Literal["stockify-cold"] = "stockify-cold"
MANIFEST = "manifest.json"
_HASHED = "sha256"


class StoredFile(msgspec.Struct, frozen=True):
    """A file as it was written: its path below the day's directory, and what it must hold."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Slice(msgspec.Struct, frozen=True):
    """One underlying of a day: its files by dataset, the revisions in them, and its ledger.

    `ledger_sha256` is of the sorted message ids and their rows, by which two exports are compared.
    """

    files: dict[str, StoredFile]
    revisions: tuple[int, ...]
    ledger_lines: int
    ledger_sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A day; `complete` says that no underlying of it was left out when it was written."""

    format: Literal["stockify-cold"] = FORMAT
    schema_version: int = SCHEMA_VERSION
    day: date
    complete: bool = False
    written_at: str
    underlyings: dict[str, Slice] = {}

    @property
    def ledger_lines(self) -> int:
        """Lines of the ledger of all underlyings."""
        return sum(slice.ledger_lines for slice in self.underlyings.values())


def directory_of(root: Path, day: date) -> Path:
    """Where a day lies below the cold store."""
    return root / f"day={day.isoformat()}"


def file_path(underlying: str, dataset: str) -> str:
    """Where a file lies below its day's directory."""
    return f"underlying={underlying}/{dataset}.parquet"


def ledger_hash(lines: Iterable[tuple[str, int]]) -> str:
    """The hash of lines of the ledger, each a message id and the rows that it brought."""
    text = "".join(f"{id} {rows}\n" for id, rows in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a day's directory; None where there is none. Raises ColdStoreError."""
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ColdStoreError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ColdStoreError(f"{path} is no manifest of a day: {error}") from error
    if manifest.schema_version > SCHEMA_VERSION:
        raise ColdStoreError(
            f"{path} has schema version {manifest.schema_version}, and this version of stockify "
            f"reads up to {SCHEMA_VERSION}"
        )
    if directory_of(directory.parent, manifest.day) != directory:
        raise ColdStoreError(f"{path} is of {manifest.day}, which is not what its directory says")
    _check_paths(path, manifest)
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before, at once and durably. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    part = directory / f"{MANIFEST}.part"
    with part.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(directory / MANIFEST)
    sync_directory(directory)


def describe_file(written: Path, path: str, rows: int) -> StoredFile:
    """A file that was just written and will stand at `path`; it is on the disk afterwards."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, _HASHED).hexdigest()
        return StoredFile(path, rows, os.fstat(file.fileno()).st_size, digest)


def check_files(directory: Path, slice: Slice) -> None:
    """Raise ColdStoreError unless every file of a slice is the one that was written."""
    for stored in slice.files.values():
        path = directory / stored.path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != stored.bytes:
                    raise ColdStoreError(f"{path} has {size} bytes, and had {stored.bytes}")
                if hashlib.file_digest(file, _HASHED).hexdigest() != stored.sha256:
                    raise ColdStoreError(f"{path} is damaged: its checksum is another")
        except OSError as error:
            raise ColdStoreError(f"{path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(directory: Path) -> None:
    """Take away what an export left that did not get to its end."""
    for part in directory.rglob("*.part"):
        with suppress(FileNotFoundError):
            part.unlink()


def _check_paths(path: Path, manifest: Manifest) -> None:
    """A path leads to where the exporter writes, and never out of the day's directory."""
    names = {dataset.name for dataset in DATASETS}
    for underlying, slice in manifest.underlyings.items():
        if not underlying or "/" in underlying or underlying.startswith("."):
            raise ColdStoreError(f"{path}: {underlying!r} is no underlying")
        if slice.files.keys() != names:
            raise ColdStoreError(f"{path}: the files of {underlying} are not {sorted(names)}")
        for name, stored in slice.files.items():
            if stored.path != file_path(underlying, name):
                raise ColdStoreError(f"{path}: {stored.path!r} is no place for {name}")
