"""The `peerd` command (floor F5): results on stdout, logs on stderr, `--json` everywhere.

Exit status 0 for success, 1 for failure, 2 for wrong use or configuration.
"""

import importlib
import json
import sys
from typing import NoReturn

import click

from peer.errors import first_error
from protocol.errors import ConfigError, PeerdError

COMMANDS = {
    "init": "peer.cli.identity:init_command",
    "run": "peer.cli.run:run_command",
    "gateway": "peer.cli.run:gateway_command",
    "status": "peer.cli.status:status_command",
    "ask": "peer.cli.ask:ask_command",
    "chat": "peer.cli.chat:chat_command",
    "mcp": "peer.cli.mcp:mcp_command",
    "models": "peer.cli.models:models_group",
    "channels": "peer.cli.channels:channels_group",
    "balance": "peer.cli.balance:balance_command",
    "credit": "peer.cli.credit:credit_group",
    "cheques": "peer.cli.cheques:cheques_group",
    "witness": "peer.cli.credit:witness_command",
    "history": "peer.cli.jobs:history_command",
    "explain": "peer.cli.insight:explain_command",
    "reputation": "peer.cli.insight:reputation_command",
    "feedback": "peer.cli.insight:feedback_command",
    "log": "peer.cli.log:log_group",
    "id": "peer.cli.identity:id_command",
    "demo": "peer.cli.demo:demo_command",
}


class LazyGroup(click.Group):
    """Imports a command when it is used: libp2p alone takes half a second."""

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command, imported now; None when there is no such."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peerd", message="%(prog)s %(version)s")
def peerd() -> None:
    """A gossip peer daemon: a market for LLM inference without a middleman."""


def main() -> None:
    """Run the command line; a coded error is one line, never a traceback."""
    try:
        peerd.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_wrong_use(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (PeerdError, BaseExceptionGroup) as problem:
        _fail(problem)


def _wrong_use(error: click.ClickException) -> ConfigError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_at = f" See `{context.command_path} --help`." if context is not None else ""
    return ConfigError("config.usage", f"{error.format_message().rstrip('.')}.{help_at}")


def _fail(problem: BaseException) -> NoReturn:
    error = first_error(problem)
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    if not isinstance(error, PeerdError):
        raise problem
    if "--json" in sys.argv:
        click.echo(json.dumps(error.report()))
    click.echo(f"peerd: {error}", err=True)
    sys.exit(2 if isinstance(error, ConfigError) or error.code.startswith("config.") else 1)
