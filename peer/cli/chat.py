"""`peerd chat`: a conversation in the terminal or from a pipe, a job of the market a turn."""

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import trio

from peer.cli.options import (
    data_option,
    json_option,
    network_flags,
    network_options,
    quantization_option,
)
from peer.cli.screen import short
from peer.client import Answer, AskFailed, Client
from peer.client.conversation import Conversation
from peer.config import CONFIG_FILE, Config, load_config
from peer.control import daemon_answers
from peer.identity import KEY_FILE
from peer.logs import configure_logs
from protocol.errors import ConfigError, NetworkError, PeerdError
from protocol.units import format_credits

_SETTINGS = ("model", "temperature", "max_price", "quantizations")
_HELP = "/clear forgets the turns, /quit or Ctrl-D ends, Ctrl-C stops an answer"


@click.command("chat")
@data_option
@click.option("--model", help="The model's name.")
@click.option("--system", default="", help="A system message before all turns.")
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="The longest answer.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 5),
    default=0.7,
    show_default=True,
    help="0: always the likeliest token.",
)
@click.option("--seed", type=int, help="Of the first turn; each next has one more.")
@click.option("--context-tokens", type=click.IntRange(1), help="If unset, what offers say.")
@quantization_option
@click.option("--max-price", metavar="CREDITS", help="The most that one answer may cost.")
@network_options
@json_option
def chat_command(directory: Path, as_json: bool, **flags: Any) -> None:
    """Talk with a model of the market; each turn is paid by itself, and says what it cost.

    Turns are kept here and sent with each question, the oldest left out where the model has no
    room. In a pipe every line is a turn; with --json, so is every line of the output.
    """
    network = network_flags(flags)
    path = directory / CONFIG_FILE
    config = load_config(path if path.exists() else None, network)
    configure_logs(config.log.level if network.get("log") else "error", config.log.format)
    with _client(directory, config) as market:
        chat = Chat(market, flags, as_json=as_json)
        for question in _questions(interactive=sys.stdin.isatty() and not as_json):
            if question == "/clear":
                chat.conversation.clear()
            elif question:
                chat.turn(question)
    if chat.failed:
        sys.exit(1)


def _client(directory: Path, config: Config) -> Client:
    if trio.run(daemon_answers, directory):
        return Client(directory)
    if not config.network.bootstrap:
        raise NetworkError("request.not_connected", "no --bootstrap and no running daemon")
    home = directory if (directory / KEY_FILE).exists() else None
    return Client(home, bootstrap=config.network.bootstrap, network=config.network.name)


def _questions(*, interactive: bool) -> Iterator[str]:
    """Lines of the terminal or the pipe, to the end or /quit."""
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() its line editing
        click.echo(_HELP, err=True)
    while True:
        try:
            line = input("> ") if interactive else sys.stdin.readline()
        except EOFError:
            return
        if (not line and not interactive) or line.strip() == "/quit":
            return
        yield line.strip()


class Chat:
    """A conversation that is shown as it goes: answers on stdout, the bill on stderr."""

    def __init__(self, market: Client, flags: dict[str, Any], *, as_json: bool) -> None:
        self.failed = False
        self._market = market
        self._as_json = as_json
        self._settings = {name: flags[name] for name in _SETTINGS}
        self._max_tokens: int = flags["max_tokens"]
        self._seed = secrets.randbits(31) if flags["seed"] is None else flags["seed"]
        self._context_tokens: int | None = flags["context_tokens"]
        self._spent_ucr = 0
        self._count = 0
        self.conversation = Conversation(flags["system"])

    def turn(self, question: str) -> None:
        """Ask, show the answer, keep both; a failure is shown, and the chat goes on."""
        self._count += 1
        self.conversation.context_tokens = self._context_tokens or self._offered_context()
        try:
            answer = self._answered(question)
        except KeyboardInterrupt:
            click.echo("\n(stopped; what had arrived is paid)", err=True)
            return
        except PeerdError as error:
            if isinstance(error, ConfigError) or error.code == "control.unavailable":
                raise  # every other turn would fail the same way
            self.failed = True
            self._spent_ucr += error.paid_ucr if isinstance(error, AskFailed) else 0
            if self._as_json:
                click.echo(json.dumps({"turn": self._count, **error.report()}))
            click.echo(f"peerd: {error}", err=True)
            return
        self._spent_ucr += answer.cost_ucr
        self.conversation.add(question, answer)
        self._bill(answer)

    def _answered(self, question: str) -> Answer:
        """The answer; a prompt that turns out too long is sent again with fewer turns."""
        while True:
            prompt = self.conversation.prompt(question, self._max_tokens)
            seed = (self._seed + self._count) % 2**32
            stream = self._market.stream(
                prompt, seed=seed, max_tokens=self._max_tokens, **self._settings
            )
            try:
                with stream:
                    for text in stream:
                        self._show(text)
                    return stream.answer
            except AskFailed as error:
                if error.code != "engine.prompt_too_long" or not self.conversation.forget():
                    raise

    def _offered_context(self) -> int:
        """The longest context on offer; 0 when nobody says."""
        wanted = self._settings["model"] or self._market.model
        for model in self._market.models():
            if model["name"] == wanted:
                return int(model["context_tokens"])
        return 0

    def _show(self, text: str) -> None:
        if self._as_json:
            return
        # Whoever runs the model writes its words: on a terminal none of them commands it.
        if sys.stdout.isatty():
            text = "".join(c for c in text if c.isprintable() or c in "\n\t")
        click.echo(text, nl=False)

    def _bill(self, answer: Answer) -> None:
        if self._as_json:
            more = {
                "turn": self._count,
                "pruned_turns": self.conversation.pruned_turns,
                "spent_ucr": self._spent_ucr,
            }
            click.echo(json.dumps({**answer.report(), **more}))
            return
        click.echo()
        receipt = answer.receipt or {}
        pruned = self.conversation.pruned_turns
        forgotten = f" · {pruned} turns forgotten" if pruned else ""
        click.echo(
            f"{receipt.get('input_tokens')} tokens in, {receipt.get('output_tokens')} out · "
            f"{answer.cost} credits, {format_credits(self._spent_ucr)} in all · "
            f"provider {short(answer.provider)}{forgotten}",
            err=True,
        )
