"""Recorded provider bodies: which file answers which request, and when it was received.

A recordings index is a JSON list of objects with `file`, `url`, `request_body`, `http_status` and
`http_date`, beside the files it names.
"""

from collections.abc import Iterator
from datetime import date
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pipeline.clock import parse_instant, to_ns
from pipeline.dhan import (
    CHAIN_PATH,
    EXPIRIES_PATH,
    UNDERLYINGS,
    DhanUnderlying,
    request_context,
    underlyings_named,
)
from pipeline.errors import ConfigError
from pipeline.models import RAW_CHAIN_TYPE, RAW_EXPIRIES_TYPE, RequestContext

INDEX_PATTERN = "*index.json"
_KINDS = {CHAIN_PATH: RAW_CHAIN_TYPE, EXPIRIES_PATH: RAW_EXPIRIES_TYPE}


class Recording(msgspec.Struct, frozen=True):
    """A body with what is needed to replay it. `kind` is the type of its raw entry."""

    path: Path
    kind: str
    context: RequestContext
    ts_ingest: int
    body: bytes


class _Indexed(msgspec.Struct):
    file: str
    url: str
    request_body: str = ""
    http_status: int = 200
    http_date: str = ""


class _Request(msgspec.Struct):
    UnderlyingScrip: int
    UnderlyingSeg: str
    Expiry: date | None = None


def described(path: Path, underlying: str, expiry: date | None, at: str) -> Recording:
    """A recording that the caller describes. Raises ConfigError."""
    (known,) = underlyings_named([underlying], "--underlying")
    url_path = CHAIN_PATH if expiry else EXPIRIES_PATH
    return _recording(path, known, url_path, expiry, parse_instant(at), 200, None)


def indexed(paths: list[Path], index: Path | None = None) -> Iterator[Recording]:
    """The recordings that an index describes; a path may be a body, an index or a directory.

    Given a directory or an index, everything in it that can be replayed. Raises ConfigError.
    """
    for path in paths:
        if path.is_dir() or path.match(INDEX_PATTERN):
            own = path if path.is_file() else _index_beside(path / "any")
            for entry in _read_index(own):
                if _url_path(entry) in _KINDS and entry.http_status == 200:
                    yield _from_index(own.parent / entry.file, entry)
        else:
            own = index or _index_beside(path)
            entries = {entry.file: entry for entry in _read_index(own)}
            if path.name not in entries:
                raise ConfigError(f"{path.name} is not in {own}; say --underlying, --expiry, --at")
            yield _from_index(path, entries[path.name])


def _from_index(path: Path, entry: _Indexed) -> Recording:
    url_path = _url_path(entry)
    if url_path not in _KINDS:
        raise ConfigError(f"{path.name}: answers of {url_path} cannot be replayed")
    try:
        asked = msgspec.json.decode(entry.request_body, type=_Request)
        received = to_ns(parsedate_to_datetime(entry.http_date))
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path.name}: its index entry is unusable: {error}") from error
    for underlying in UNDERLYINGS.values():
        if underlying.security_id == asked.UnderlyingScrip:
            return _recording(
                path,
                underlying,
                url_path,
                asked.Expiry,
                received,
                entry.http_status,
                entry.http_date,
            )
    raise ConfigError(f"{path.name}: no underlying has id {asked.UnderlyingScrip}")


def _recording(
    path: Path,
    underlying: DhanUnderlying,
    url_path: str,
    expiry: date | None,
    ts_ingest: int,
    status: int,
    http_date: str | None,
) -> Recording:
    context = request_context(
        underlying,
        expiry,
        provider="dhan",
        path=url_path,
        status=status,
        http_date=http_date,
        origin="replay",
    )
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return Recording(path, _KINDS[url_path], context, ts_ingest, body)


def _url_path(entry: _Indexed) -> str:
    return urlsplit(entry.url).path.removeprefix("/v2")


def _index_beside(path: Path) -> Path:
    found = sorted(path.parent.glob(INDEX_PATTERN))
    if len(found) != 1:
        raise ConfigError(
            f"{path.parent} has {len(found) or 'no'} recordings index; say --index, or "
            "--underlying, --expiry and --at"
        )
    return found[0]


def _read_index(path: Path) -> list[_Indexed]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[_Indexed])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no recordings index: {error}") from error
