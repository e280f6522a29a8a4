"""Commands that read what runs left (floor F5): `simnet report`."""

import json
from pathlib import Path

import click

from simnet.cli_status import plainly
from simnet.report import REPORT_FILE, write_csv, write_plots, write_report
from simnet.tables_read import RunTables


@click.command("report")
@click.argument("run_dir", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", help="The page  [default: RUN_DIR/report.html]")
@click.option("--plots", type=click.Choice(["png", "svg"]), help="Each plot as a file too.")
@click.option("--csv", "as_csv", is_flag=True, help="Each table as CSV too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def report_command(
    run_dir: Path, out: str | None, plots: str | None, as_csv: bool, as_json: bool
) -> None:
    """Draw a run: one HTML page that needs nothing else, to look at or to pass on."""
    run = RunTables(run_dir)
    page = Path(out) if out else run_dir / REPORT_FILE
    size = write_report(run, page)
    files = write_plots(run, page.parent / "plots", plots) if plots else []
    files += write_csv(run, run_dir / "csv") if as_csv else []
    if as_json:
        told = {"report": str(page), "bytes": size, "files": [str(path) for path in files]}
        click.echo(json.dumps(told))
        return
    click.echo(f"wrote {page} ({size // 1_000} kB)")
    for path in files:
        click.echo(f"wrote {path}")
