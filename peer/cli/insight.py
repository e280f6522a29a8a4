"""`peerd explain`, `peerd reputation` and `peerd feedback`: why, whom, and what came of it."""

import json
import time
from pathlib import Path
from typing import Any

import click
import trio
from rich.table import Table

from peer.cli.books import read_ledger
from peer.cli.options import data_option, json_option, load_node
from peer.cli.screen import Listing, short, table_console
from peer.control import call_control, daemon_answers
from peer.insight import VERDICTS, explain_from_log, id_prefix, standings_json
from protocol.units import format_credits

Json = dict[str, Any]

_AGAINST = ("failed", "refused", "lied", "unreached")


def _from_daemon(directory: Path, method: str, params: Json) -> Json | None:
    """The daemon's answer; None when none runs."""
    found: list[Json] = []

    async def call() -> None:
        if await daemon_answers(directory):
            await call_control(directory, method, params, found.append)

    trio.run(call)
    return found[0] if found else None


@click.command("explain")
@click.argument("request")
@data_option
@json_option
def explain_command(directory: Path, request: str, as_json: bool) -> None:
    """Say why REQUEST (the first digits of its id do) went where it went.

    A running daemon knows every bid of its last requests; the log knows the awards of all.
    """
    load_node(directory, {})
    wanted = id_prefix(request, "request")
    found = _from_daemon(directory, "explain", {"request_id": request})
    found = found or explain_from_log(directory, wanted)
    if as_json:
        click.echo(json.dumps(found))
        return
    console = table_console()
    console.print(f"request {found['request_id'][:16]} for {found['model']}")
    if found["source"] == "log":
        console.print("of an earlier run: the log has its awards, not its bids")
    if "weights" in found:
        parts = [f"{name} {weight}" for name, weight in found["weights"].items()]
        median = found["median_ucr"]
        usual = f"; the median is {format_credits(median)} credits" if median else ""
        console.print(f"weights in 1/1000: {', '.join(parts)}{usual}")
        console.print(_bids_table(found["bids"]))
        if found["asked_again"]:
            console.print("too few at half of the window: those withheld were asked for")
    for award in found["awards"]:
        console.print(_award_line(award))
    paid = format_credits(found["paid_ucr"])
    end = found["code"] or (f"receipt {found['receipt_id']}" if found["receipt_id"] else "")
    state = end or ("ended" if found["ended"] else "running")
    console.print(f"{state}; {paid} credits")


def _award_line(award: Json) -> str:
    outcome = award["outcome"] or "running"
    code = f" ({award['code']})" if award["code"] else ""
    paid = format_credits(award["paid_ucr"])
    role = award["role"]
    why = "" if role == "first" else f" ({role})"
    return f"awarded to {short(award['provider'])}{why}: {outcome}{code}, {paid} credits"


def _bids_table(bids: list[Json]) -> Table:
    table = Listing("bids and offers, best first")
    table.add_column("provider")
    table.add_column("from")
    table.add_column("quant")
    for name in ("at most", "takes", "reputation", "score"):
        table.add_column(name, justify="right")
    table.add_column("refused")
    for bid in bids:
        why = f"{bid['refused']}: {bid['reason']}" if bid["refused"] else ""
        table.add_row(
            short(bid["provider"]),
            bid["from"],
            bid["quantization"],
            format_credits(bid["cost_max_ucr"]),
            f"{bid['latency_ms']:.0f} ms",
            str(bid["reputation"]),
            f"{bid['score']:,}",
            why or ", ".join(_remarks(bid)),
        )
    return table


def _remarks(bid: Json) -> list[str]:
    last = ["suspended: tried last"] if bid["suspended"] else []
    return [*last, *_counts(bid)]


def _counts(row: Json) -> list[str]:
    """How its tokens differ from others', where they do: "counts 1.5 times the tokens"."""
    kinds = (("output_count", "tokens"), ("input_count", "tokens of prompts"))
    return [f"counts {row[key]:.1f} times the {name}" for key, name in kinds if row[key] > 1]


@click.command("reputation")
@data_option
@json_option
def reputation_command(directory: Path, as_json: bool) -> None:
    """List the providers that this node knows by its own jobs, best first."""
    signer, _ = load_node(directory, {})
    found = _from_daemon(directory, "reputation", {})
    if found is None:
        book = read_ledger(directory, signer.public_key).reputation
        found = {"providers": standings_json(book, time.time_ns())}
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Listing("providers, of 1000")
    numbers = ("score", "completed", "first_token_kept", "speed_kept")
    for name in ("provider", "model"):
        table.add_column(name)
    for name in numbers:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("feedback")
    table.add_column("against it")
    for row in found["providers"]:
        cells = [str(row[name]) for name in numbers]
        feedback = f"+{row['good_feedback']} -{row['bad_feedback']}"
        bad = [f"{row[name]} {name}" for name in _AGAINST if row[name]]
        bad += ["ejected"] if row["ejected"] else []
        against = ", ".join([*bad, *_counts(row)])
        table.add_row(short(row["provider"]), row["model"], *cells, feedback, against)
    table_console().print(table)


@click.command("feedback")
@click.argument("receipt")
@click.argument("verdict", type=click.Choice(list(VERDICTS)))
@data_option
@json_option
def feedback_command(directory: Path, receipt: str, verdict: str, as_json: bool) -> None:
    """Say whether the answer of RECEIPT (its first digits do) was good or bad.

    Good counts like a job more, bad makes the job a failure; the last word of a receipt counts.
    Needs the running daemon, which keeps the last 1,024 receipts for this.
    """
    found: list[Json] = []
    params = {"receipt_id": receipt, "verdict": verdict}
    trio.run(call_control, directory, "feedback", params, found.append)
    (told,) = found
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"{told['provider']} has {told['score']} of 1000 for {told['model']} now")
