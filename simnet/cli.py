"""The `simnet` command (floor F5): for now one in-memory market, run and summed up.

Scenarios, the calibrated gossip model, sweeps and reports come with the simulator's issue.
"""

import json
import time
from typing import Any

import click

from protocol.fields import (
    ChatMessage,
    GenerationParameters,
    InferenceType,
    Prompt,
    RequestFilter,
    Strategy,
)
from protocol.units import NS_PER_MS, NS_PER_S, UCR_PER_CREDIT, format_credits
from router import events
from router.actions import Ask, ModelOffer
from simnet.entropy import Entropy
from simnet.peer import SimEngine, WorldSettings
from simnet.world import World

MODEL = "sim"


def build(nodes: int, providers: int, seed: int) -> World:
    """A world whose first `providers` peers sell one model at drawn prices and speeds."""
    world = World(WorldSettings(seed=seed))
    draw = Entropy(seed, "providers")
    for index in range(nodes):
        if index >= providers:
            world.add()
            continue
        token_ns = (5 + draw.below(45)) * NS_PER_MS
        prefill_ns = (20 + draw.below(200)) * NS_PER_MS
        offer = ModelOffer(
            name=MODEL,
            digest=bytes(32),
            context_tokens=4_096,
            input_price_ucr=(5 + draw.below(20)) * UCR_PER_CREDIT,
            output_price_ucr=(20 + draw.below(80)) * UCR_PER_CREDIT,
            ttft_ns=prefill_ns,
            ttft_ns_per_input_token=0,
            tokens_per_s_milli=1_000 * NS_PER_S // token_ns,
            places=4,
        )
        world.add(SimEngine(offer, prefill_ns, token_ns))
    return world


def make_ask(number: int, output_tokens: int) -> Ask:
    """One request of the workload."""
    message = ChatMessage("user", f"request {number}")
    return Ask(
        ask_id=number,
        model=MODEL,
        prompt=Prompt(InferenceType.CHAT, (message,)),
        parameters=GenerationParameters(output_tokens, 0, 0, 1_000, number, ()),
        price_max_ucr=UCR_PER_CREDIT,
        timeout_ns=120 * NS_PER_S,
        bid_window_ns=NS_PER_S,
        strategy=Strategy(500, 500),
        filters=RequestFilter(b"", (), ()),
        deposit_ucr=UCR_PER_CREDIT,
        advance_max_ucr=UCR_PER_CREDIT // 10,
    )


def run_world(nodes: int, providers: int, requests: int, seed: int) -> dict[str, Any]:
    """Run the requests one a second from peers drawn at random; the summary."""
    started = time.process_time()
    world = build(nodes, providers, seed)
    began_ns = world.clock.now_ns
    draw = Entropy(seed, "workload")
    for number in range(1, requests + 1):
        asker = world.peers[draw.below(nodes)]
        world.give(asker, make_ask(number, 16 + draw.below(112)))
        world.run(NS_PER_S)
    world.run(120 * NS_PER_S)
    told = [event for peer in world.peers for _, event in peer.told]
    done = [event for event in told if isinstance(event, events.Done)]
    failed = [event for event in told if isinstance(event, events.Failed)]
    balances = [peer.node.context.ledger.balance() for peer in world.peers]
    awards = [event.at_ns for event in told if isinstance(event, events.Awarded)]
    return {
        "seed": seed,
        "nodes": nodes,
        "trace_hash": world.trace(),
        "events": world.clock.events,
        "virtual_s": (world.clock.now_ns - began_ns) / NS_PER_S,
        "cpu_s": round(time.process_time() - started, 3),
        "requests": requests,
        "done": len(done),
        "failed": len(failed),
        "paid_ucr": sum(event.receipt.price_ucr for event in done),
        "award_ms_median": sorted(awards)[len(awards) // 2] / NS_PER_MS if awards else None,
        "checks_ok": len(done) + len(failed) == requests
        and sum(balance.net_ucr for balance in balances) == 0,
    }


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peerd", message="%(prog)s %(version)s")
def main() -> None:
    """Run the market's own code on virtual time."""


@main.command("run")
@click.option("--nodes", type=click.IntRange(2, 1_000), default=20, show_default=True)
@click.option("--providers", type=click.IntRange(1), default=12, show_default=True)
@click.option("--requests", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run_command(nodes: int, providers: int, requests: int, seed: int, as_json: bool) -> None:
    """Run one in-memory market; the same seed gives the same trace."""
    if providers >= nodes:
        raise click.UsageError("--providers must be fewer than --nodes: somebody has to ask")
    summary = run_world(nodes, providers, requests, seed)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"{summary['done']} of {requests} requests done, {summary['failed']} failed, "
            f"{format_credits(summary['paid_ucr'])} credits paid, "
            f"award after {summary['award_ms_median']:.0f} ms (median)"
        )
        click.echo(
            f"{summary['virtual_s']:.0f} virtual s in {summary['cpu_s']} CPU s, "
            f"{summary['events']} events, trace {summary['trace_hash']}"
        )
    if not summary["checks_ok"]:
        raise click.ClickException("the books do not balance: this is a bug, keep the seed")
