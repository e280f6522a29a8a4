"""`peerd ask`: through the running daemon, or as an ephemeral node when there is none."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import trio

from peer.asker import open_asker
from peer.asking import AskOptions, parse_options, to_ask
from peer.choices import choosing
from peer.cli.options import (
    data_option,
    json_option,
    network_flags,
    network_options,
    quantization_option,
)
from peer.cli.record import AskRecord
from peer.cli.screen import Screen
from peer.config import CONFIG_FILE, Config, credits_of, load_config
from peer.control import call_control, daemon_answers
from peer.identity import KEY_FILE
from peer.logs import configure_logs
from peer.reports import event_json
from protocol.errors import CODES, ConfigError

Json = dict[str, Any]


@click.command("ask")
@click.argument("prompt")
@data_option
@click.option("--model", help="The model's name.")
@click.option("--system", help="A system message before the prompt.")
@click.option("--raw", is_flag=True, help="Complete the text as it is, without a chat template.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="The longest answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 5),
    default=0.0,
    show_default=True,
    help="0: always the likeliest token.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text.")
@click.option("--stop-token", multiple=True, type=int, metavar="ID", help="End before this token.")
@click.option(
    "--logprobs", type=int, default=0, metavar="K", help="Tell K likely tokens at each; --json."
)
@click.option("--max-price", metavar="CREDITS", help="The most that this answer may cost.")
@click.option("--deposit", metavar="CREDITS", help="Deposit of a new channel.")
@click.option("--advance", metavar="CREDITS", help="The most to pay ahead of delivery.")
@click.option("--window-ms", type=int, help="How long to collect bids.")
@click.option("--early-close-bids", type=int, metavar="N", help="End it early with N; 0: never.")
@click.option("--auction", is_flag=True, help="Collect bids, whatever offers stand.")
@click.option("--timeout", type=int, metavar="SECONDS", help="Give up after this.")
@click.option(
    "--strategy",
    type=click.Choice(["cheapest", "fastest", "reputable", "weighted", "race"]),
    help="How the best bid is found.",
)
@click.option("--price-weight", type=int, help="0-1000: how much price counts if weighted.")
@click.option(
    "--reputation-weight", type=int, help="0-1000: how much reputation does; speed has the rest."
)
@click.option("--race", type=int, metavar="N", help="Award the best N; the first text wins.")
@click.option(
    "--hedge",
    "hedge_percent",
    type=int,
    metavar="PERCENT",
    help="Award a second when the first text is later than this much of the promise.",
)
@click.option(
    "--fallbacks/--no-fallbacks", default=None, help="Whether others take over from who fails."
)
@click.option("--reputation-min", type=int, help="0-1000: only providers with this score.")
@click.option("--completed-min", type=int, help="Only providers with so many jobs for us.")
@quantization_option
@click.option("--quote", is_flag=True, help="Say what it would cost; ask nobody to do it.")
@click.option("--only", multiple=True, metavar="PEER", help="Only these providers.")
@click.option("--ignore", multiple=True, metavar="PEER", help="Never these providers.")
@network_options
@json_option
def ask_command(directory: Path, prompt: str, as_json: bool, **flags: Any) -> None:
    """Ask the market for an answer to PROMPT and pay for it as it arrives."""
    if not prompt.strip():
        raise click.UsageError("PROMPT is empty: there is nothing to ask")
    settings = network_flags(flags)
    path = directory / CONFIG_FILE
    config = load_config(path if path.exists() else None, settings)
    level = config.log.level if settings.get("log") else "error"
    configure_logs(level, config.log.format)
    options = _options(prompt, config, flags)
    screen = None if as_json else Screen()
    record = trio.run(_ask, directory, config, options, screen, bool(settings["network"]))
    if as_json:
        click.echo(json.dumps(record.summary()))
    if record.failure is not None:
        code, detail = record.failure["code"], record.failure["detail"]
        middle = f" ({detail})" if detail else ""
        click.echo(f"peerd: {code}{middle}: {CODES[code]}", err=True)
        sys.exit(1)


def _options(prompt: str, config: Config, flags: dict[str, Any]) -> AskOptions:
    defaults = config.requester

    def pick(name: str, default: Any) -> Any:
        return default if flags[name] is None else flags[name]

    messages = [("system", flags["system"])] if flags["system"] and not flags["raw"] else []
    if not math.isfinite(flags["temperature"]):
        raise ConfigError("config.bad_value", "--temperature: not a number")
    options = parse_options(
        {
            "model": pick("model", defaults.model),
            "messages": [*messages, ("user", prompt)],
            "chat": not flags["raw"],
            "max_tokens": flags["max_tokens"],
            "temperature_milli": round(flags["temperature"] * 1000),
            "seed": flags["seed"],
            "stop": flags["stop"],
            "stop_tokens": flags["stop_token"],
            "logprobs": flags["logprobs"],
            "max_price_ucr": credits_of("--max-price", pick("max_price", defaults.max_price)),
            "deposit_ucr": credits_of("--deposit", pick("deposit", defaults.deposit)),
            "advance_ucr": credits_of("--advance", pick("advance", defaults.advance)),
            "bid_window_ms": pick("window_ms", defaults.bid_window_ms),
            "early_close_bids": pick("early_close_bids", defaults.early_close_bids),
            "timeout_ms": 1_000 * pick("timeout", defaults.timeout_s),
            **choosing(defaults, flags),
            "quote": flags["quote"],
            "providers_only": flags["only"],
            "providers_ignored": flags["ignore"],
            "use_offers": defaults.standing_offers and not flags["auction"],
        }
    )
    to_ask(options, 0)  # a wrong peer id should be said before anything starts
    return options


async def _ask(
    directory: Path,
    config: Config,
    options: AskOptions,
    screen: Screen | None,
    network_given: bool,
) -> AskRecord:
    record = AskRecord()

    def on_event(event: Json) -> None:
        record.add(event)
        if screen is not None:
            screen.show(event)

    if await daemon_answers(directory):
        if network_given:
            detail = f"the daemon of {directory} has its own network and addresses"
            raise ConfigError("config.usage", detail)
        if screen is not None:
            screen.explains = True
        params = json.loads(json.dumps(asdict(options)))
        await call_control(directory, "ask", params, on_event)
    else:
        await _as_ephemeral(directory, config, options, on_event)
    return record


async def _as_ephemeral(
    directory: Path, config: Config, options: AskOptions, on_event: Callable[[Json], None]
) -> None:
    """With the person's own node when there is one, so that its channels are used; else with one
    for this question only, whose channel is closed at the end."""
    home = directory if (directory / KEY_FILE).exists() else None
    async with (
        open_asker(home, config, lambda told: on_event(event_json(told))) as daemon,
        daemon.ask(to_ask(options, daemon.new_ask_id())) as stream,
    ):
        async for event in stream:
            on_event(event_json(event))
