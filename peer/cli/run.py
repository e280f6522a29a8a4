"""`peerd run`: the daemon, until SIGTERM or SIGINT."""

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from engine.catalogue import ModelSource
from engine.directory import ModelDirectory
from engine.embedded import embedded_model_path
from engine.group import EngineGroup, RunnableEngine
from engine.llama import LlamaEngine
from engine.lora import AdapterSource
from engine.notes import ModelNotes
from engine.remote import RemoteEngine
from engine.settings import LlamaSettings
from peer.cli.options import (
    data_option,
    given,
    json_option,
    load_node,
    network_flags,
    network_options,
)
from peer.config import TOKEN_VARIABLE, Config, ProviderConfig
from peer.config_tables import AdapterConfig
from peer.control import serve_control, socket_path
from peer.daemon import Daemon, open_daemon
from peer.gateway import ApiSettings, parse_listen, serve_gateway
from peer.keys import Keys
from peer.offered import offered_models
from peer.remotes import remote_settings
from peer.reports import recovery_line
from peer.secret import read_secret
from peer.service import control_methods, status_json
from peer.settings import daemon_settings
from peer.supervisor import tell
from protocol.crypto import Signer
from protocol.errors import ConfigError

log = structlog.get_logger()

EMBEDDED = "embedded"
GATEWAY = "127.0.0.1:4180"
MODELS_DIRECTORY = "models"
NOTES_FILE = "models.json"


def api_settings(config: Config) -> ApiSettings | None:
    """Where the gateway listens; None for no gateway. ConfigError."""
    if not config.api.listen:
        return None
    token = read_secret("api.token_file", TOKEN_VARIABLE, config.api.token_file, os.environ)
    return parse_listen(config.api.listen, token or None)


def model_directory(directory: Path, provider: ProviderConfig) -> ModelDirectory:
    """Where the operator keeps models."""
    named = provider.models_directory
    return ModelDirectory(Path(named).expanduser() if named else directory / MODELS_DIRECTORY)


def llama_settings(provider: ProviderConfig) -> LlamaSettings:
    """How the operator wants models run. ConfigError `config.bad_value`."""
    return LlamaSettings(
        n_threads=provider.threads,
        places=provider.places,
        context_tokens=provider.context_tokens,
        steps_per_s_max=provider.steps_per_s_max,
        memory_mib=provider.memory_mib,
        worker_memory_mib=provider.worker_memory_mib,
        prefix_reuse=provider.prefix_reuse,
    )


def adapter_source(adapter: AdapterConfig) -> AdapterSource:
    """An adapter as it is configured. EngineError `engine.bad_model` for a name that is none."""
    path = Path(adapter.path).expanduser()
    return AdapterSource(adapter.model, adapter.name, path, round(adapter.scale * 1_000))


def make_engine(directory: Path, provider: ProviderConfig) -> RunnableEngine | None:
    """The engine for the configured models, the directory's and remote ones; None when nothing
    is sold.

    Where both have a model, the remote server is asked first. ConfigError: settings, keys,
    adapters of no model.
    """
    sources = [
        ModelSource(embedded_model_path() if model == EMBEDDED else Path(model).expanduser())
        for model in provider.models
    ]
    sources += model_directory(directory, provider).sources()
    engines: list[RunnableEngine] = [
        RemoteEngine(settings) for settings in remote_settings(provider.remote)
    ]
    if provider.adapter and not sources:
        raise ConfigError("config.bad_value", "provider.adapter: there is no model to adapt")
    if sources:
        notes = ModelNotes(directory / NOTES_FILE)
        adapters = list(map(adapter_source, provider.adapter))
        engines.append(LlamaEngine(sources, llama_settings(provider), notes, adapters))
    return EngineGroup(engines) if len(engines) > 1 else next(iter(engines), None)


