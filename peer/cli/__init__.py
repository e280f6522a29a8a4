"""The `peerd` command (floor F5): results on stdout, logs on stderr, `--json` everywhere.

Exit status 0 for success, 1 for failure, 2 for wrong use or configuration.
"""

import json
import sys
from typing import NoReturn

import click

from peer.cli.ask import ask_command
from peer.cli.channels import channels_command
from peer.cli.demo import demo_command
from peer.cli.errors import first_error
from peer.cli.identity import id_command, init_command
from peer.cli.log import log_group
from peer.cli.run import run_command
from peer.control import error_json
from protocol.errors import ConfigError, PeerdError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peerd", message="%(prog)s %(version)s")
def peerd() -> None:
    """A gossip peer daemon: a market for LLM inference without a middleman."""


for command in (
    init_command,
    run_command,
    ask_command,
    channels_command,
    log_group,
    id_command,
    demo_command,
):
    peerd.add_command(command)


def main() -> None:
    """Run the command line; a coded error is one line, never a traceback."""
    try:
        peerd.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (PeerdError, BaseExceptionGroup) as problem:
        _fail(problem)


def _fail(problem: BaseException) -> NoReturn:
    error = first_error(problem)
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    if not isinstance(error, PeerdError):
        raise problem
    if "--json" in sys.argv:
        click.echo(json.dumps(error_json(error)))
    click.echo(f"peerd: {error}", err=True)
    sys.exit(2 if isinstance(error, ConfigError) else 1)
