"""What a command says when its input is wrong (floor F5)."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from protocol.errors import ConfigError


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Wrong input is one line with a code, and status 2."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except ConfigError as error:
            click.echo(f"simnet: {error.code}: {error.detail}", err=True)
            sys.exit(2)

    return run
