"""What files of the cold store hold: their columns, as SQL names the types, in order.

A file is of one underlying and one exchange day, so neither is a column: they stand in its path.
The orders of COPY here are those of `sql/queries/cold.sql`. Opens nothing.
"""

from typing import NamedTuple

from pipeline.rows import COPY_COLUMNS, DOUBLES, INTEGERS, SHORTS, SINGLES, WIDES

SCHEMA_VERSION = 1  # of the files; raised when a reader of the version before would go wrong


class Dataset(NamedTuple):
    """A kind of file: `columns` are names and SQL types, `says` is for people."""

    name: str
    columns: tuple[tuple[str, str], ...]
    says: str

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.columns)

    @property
    def types(self) -> tuple[str, ...]:
        """The columns' SQL types."""
        return tuple(kind for _, kind in self.columns)


_TYPES_OF_LEGS = {
    "ts": "timestamptz",
    "instrument_id": "integer",
    "rev": "smallint",
    **dict.fromkeys(WIDES, "bigint"),
    **dict.fromkeys(INTEGERS, "integer"),
    **dict.fromkeys((*DOUBLES, *SINGLES), "real"),
    **dict.fromkeys(SHORTS, "smallint"),
}
# Legs as COPY sends them, and what is known of them by their instrument.
SENT_LEGS = tuple((name, _TYPES_OF_LEGS[name]) for name in COPY_COLUMNS)
OF_INSTRUMENT = (
    ("symbol", "text"),
    ("expiry", "date"),
    ("strike", "double precision"),
    ("kind", "text"),
    ("provider", "text"),
)

CONTRACTS = Dataset(
    "contracts",
    (
        ("ts", "timestamptz"),
        *OF_INSTRUMENT,
        ("rev", "smallint"),
        *((name, kind) for name, kind in SENT_LEGS if name not in ("ts", "instrument_id", "rev")),
        ("instrument_id", "integer"),
    ),
    "a row a leg of every snapshot, as in `option_contracts`, with what its instrument says",
)
SNAPSHOTS = Dataset(
    "snapshots",
    (
        *((name, "timestamptz") for name in ("ts", "ts_event", "ts_enrich")),
        *((name, "bigint") for name in ("seq", "call_open_interest", "put_open_interest")),
        *((name, "double precision") for name in ("spot", "forward", "discount", "years", "rate")),
        *((name, "double precision") for name in ("forward_residual", "atm_strike", "atm_iv")),
        ("put_call_ratio_open_interest", "double precision"),
        ("put_call_ratio_volume", "double precision"),
        ("max_pain", "double precision"),
        ("expiry", "date"),
        *((name, "integer") for name in ("lot", "forward_pairs", "n")),
        ("rev", "smallint"),
        *((name, "text") for name in ("provider", "epoch", "model", "forward_source")),
        *((name, "double precision") for name in ("skew_25_delta", "gamma_exposure")),
        ("expected_move", "double precision"),
        *((f"smile_{name}", "double precision") for name in ("a", "b", "rho", "m", "sigma")),
        ("smile_error", "double precision"),
        ("smile_points", "integer"),
        ("smile_status", "text"),
    ),
    "a row a snapshot of a chain, as in `market_snapshots`",
)
INSTRUMENTS = Dataset(
    "instruments",
    (
        ("instrument_id", "integer"),
        *OF_INSTRUMENT,
        ("security_id", "bigint"),
        ("lot", "integer"),
        ("valid_from", "timestamptz"),
        ("valid_to", "timestamptz"),
    ),
    "every definition of the contracts that have rows that day; `valid_to` NULL: it still holds",
)
LEDGER = Dataset(
    "ledger",
    (
        ("id", "text"),
        ("stream_id", "text"),
        ("ts", "timestamptz"),
        ("n", "integer"),
        ("rejected", "smallint"),
    ),
    "the lines of the entries that brought the rows, by which an import knows what is there",
)
COVERAGE = Dataset(
    "coverage",
    (
        ("minute", "timestamptz"),
        ("symbol", "text"),
        ("provider", "text"),
        ("expected", "integer"),
        ("present", "integer"),
    ),
    "snapshots by minute and chain: how many were to come, and how many came",
)
GAPS = Dataset(
    "gaps",
    (
        ("starts", "timestamptz"),
        ("ends", "timestamptz"),
        ("missed", "integer"),
        *((name, "text") for name in ("symbol", "provider", "cause", "detail")),
    ),
    "time in which snapshots were due and none came, and why",
)
DATASETS = (CONTRACTS, SNAPSHOTS, INSTRUMENTS, LEDGER, COVERAGE, GAPS)
