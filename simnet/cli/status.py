"""What a command says when its input is wrong, and of a run that is over (floor F5)."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import click

from protocol.errors import ConfigError
from protocol.units import format_credits
from simnet.runs import directory as run_directory


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Wrong input is one line with a code, and status 2."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except ConfigError as error:
            _refuse(error.code, error.detail)

    return run


def _refuse(code: str, detail: str) -> NoReturn:
    detail = " ".join(detail.split("\n"))
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": code, "detail": detail}))
    click.echo(f"simnet: {code}: {detail}", err=True)
    sys.exit(2)


class OneLineGroup(click.Group):
    """Commands whose wrong use is one line as well."""

    def invoke(self, ctx: click.Context) -> Any:
        """As Group's."""
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            help_at = f" See `{error.ctx.command_path} --help`." if error.ctx else ""
            _refuse("config.usage", f"{error.format_message().rstrip('.')}.{help_at}")


def told(summary: dict[str, Any]) -> str:
    """A summary for a person."""
    lines = [
        f"{summary['done']} of {summary['requests']} requests done, {summary['failed']} failed, "
        f"{format_credits(summary['paid_ucr'])} credits paid, {summary['bids']} bids"
    ]
    for name, what in (("award_ms", "award"), ("first_text_ms", "first text")):
        if summary[name]:
            times = "  ".join(f"{part} {value:.0f}" for part, value in summary[name].items())
            lines.append(f"{what} after ms: {times}")
    if summary["failures"]:
        told = ", ".join(f"{count} {code}" for code, count in summary["failures"].items())
        lines.append(f"failures: {told}")
    lines.append(
        f"{summary['virtual_s']:.0f} virtual s in {summary['cpu_s']:.1f} CPU s, "
        f"{summary['events']} events ({summary['events_per_cpu_s'] // 1_000} k/s), "
        f"{summary['rss_mib']} MiB"
    )
    lines += [_tier(summary)] if "tier" in summary else []
    lines += [f"CHECK FAILED: {fault}" for fault in summary["faults"]]
    if "failure" in summary:
        made = f"seed {summary['seed']}, commit {run_directory.commit() or 'unknown'}"
        lines.append(f"{made}; see what led to it: simnet replay {summary['run_dir']}")
    if "shrunk" in summary:
        lines.append(f"smaller: simnet run {summary['shrunk']} --seed {summary['seed']}")
    if not summary["complete"]:
        lines.append(f"INCOMPLETE: stopped by {summary['stopped_by']}")
    lines.append(f"trace {summary['trace_hash']}  seed {summary['seed']}")
    lines.append(f"in {summary['run_dir']}")
    return "\n".join(lines)


def _tier(summary: dict[str, Any]) -> str:
    """Of a run in another tier: what it has in common with the event heap's."""
    told = f"tier {summary['tier']}"
    found = summary.get("decisions")
    if summary["tier"] == "trio" and found is None:
        return f"{told}: stopped, and not compared with des"
    if found is None:
        return f"{told}: libp2p on loopback, by the wall clock; all nodes share this machine"
    same = "as" if found["same_decisions"] else "not all as"
    logs = "equal to the byte"
    if not found["same_logs"]:
        logs = f"of {found['nodes_with_other_logs']} nodes differ ({found['differences'][0]})"
    return (
        f"{told}: {found['decisions']} decisions, {same} in des; "
        f"logs of {found['records']} records {logs}; {found['des_cpu_s']:.1f} CPU s in des"
    )
