"""`stockify bench NAME`: measurements, each of which starts and stops what it needs.

A bench prints a table, and with `--json` one object on stdout. What it reports is measured in that
run; figures of different machines do not compare, so look at ratios within one run.
"""

import importlib
import sys
from types import ModuleType

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stockify.bench.report import MissingPeer, Report

BENCHES = {
    "spine": ("stockify.bench.spine", "raw to Postgres throughput, raw to WebSocket latency"),
}


@click.command("bench")
@click.argument("name", type=click.Choice(sorted(BENCHES)))
@click.option("--json", "as_json", is_flag=True, help="one JSON object on stdout")
@click.option("--quick", is_flag=True, help="a tenth of the work: to see that it runs")
def command(name: str, as_json: bool, quick: bool) -> None:
    """Measure, and print a table."""
    module: ModuleType = importlib.import_module(BENCHES[name][0])
    progress = Console(stderr=True)
    try:
        report: Report = module.measure(progress.print, quick=quick)
    except MissingPeer as missing:
        click.echo(f"stockify bench {name}: {missing}; run make setup-bench", err=True)
        sys.exit(2)
    if as_json:
        click.echo(msgspec.json.encode(report.figures))
    else:
        Console().print(_table(report))


def _table(report: Report) -> Table:
    table = Table(title=report.title, caption=report.caption)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for line in report.lines:
        table.add_row(line.name, f"{line.value:,.{line.digits}f}", line.unit)
    return table
