"""`stockify bench NAME`: measurements, each of which starts and stops what it needs.

A bench prints a table, and with `--json` one object on stdout. What it reports is measured in that
run; figures of different machines do not compare, so look at ratios within one run.
"""

import importlib
import sys
from types import ModuleType

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stockify.bench.report import Grid, MissingPeer, Report

BENCHES = {
    "bus": ("stockify.bench.bus", "frames appended and read by one process, beside other people's"),
    "cluster": ("stockify.bench.cluster", "frames/s on one server and a cluster, by shards"),
    "faults": (
        "stockify.bench.faults.measuring",
        "what is lost or double after each of eleven faults",
    ),
    "gateway": ("stockify.bench.gateway", "messages and answers to clients, beside other servers"),
    "kernels": ("stockify.bench.kernels", "volatility and Greeks beside other solvers"),
    "processor": ("stockify.bench.processor", "raw entry to enriched entry, one process"),
    "storage": (
        "stockify.bench.storage",
        "rows into Postgres beside the server alone and other drivers; reads",
    ),
    "spine": ("stockify.bench.spine", "raw to Postgres throughput, raw to WebSocket latency"),
}


@click.command("bench")
@click.argument("name", type=click.Choice(sorted(BENCHES)))
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
@click.option("--quick", is_flag=True, help="a tenth of the work: to see that it runs")
@click.option("--only", default="", help="one part of a bench that has parts, by name")
@click.option("--timescale-url", default="", help="storage: an empty database to fill with columns")
def command(name: str, as_json: bool, quick: bool, only: str, timescale_url: str) -> None:
    """Measure, and print a table."""
    module: ModuleType = importlib.import_module(BENCHES[name][0])
    parts: tuple[str, ...] = getattr(module, "PARTS", ())
    if only and only not in parts:
        known = f"want one of {', '.join(parts)}" if parts else f"{name} has no parts"
        raise click.BadParameter(known, param_hint="--only")
    chosen = {"only": only} if only else {}
    if timescale_url:
        if not getattr(module, "TAKES_TIMESCALE", False):
            raise click.BadParameter(f"{name} takes none", param_hint="--timescale-url")
        chosen["timescale_url"] = timescale_url
    progress = Console(stderr=True)
    try:
        report: Report = module.measure(progress.print, quick=quick, **chosen)
    except MissingPeer as missing:
        click.echo(f"stockify bench {name}: {missing}; run make setup-bench", err=True)
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode(report.figures))
    else:
        console = Console()
        if report.lines:
            console.print(_table(report))
        for grid in report.grids:
            console.print(_grid(grid))


def _table(report: Report) -> Table:
    table = Table(title=report.title, caption=report.caption)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    has_targets = any(line.target for line in report.lines)
    if has_targets:
        table.add_column("target", justify="right")
    for line in report.lines:
        cells = (line.name, f"{line.value:,.{line.digits}f}", line.unit, line.target)
        table.add_row(*cells[: 4 if has_targets else 3])
    return table


def _grid(grid: Grid) -> Table:
    table = Table(title=grid.title, caption=grid.caption or None, box=SIMPLE_HEAD, padding=(0, 0))
    table.add_column("", no_wrap=True)
    for column in grid.columns:
        table.add_column(column.head, justify="right")
    for row, values in grid.rows.items():
        cells = (
            f"{values[column.key]:{column.form}}" if column.key in values else "–"
            for column in grid.columns
        )
        table.add_row(row, *cells)
    return table
