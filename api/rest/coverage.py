"""What every history says of itself in `meta.coverage`: how much was to come, what is there, why
not more.
"""

from typing import Any

from api.gateway import database_of, gateway_of
from api.rest.answers import AnyRequest, instant
from api.rest.query import symbol_of
from pipeline.coverage import Gap, Summary, closed_summary, summary
from pipeline.models import ChainId, ContractId, chain_symbol


async def coverage_of(
    request: AnyRequest, symbol: str | None, start_ns: int, end_ns: int, form: str
) -> dict[str, Any]:
    """The coverage of a range of an underlying, a chain, a contract, or of all chains there are
    (None), from one query."""
    now_ns = gateway_of(request).clock.now_ns()
    whose = None if symbol is None else covered(symbol)
    told = await summary(database_of(request), whose, start_ns, end_ns, now_ns)
    return coverage_values(told, form)


def uncounted(
    request: AnyRequest, symbol: str | None, start_ns: int, end_ns: int, form: str
) -> dict[str, Any]:
    """The coverage of what nobody counts: when it could not be, and null for the rest."""
    told = closed_summary(symbol, start_ns, end_ns, gateway_of(request).clock.now_ns())
    counts = ("expected", "present", "missed_upstream", "missed_us")
    return coverage_values(told, form) | dict.fromkeys(counts)


def covered(symbol: str) -> str:
    """Whose coverage a symbol has: a contract that of its chain."""
    found = symbol_of(symbol)
    return chain_symbol(found.underlying, found.expiry) if isinstance(found, ContractId) else symbol


def expiry_or_all(underlying: str, expiry: Any) -> str:
    """The symbol behind an underlying's history: one chain's, or its own."""
    return underlying if expiry is None else chain_symbol(*ChainId(underlying, expiry))


def coverage_values(told: Summary, form: str) -> dict[str, Any]:
    """A summary as it stands in `meta`."""
    counts = told.counts
    return {
        "symbol": told.symbol,
        "start": instant(told.starts, form),
        "end": instant(told.ends, form),
        "expected": counts.expected,
        "present": counts.present,
        "missed_upstream": counts.upstream,
        "missed_us": counts.us,
        "complete": told.is_complete,
        "gaps": [gap_values(gap, form) for gap in told.gaps],
        "gaps_cut": told.is_cut,
    }


def gap_values(gap: Gap, form: str) -> dict[str, Any]:
    """A gap as clients see it; what closed hours do not have is null."""
    return {
        "start": instant(gap.starts, form),
        "end": instant(gap.ends, form),
        "cause": gap.cause,
        "symbol": gap.symbol or None,
        "detail": gap.detail or None,
        "missed": gap.missed,
    }
