"""`peerd demo`: three providers and a requester as separate processes, one real paid answer.

Real libp2p on loopback, real llama.cpp on the embedded model, real money records; at the end
all logs are verified and both sides' books compared. Exit status 0 only if every check holds.
"""

import json
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from peer.cli.audit import audit
from peer.cli.options import json_option
from peer.cli.processes import Running, spawn
from peer.cli.record import AskRecord
from peer.cli.screen import Screen, short
from peer.control import call_control
from protocol.errors import PeerdError
from protocol.units import UCR_PER_CREDIT, format_credits

Json = dict[str, Any]

PROMPT = "What is the capital of France?"
MAX_TOKENS = 96
_NETWORK = "demo"
_LISTEN = "/ip4/127.0.0.1/tcp/0"
_JOIN_S = 15.0


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """One provider of the demo: credits per 1,000,000 tokens, decode steps a second."""

    name: str
    input_price: str
    output_price: str
    steps_per_s_max: int

    def flags(self) -> tuple[str, ...]:
        """What its daemon is started with."""
        return (
            *("--model", "embedded", "--threads", "1", "--places", "2"),
            *("--input-price", self.input_price, "--output-price", self.output_price),
            *("--steps-per-s-max", str(self.steps_per_s_max)),
        )


PROVIDERS = (
    ProviderPlan("cheap and slow", "10", "40", 20),
    ProviderPlan("middling", "15", "60", 60),
    ProviderPlan("dear and fast", "25", "120", 200),
)


@click.command("demo")
@click.option("--prompt", default=PROMPT, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1, 1024), default=MAX_TOKENS, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the nodes' directories here, to look at."
)
@json_option
def demo_command(prompt: str, max_tokens: int, keep: Path | None, as_json: bool) -> None:
    """Run a whole market on this machine: bids, award, stream, vouchers, receipt, balances."""
    screen = None if as_json else Screen()
    with tempfile.TemporaryDirectory(prefix="peerd-demo-") as temporary:
        home = keep or Path(temporary)
        result = trio.run(_demo, home, prompt, max_tokens, screen)
    if as_json:
        click.echo(json.dumps(result))
    if not result["ok"]:
        failed = [name for name, good in result["checks"].items() if not good]
        click.echo(f"peerd: the demo failed: {', '.join(failed)}", err=True)
        sys.exit(1)


async def _demo(home: Path, prompt: str, max_tokens: int, screen: Screen | None) -> Json:
    async with AsyncExitStack() as stack:

        async def start(name: str, bootstrap: tuple[str, ...], *flags: str) -> Running:
            node = await spawn(
                home / name.replace(" ", "-"), name, (*_common_flags(bootstrap), *flags)
            )
            stack.push_async_callback(node.stop)
            return node

        if screen is not None:
            screen.progress.print("starting three providers and a requester, a process each")
        first = await start(PROVIDERS[0].name, (), *PROVIDERS[0].flags())
        await first.wait_ready()
        bootstrap = tuple(first.ready["addresses"][:1])
        others = [await start(plan.name, bootstrap, *plan.flags()) for plan in PROVIDERS[1:]]
        requester = await start("requester", bootstrap)
        for node in (*others, requester):
            await node.wait_ready()
        providers = [first, *others]
        if screen is not None:
            _show_nodes(screen, providers, requester)
        await _wait_joined(requester, len(providers))
        if screen is not None:
            screen.progress.print(f"question: {prompt}\n", markup=False)
        record = await _ask(requester, prompt, max_tokens, screen)
        await call_control(requester.directory, "close", {}, lambda line: None)
        books = await _books([requester, *providers])
    result = _judge(record, books, requester, providers)
    if screen is not None:
        _show_result(screen, result)
    return result


def _common_flags(bootstrap: tuple[str, ...]) -> tuple[str, ...]:
    joins = tuple(part for address in bootstrap for part in ("--bootstrap", address))
    return ("--network", _NETWORK, "--listen", _LISTEN, *joins)


async def _wait_joined(requester: Running, providers: int) -> None:
    """Until the requester hears the topic's other nodes, found through the one bootstrap."""
    with trio.move_on_after(_JOIN_S):
        while True:
            seen: list[Json] = []
            await call_control(requester.directory, "status", {}, seen.append)
            if seen and seen[0]["topic_peers"] >= providers:
                return
            await trio.sleep(0.1)


