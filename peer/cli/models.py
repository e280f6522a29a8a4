"""`peerd models`: the files that this node sells beside those that --model names."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.catalogue import ModelFile, ModelSource, read_model
from engine.directory import ModelDirectory
from engine.memory import needed_bytes
from engine.notes import ModelNotes, Trial
from engine.settings import LlamaSettings
from engine.trial import TrialReport, try_model
from peer.cli.options import data_option, json_option
from peer.cli.run import NOTES_FILE, llama_settings, model_directory
from peer.cli.screen import Listing
from peer.config import CONFIG_FILE, load_config
from peer.logs import configure_logs
from protocol.errors import EngineError
from protocol.units import NS_PER_S, milliseconds

Json = dict[str, Any]

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Shelf:
    """A node's models as its configuration has them, and what is known of them."""

    directory: ModelDirectory
    notes: ModelNotes
    settings: LlamaSettings

    def read(self, source: ModelSource) -> ModelFile:
        """The model's facts. EngineError `engine.bad_model`."""
        return read_model(source.path, name=source.name, digest=self.notes.digest)


def open_shelf(directory: Path) -> Shelf:
    """The shelf of a data directory, which needs no key. ConfigError."""
    path = directory / CONFIG_FILE
    config = load_config(path if path.exists() else None, {})
    configure_logs("error", config.log.format)
    return Shelf(
        model_directory(directory, config.provider),
        ModelNotes(directory / NOTES_FILE),
        llama_settings(config.provider),
    )


@click.group("models")
def models_group() -> None:
    """Add, list, try and take away the models that this node sells."""


@models_group.command("list")
@data_option
@json_option
def list_command(directory: Path, as_json: bool) -> None:
    """List the models directory, broken files included."""
    shelf = open_shelf(directory)
    models = [describe(shelf, source) for source in shelf.directory.sources()]
    if as_json:
        click.echo(json.dumps({"directory": str(shelf.directory.path), "models": models}))
        return
    if not models:
        click.echo(f"no models in {shelf.directory.path}; add one with `peerd models add PATH`")
        return
    Console(highlight=False).print(models_table(models))


@models_group.command("add")
@click.argument("file", metavar="PATH", type=click.Path(path_type=Path))
@data_option
@click.option("--name", help="What requests ask for; the file's own name for itself if unset.")
@click.option("--copy", is_flag=True, help="Copy the file instead of linking to it.")
@json_option
def add_command(directory: Path, file: Path, name: str | None, copy: bool, as_json: bool) -> None:
    """Sell the GGUF at PATH: it is checked, then linked into the models directory."""
    shelf = open_shelf(directory)
    file = file.expanduser()
    found = read_model(file, digest=shelf.notes.digest)
    source = shelf.directory.add(file, name or found.info.name, copy=copy)
    described = describe(shelf, source)
    if as_json:
        click.echo(json.dumps(described))
        return
    click.echo(f"added {source.name}: {source.path}")
    click.echo(f"next: peerd models test {source.name}, then start peerd run again")


@models_group.command("show")
@click.argument("name")
@data_option
@json_option
def show_command(directory: Path, name: str, as_json: bool) -> None:
    """Show everything known of the model NAME."""
    shelf = open_shelf(directory)
    source = shelf.directory.find(name)
    shelf.read(source)  # a broken file is this command's failure, not a row
    described = describe(shelf, source)
    if as_json:
        click.echo(json.dumps(described))
        return
    for key, value in described.items():
        if key != "error":
            click.echo(f"{key:16s} {_plain(value)}")


@models_group.command("remove")
@click.argument("name")
@data_option
@click.option("--delete", is_flag=True, help="Also when it is the file itself and not a link.")
@json_option
def remove_command(directory: Path, name: str, delete: bool, as_json: bool) -> None:
    """Stop selling the model NAME; a file that was linked stays where it is."""
    shelf = open_shelf(directory)
    source = shelf.directory.remove(name, delete=delete)
    if as_json:
        click.echo(json.dumps({"name": source.name, "removed": str(source.path)}))
    else:
        click.echo(f"removed {source.name}")


