"""The command `simnet calibrate`."""

import json
from typing import Any

import click

from simnet.cli.status import plainly


@click.command("calibrate")
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Each takes half a minute; costs are the median.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def calibrate_command(rounds: int, quiet: bool, as_json: bool) -> None:
    """Fit the gossip model's costs to py-libp2p on this machine, and say what error remains.

    The result is a [costs] table for a scenario file. Let nothing else run meanwhile.
    """
    # Here, as it takes a second to import libp2p.
    from simnet.tiers.calibration import calibrate

    def tell(line: str) -> None:
        if not quiet:
            click.echo(f"simnet: {line}", err=True)

    found = calibrate(rounds, tell)
    click.echo(json.dumps(found) if as_json else calibrated(found))


def calibrated(found: dict[str, Any]) -> str:
    """A calibration for a person, to paste into a scenario."""
    lines = ["[costs]"]
    for name, value in found["costs"].items():
        spread = found["spread_percent"].get(name)
        varied = f", from round to round {spread} %" if spread is not None else ""
        lines.append(f"{name} = {value}  # default {found['defaults'][name]}{varied}")
    lines += ["", f"{'the model against it':44} {'libp2p':>10} {'model':>10} {'error':>8}"]
    for check in found["checks"]:
        row = f"{check['what']:44} {check['libp2p']:10.2f} {check['model']:10.2f}"
        lines.append(f"{row} {check['error_percent']:+6.1f} %")
    return "\n".join(lines)
