"""Which format a client gets, and which coding of it."""

import gzip

import pytest
import zstandard

from api.errors import ApiError
from api.rest.compression import coding_of, compressed, compressor_of
from api.rest.formats import OF_LISTS, OF_OBJECTS, Format, negotiate
from api.rest.query import Query


def told(accept: str | None, name: str | None = None, **options: object) -> Format:
    possible = options.get("possible", OF_LISTS)
    assert isinstance(possible, tuple)
    return negotiate(name, accept, possible, default=Format.JSON)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        pytest.param(None, Format.JSON, id="nothing-said"),
        pytest.param("*/*", Format.JSON, id="anything"),
        pytest.param("text/csv", Format.CSV, id="csv"),
        pytest.param("application/vnd.apache.arrow.stream", Format.ARROW, id="arrow"),
        pytest.param("application/vnd.apache.parquet", Format.PARQUET, id="parquet"),
        pytest.param("APPLICATION/MsgPack", Format.MSGPACK, id="upper-case"),
        pytest.param("application/x-msgpack", Format.MSGPACK, id="other-name"),
        pytest.param("application/jsonl", Format.NDJSON, id="other-name-of-lines"),
        pytest.param("text/*", Format.CSV, id="range"),
        pytest.param("application/*", Format.JSON, id="range-with-the-default"),
        pytest.param("text/csv;q=0.5, application/json", Format.JSON, id="weights"),
        pytest.param("application/json;q=0.5, text/csv;q=0.9", Format.CSV, id="both-weighted"),
        pytest.param("text/csv, application/json", Format.CSV, id="of-equals-the-first"),
        pytest.param("text/html, application/xml;q=0.9, */*;q=0.8", Format.JSON, id="browser"),
        pytest.param("application/json;q=0, */*", Format.MSGPACK, id="refused"),
        pytest.param("text/csv; charset=utf-8", Format.CSV, id="other-parameters"),
    ],
)
def test_accept_chooses(accept: str | None, kind: Format) -> None:
    assert told(accept) is kind


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/csv;q=x", "json"])
def test_what_cannot_be_had_is_not_acceptable(accept: str) -> None:
    with pytest.raises(ApiError) as caught:
        told(accept)
    assert (caught.value.status, caught.value.code) == (406, "not_acceptable")


def test_parameter_wins_over_accept() -> None:
    assert told("text/html", "csv") is Format.CSV
    with pytest.raises(ApiError) as caught:
        told("text/csv", "xml")
    assert caught.value.status == 400


def test_object_has_no_rows() -> None:
    with pytest.raises(ApiError) as caught:
        told(None, "csv", possible=OF_OBJECTS)
    assert caught.value.status == 406
    assert told("text/csv, application/json;q=0.1", possible=OF_OBJECTS) is Format.JSON


def test_every_query_knows_the_format_but_bare_ones() -> None:
    assert Query().parse([("format", "arrow")]) == {"format": "arrow"}
    for query, text in ((Query(), "xml"), (Query(is_bare=True), "csv")):
        with pytest.raises(ApiError) as caught:
            query.parse([("format", text)])
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("said", "coding"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("gzip, deflate, br", "gzip", id="gzip"),
        pytest.param("gzip, deflate, br, zstd", "zstd", id="browser"),
        pytest.param("zstd;q=0.1, gzip", "gzip", id="weights"),
        pytest.param("zstd;q=0, *", "gzip", id="refused"),
        pytest.param("*", "zstd", id="anything"),
        pytest.param("identity, gzip;q=0.5", None, id="as-it-is"),
        pytest.param("gzip;q=0", None, id="none"),
        pytest.param("br", None, id="unknown"),
    ],
)
def test_coding_is_one_that_the_client_takes(said: str, coding: str | None) -> None:
    assert coding_of(said) == coding


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_compressed_body_is_the_body(coding: str) -> None:
    body = b"NIFTY-20260127-25000-CE" * 1_000

    def opened(data: bytes) -> bytes:
        if coding == "gzip":
            return gzip.decompress(data)
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)

    assert opened(compressed(body, coding)) == body
    compressor = compressor_of(coding)
    pieces = [compressor.compress(body[n : n + 1_000]) for n in range(0, len(body), 1_000)]
    assert opened(b"".join([*pieces, compressor.flush()])) == body
