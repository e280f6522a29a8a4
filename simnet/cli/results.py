"""Commands that read what runs left (floor F5): `simnet report`, `simnet compare`."""

import json
from pathlib import Path

import click

from simnet.cli.status import plainly
from simnet.reports import compare
from simnet.reports.report import REPORT_FILE, write_csv, write_plots, write_report
from simnet.reports.tables_read import RunTables


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


@click.command("compare")
@click.argument("one", metavar="A", type=click.Path(path_type=Path))
@click.argument("other", metavar="B", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE", help="Draw both on one HTML page too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def compare_command(one: Path, other: Path, out: str | None, as_json: bool) -> None:
    """Two runs: what was set otherwise, and what came of it."""
    folders = (one, other)
    rows, changed = compare.figures(folders), compare.differences(*folders)
    if out:
        compare.write_comparison(folders, Path(out))
    if as_json:
        told = {
            "set": {key: [first, second] for key, first, second in changed},
            "figures": {label: [first, second] for label, first, second in rows},
        }
        click.echo(json.dumps(told))
        return
    for key, first, second in changed:
        click.echo(f"set {key}: {first} -> {second}")
    for label, left, right in rows:
        change = compare.change(left, right)
        click.echo(f"{label:40} {left:12.4g} {right:12.4g}  {change}")
    if out:
        click.echo(f"wrote {out}")
