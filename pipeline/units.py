"""The units of what rows are made of, by the names of their fields. Pure."""

from pipeline.models import LEG_COLUMNS

# Of a chain, of a snapshot, of a candle and of a contract's definition; a ratio has none.
_OF_CHAINS = {
    **dict.fromkeys(("spot", "forward", "atm_strike", "max_pain", "expected_move"), "rupees"),
    **dict.fromkeys(("basis", "tick"), "rupees"),
    **dict.fromkeys(("open", "high", "low", "close"), "rupees"),
    **dict.fromkeys(("atm_iv", "forward_iv", "skew_25_delta", "rate", "carry"), "per year"),
    **dict.fromkeys(("lot", "last_size"), "units"),
    **dict.fromkeys(("call_open_interest", "put_open_interest"), "units"),
    "years": "years",
    "forward_residual": "rupees",
    "gamma_exposure": "rupees of delta for 1 % of the forward",
}
UNITS: dict[str, str] = {
    **{column.name: column.unit for column in LEG_COLUMNS if column.unit},
    **_OF_CHAINS,
}


def unit_metadata(name: str) -> dict[str, str] | None:
    """What a column of that name says of its unit in a schema; None where it has none."""
    return {"unit": UNITS[name]} if name in UNITS else None