async def _ask(
    requester: Running, prompt: str, max_tokens: int, screen: Screen | None
) -> AskRecord:
    record = AskRecord()

    def on_event(event: Json) -> None:
        record.add(event)
        if screen is not None:
            screen.show(event)

    params = {
        "model": "embedded",
        "messages": [["user", prompt]],
        "chat": True,
        "max_tokens": max_tokens,
        "temperature_milli": 0,
        "seed": 1,
        "stop": [],
        "max_price_ucr": UCR_PER_CREDIT // 20,
        "deposit_ucr": UCR_PER_CREDIT,
        "advance_ucr": UCR_PER_CREDIT // 10,
        "bid_window_ms": 2_000,
        "timeout_ms": 30_000,
        "price_weight": 500,
    }
    await call_control(requester.directory, "ask", params, on_event)
    return record


async def _books(nodes: list[Running]) -> list[Json]:
    books: list[Json] = []
    for node in nodes:
        await call_control(node.directory, "channels", {}, books.append)
    return books


# --- judging -------------------------------------------------------------------------------


def _judge(
    record: AskRecord, books: list[Json], requester: Running, providers: list[Running]
) -> Json:
    summary = record.summary()
    nodes = [requester, *providers]
    try:
        findings = audit([node.directory for node in nodes], _NETWORK)
    except PeerdError as error:
        findings = {"logs_ok": False, "receipts_ok": False, "conserved": False, "why": str(error)}
    balances = {
        name: book["balance"]
        for name, book in zip(
            ["requester", *(plan.name for plan in PROVIDERS)], books, strict=True
        )
    }
    best = min(
        (bid for bid in record.bids if not bid["refused"]),
        key=lambda bid: bid["score"],
        default=None,
    )
    award = record.award
    spent = balances["requester"]["spent_ucr"]
    checks = {
        "three_bids": len(record.bids) == len(providers),
        "best_bid_awarded": bool(best and award and best["provider"] == award["provider"]),
        "answered": bool(record.answer) and record.receipt is not None,
        "paid_in_vouchers": len(record.vouchers) >= 2,
        "billed_as_promised": spent == summary["cost_ucr"],
        "channel_closed": all(
            channel["state"] == "closed" for book in books for channel in book["channels"]
        ),
        "receipt_ok": summary["receipt_ok"] and findings["receipts_ok"],
        "logs_ok": findings["logs_ok"],
        "conserved": findings["conserved"]
        and sum(balance["net_ucr"] for balance in balances.values()) == 0,
    }
    return {
        **summary,
        "receipt_ok": checks["receipt_ok"],
        "logs_ok": checks["logs_ok"],
        "balances": balances,
        "checks": checks,
        "ok": all(checks.values()),
    }


# --- the picture ---------------------------------------------------------------------------


def _show_nodes(screen: Screen, providers: list[Running], requester: Running) -> None:
    for plan, node in zip(PROVIDERS, providers, strict=True):
        screen.progress.print(
            f"provider {short(node.peer_id)}  {plan.name}: {plan.input_price} in, "
            f"{plan.output_price} out, at most {plan.steps_per_s_max} tokens/s"
        )
    screen.progress.print(f"requester {short(requester.peer_id)}\n")


def _show_result(screen: Screen, result: Json) -> None:
    out = screen.progress
    totals = " → ".join(format_credits(item["total_ucr"]) for item in result["vouchers"])
    out.print("(a very small model: it knows capitals, small sums and peerd's own words)")
    out.print(f"vouchers {totals or 'none'} credits")
    out.print()
    for name, balance in result["balances"].items():
        out.print(
            f"  {name:16s} earned {format_credits(balance['earned_ucr']):>10s}   "
            f"spent {format_credits(balance['spent_ucr']):>10s}   "
            f"net {format_credits(balance['net_ucr']):>10s} credits"
        )
    out.print()
    for name, good in result["checks"].items():
        out.print(f"  {'✓' if good else '✗'} {name.replace('_', ' ')}")