@click.command("run")
@data_option
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATH.gguf",
    help="A model to sell, or `embedded`; beside those of `peerd models`.",
)
@click.option("--input-price", metavar="CREDITS", help="Per 1,000,000 input tokens.")
@click.option("--output-price", metavar="CREDITS", help="Per 1,000,000 output tokens.")
@click.option("--credit-limit", metavar="CREDITS", help="Deposits believed from one payer.")
@click.option("--places", type=int, help="Jobs at once, a model.")
@click.option("--threads", type=int, help="CPU threads of a model; 0: as fits it.")
@click.option("--context-tokens", type=int, help="Context of a job; 0 for the model's own.")
@click.option("--steps-per-s-max", type=int, help="Decode steps a second at most; 0: no limit.")
@click.option("--memory-mib", type=int, help="Memory of all loaded models; 0: no limit.")
@click.option(
    "--self-selection/--no-self-selection", default=None, help="Withhold bids that can't win."
)
@click.option("--bids-wanted", type=int, metavar="N", help="So many of them come all the same.")
@click.option("--api", metavar="HOST:PORT", help="Serve OpenAI's HTTP API, as 127.0.0.1:4180.")
@network_options
@json_option
def run_command(directory: Path, as_json: bool, **flags: Any) -> None:
    """Run the node: relay gossip, sell models, serve local commands.

    Without a --model and with none in `peerd models`, it only asks and relays.
    """
    settings = network_flags(flags)
    settings["api"] = given({"listen": flags.pop("api")})
    settings["provider"] = given(flags)
    signer, config = load_node(directory, settings)
    trio.run(_run, directory, signer, config, as_json)


@click.command("gateway")
@data_option
@click.option("--api", metavar="HOST:PORT", help=f"Where.  [default: [api] listen, or {GATEWAY}]")
@network_options
@json_option
def gateway_command(directory: Path, as_json: bool, **flags: Any) -> None:
    """Run the node as a requester alone: OpenAI's HTTP API, and nothing sold.

    The same as `peerd run --api` on a node without models.
    """
    settings = network_flags(flags)
    settings["api"] = given({"listen": flags.pop("api")})
    signer, config = load_node(directory, settings)
    api = replace(config.api, listen=config.api.listen or GATEWAY)
    trio.run(_run, directory, signer, replace(config, api=api), as_json, False)


async def _run(
    directory: Path, signer: Signer, config: Config, as_json: bool, sells: bool = True
) -> None:
    # What is wrong with a path or an address should be said before anything starts.
    socket_path(directory)
    settings = daemon_settings(directory, config)
    api = api_settings(config)
    engine = make_engine(directory, config.provider) if sells else None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            up, stop = trio.Event(), trio.Event()
            nursery.start_soon(_watch_signals, signals, up, stop, nursery.cancel_scope)
            if engine is not None:
                await nursery.start(engine.run)
            async with open_daemon(settings, signer, engine) as daemon:
                methods = control_methods(daemon)
                await nursery.start(serve_control, directory, methods)
                url = ""
                if api is not None:
                    models = partial(offered_models, daemon)
                    keys, defaults = Keys(daemon), config.requester
                    serve = partial(serve_gateway, api, daemon, models, defaults, methods, keys)
                    url = await nursery.start(serve)
                _announce(daemon, as_json, url)
                tell(f"READY=1\nMAINPID={os.getpid()}")
                up.set()
                await stop.wait()
                tell("STOPPING=1")
                log.info("daemon.stopping", running=daemon.node.provider.rooms.running)
                finished = await daemon.drain(config.drain_s)
                log.info("daemon.drained", finished=finished)
            nursery.cancel_scope.cancel()
    log.info("daemon.stopped")


async def _watch_signals(
    signals: Any, up: trio.Event, stop: trio.Event, scope: trio.CancelScope
) -> None:
    """The first signal drains; a second one, or one before the node is up, stops at once."""
    async for number in signals:
        log.info("daemon.signal", signal=signal.Signals(number).name)
        if stop.is_set() or not up.is_set():
            scope.cancel()
        stop.set()


def _announce(daemon: Daemon, as_json: bool, url: str) -> None:
    log.info("daemon.ready", peer_id=daemon.network.peer_id)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "event": "ready",
                    "api": url or None,
                    "log": daemon.recovery,
                    **status_json(daemon),
                }
            )
        )
        return
    click.echo(f"peerd {daemon.network.peer_id} on network {daemon.settings.network.network}")
    for address in daemon.network.addresses:
        click.echo(f"  {address}")
    if url:
        click.echo(f"  {url}")
    click.echo(recovery_line(daemon.recovery))
