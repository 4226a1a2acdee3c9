"""`stockify compare`: our call and put volatilities beside the provider's, from recorded bodies.

Offline: it needs no instance. The gap between call and put at one strike is what a wrong forward
leaves behind.
"""

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from pipeline import config, dhan_chain, enrich
from pipeline.clock import to_rfc3339
from pipeline.errors import StockifyError
from pipeline.models import RAW_CHAIN_TYPE, EnrichedChain
from pipeline.parity import STRIKES, ParityGap, parity_gap
from stockify import recordings


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded chain compared; volatility gaps in vol points."""

    file: str
    chain: str
    received: str
    spot: float | None
    forward: float | None
    forward_source: str
    strikes: int
    computed_median: float
    computed_max: float
    provided_median: float
    provided_max: float


@click.command("compare")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--index", type=click.Path(exists=True, path_type=Path), help="recordings index")
@click.option("--strikes", default=STRIKES, show_default=True, help="strikes round the money")
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
def command(paths: tuple[Path, ...], index: Path | None, strikes: int, as_json: bool) -> None:
    """Compare call and put volatilities, ours and the provider's, on recorded chains."""
    try:
        compared = _compare(list(paths), index, strikes)
    except StockifyError as error:
        sys.exit(f"stockify compare: {error}")
    if not compared:
        sys.exit("stockify compare: no chain among these files can be compared")
    if as_json:
        summaries = [summary for summary, _gap in compared]
        click.echo(msgspec.json.encode({"chains": summaries}))
        return
    console = Console()
    for summary, gap in compared:
        console.print(_table(summary, gap))


def _compare(
    paths: list[Path], index: Path | None, strikes: int
) -> list[tuple[Comparison, ParityGap]]:
    settings = config.load()
    compared = []
    for recording in recordings.indexed(paths, index):
        if recording.kind != RAW_CHAIN_TYPE:
            continue
        snapshot = dhan_chain.map_chain(recording.body, recording.context, recording.ts_ingest)
        chain = enrich.enrich(snapshot, rate=settings.rate)
        gap = parity_gap(chain, strikes)
        if gap is not None:
            compared.append((_summary(recording.path.name, chain, gap), gap))
    return compared


def _summary(file: str, chain: EnrichedChain, gap: ParityGap) -> Comparison:
    header = chain.header
    return Comparison(
        file=file,
        chain=header.chain,
        received=to_rfc3339(header.ts_ingest),
        spot=header.spot,
        forward=None if header.forward is None else round(header.forward, 2),
        forward_source=header.forward_source,
        strikes=len(gap.strikes),
        computed_median=round(gap.computed_median, 2),
        computed_max=round(gap.computed_max, 2),
        provided_median=round(gap.provided_median, 2),
        provided_max=round(gap.provided_max, 2),
    )


def _table(summary: Comparison, gap: ParityGap) -> Table:
    table = Table(
        title=f"{summary.chain}, received {summary.received}: spot {summary.spot}, "
        f"forward {summary.forward} ({summary.forward_source})",
        caption=f"{summary.file}; percent; gap = |call − put| in vol points; "
        "0.00 stands where the provider gave a traded leg no volatility",
    )
    table.add_column("strike", justify="right")
    for whose in ("ours", "provider"):
        for what in ("call", "put", "gap"):
            table.add_column(f"{whose} {what}", justify="right")
    for row in zip(
        gap.strikes,
        gap.call_iv,
        gap.put_iv,
        gap.computed,
        gap.call_iv_provider,
        gap.put_iv_provider,
        gap.provided,
        strict=True,
    ):
        table.add_row(f"{row[0]:g}", *(f"{value:.2f}" for value in row[1:]))
    table.add_section()
    for name, ours, theirs in (
        ("median", summary.computed_median, summary.provided_median),
        ("maximum", summary.computed_max, summary.provided_max),
    ):
        table.add_row(name, "", "", f"{ours:.2f}", "", "", f"{theirs:.2f}", style="bold")
    return table