@models_group.command("test")
@click.argument("name")
@data_option
@json_option
def test_command(directory: Path, name: str, as_json: bool) -> None:
    """Load the model NAME, ask it something, and print how fast it is."""
    shelf = open_shelf(directory)
    report = trio.run(try_model, shelf.directory.find(name), shelf.settings, shelf.notes)
    click.echo(json.dumps(report_json(report)) if as_json else report_text(report))


def describe(shelf: Shelf, source: ModelSource) -> Json:
    """A model as `--json` gives it; one that is broken has only `error` and where it is."""
    link = source.path.readlink() if source.path.is_symlink() else None
    place = {"path": str(source.path), "link_to": None if link is None else str(link)}
    try:
        file = shelf.read(source)
    except EngineError as error:
        return {"name": source.name, **place, "error": error.report()}
    info = file.info
    return {
        "name": info.name,
        **place,
        "quantization": info.quantization,
        "context_tokens": info.context_tokens,
        "size_bytes": info.size_bytes,
        "sha256": info.digest.hex(),
        "chat_template": file.has_chat_template,
        "embeddings": info.embeds,
        "memory_mib": -(-needed_bytes(file, shelf.settings) // _MIB),
        "self_test": trial_json(shelf.notes.trial(file.fingerprint)),
        "error": None,
    }


def trial_json(trial: Trial | None) -> Json | None:
    """A self-test's outcome; None when there was none."""
    if trial is None:
        return None
    step_ns = trial.step_ns[0] if trial.step_ns else 0
    return {
        "passed": trial.passed,
        "why": trial.why,
        "at_unix_s": trial.at_s,
        "load_ms": milliseconds(trial.load_ns),
        "tokens_per_s": round(NS_PER_S / step_ns, 1) if step_ns else 0.0,
        "conditions": trial.conditions,
    }


def report_json(report: TrialReport) -> Json:
    """A trial as `--json` gives it."""
    return {"passed": True, **asdict(report)}


def report_text(report: TrialReport) -> str:
    """A trial in a few lines, for people."""
    # Whoever made the model made its words: none of them commands the terminal.
    text = "".join(letter for letter in " ".join(report.text.split()) if letter.isprintable())
    width = report.embedding_dimensions
    vectors = f", embeddings of {width} numbers" if width else ", no embeddings"
    return (
        f"{report.name} works: {report.tokens_per_s:.1f} tokens/s,"
        f" reads {report.prompt_tokens_per_s:.0f} tokens/s,"
        f" loads in {milliseconds(report.load_ns)} ms{vectors}\n"
        f"  {report.input_tokens} tokens in, {report.output_tokens} out: {text[:200]}\n"
        f"  {report.engine}, {report.settings}"
    )


def models_table(models: list[Json]) -> Table:
    """The directory as a table."""
    table = Listing("models")
    for name in ("name", "quant", "context", "MiB", "sha256", "template", "self-test"):
        table.add_column(name, justify="right" if name in ("context", "MiB") else "left")
    for model in models:
        if model["error"]:
            why = escape(f"broken: {model['error']['detail']}")
            table.add_row(model["name"], "", "", "", "", "", why)
            continue
        table.add_row(
            model["name"],
            model["quantization"],
            str(model["context_tokens"]),
            f"{model['size_bytes'] / _MIB:.1f}",
            model["sha256"][:12],
            "yes" if model["chat_template"] else "no",
            escape(_plain(model["self_test"])),
        )
    return table


def _plain(value: Any) -> str:
    """A field for people."""
    if value is None:
        return "never"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        good = f"passed, {value['tokens_per_s']} tokens/s"
        return good if value["passed"] else f"failed: {value['why']}"
    return str(value)
