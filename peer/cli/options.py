"""Options that several commands share, and the node that they name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from peer.config import CONFIG_FILE, Config, load_config
from peer.identity import load_key
from peer.logs import configure_logs
from protocol.crypto import Signer

F = TypeVar("F", bound=Callable[..., Any])

DATA_VARIABLE = "PEERD_DATA"


def data_option(command: F) -> F:
    """`--data DIR`: where the node's key, settings and log are."""
    return click.option(
        "--data",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: Path(os.environ.get(DATA_VARIABLE, "~/.peerd")),
        show_default=f"${DATA_VARIABLE} or ~/.peerd",
        callback=lambda context, parameter, value: value.expanduser(),
        help="The node's data directory.",
    )(command)


def json_option(command: F) -> F:
    """`--json`: one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def quantization_option(command: F) -> F:
    """`--quantization`: what providers have to state of the model, one of those named."""
    return click.option(
        "--quantization",
        "quantizations",
        multiple=True,
        metavar="NAME",
        help="Only a model kept in this: q4_k_m, or a class, int4; may be given again.",
    )(command)


def network_options(command: F) -> F:
    """`--network`, `--bootstrap`, `--listen`, `--announce`, `--log-level`."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="Log this and what is graver.",
        ),
        click.option("--announce", multiple=True, metavar="ADDR", help="Address to tell others."),
        click.option("--listen", multiple=True, metavar="ADDR", help="Address to listen on."),
        click.option(
            "--bootstrap", multiple=True, metavar="ADDR", help="A node to join by: .../p2p/ID."
        ),
        click.option("--network", metavar="NAME", help="The network's name."),
    ):
        command = option(command)
    return command


def network_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """The network options as settings, taken out of `flags`; those not given are absent."""
    named = {
        "name": flags.pop("network"),
        "listen": flags.pop("listen"),
        "announce": flags.pop("announce"),
        "bootstrap": flags.pop("bootstrap"),
    }
    level = flags.pop("log_level")
    settings: dict[str, Any] = {"network": given(named)}
    if level:
        settings["log"] = {"level": level}
    return settings


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Without what the person did not say; tuples become lists, as in TOML."""
    kept = {key: value for key, value in values.items() if value not in (None, ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def load_node(directory: Path, flags: dict[str, Any]) -> tuple[Signer, Config]:
    """The key and settings of a data directory. ConfigError."""
    signer = load_key(directory)
    path = directory / CONFIG_FILE
    config = load_config(path if path.exists() else None, flags)
    configure_logs(config.log.level, config.log.format)
    return signer, config
