"""`peerd models`: from adding a file to trying it, and what it says of a broken one.

Source: README, "Models".
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from peer.cli import peerd
from peer.cli.run import NOTES_FILE, make_engine
from peer.config import ProviderConfig
from protocol.errors import ConfigError, EngineError
from tests.engine.babbler import babbler_path

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path) -> Iterator[Invoke]:
    """`peerd models` in this process, on a data directory without a key."""

    def run(*arguments: object) -> Result:
        words = ["models", *map(str, arguments), "--data", str(tmp_path / "node")]
        return CliRunner().invoke(peerd, words)

    yield run
    structlog.reset_defaults()


def answer(result: Result) -> Any:
    """What `--json` printed."""
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_the_life_of_a_model(tmp_path: Path, invoke: Invoke) -> None:
    """add, list, show, test, remove; the file itself stays."""
    assert "peerd models add" in invoke("list").stdout
    added = answer(invoke("add", babbler_path(), "--json"))
    assert (added["name"], added["link_to"]) == ("babbler", str(babbler_path().resolve()))
    assert added["self_test"] is None
    (listed,) = answer(invoke("list", "--json"))["models"]
    assert listed == added == answer(invoke("show", "babbler", "--json"))
    assert listed["sha256"] == hashlib.sha256(babbler_path().read_bytes()).hexdigest()
    assert (listed["quantization"], listed["chat_template"]) == ("F16", True)

    report = answer(invoke("test", "babbler", "--json"))
    assert report["passed"]
    assert report["output_tokens"] == 32
    assert report["text"]
    assert min(report["tokens_per_s"], report["prompt_tokens_per_s"], report["load_ns"]) > 0
    (tested,) = answer(invoke("list", "--json"))["models"]
    assert tested["self_test"]["passed"]
    assert tested["self_test"]["tokens_per_s"] > 0
    table = invoke("list").stdout
    assert listed["sha256"][:12] in table
    assert "passed" in table
    assert "sha256" in invoke("show", "babbler").stdout

    assert answer(invoke("remove", "babbler", "--json"))["name"] == "babbler"
    assert answer(invoke("list", "--json"))["models"] == []
    assert babbler_path().exists()


def test_a_trial_in_words(invoke: Invoke) -> None:
    """One line says whether it works and how fast."""
    invoke("add", babbler_path(), "--name", "other")
    result = invoke("test", "other")
    assert result.stdout.startswith("other works: ")
    assert "tokens/s" in result.stdout.splitlines()[0]


def test_a_broken_file_is_not_added(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF")
    result = invoke("add", path)
    assert isinstance(result.exception, EngineError)
    assert result.exception.code == "engine.bad_model"
    assert answer(invoke("list", "--json"))["models"] == []


def test_a_broken_file_is_a_row_and_a_failure_of_what_names_it(
    tmp_path: Path, invoke: Invoke
) -> None:
    """The others are listed beside it."""
    invoke("add", babbler_path())
    models = tmp_path / "node" / "models"
    (models / "bad.gguf").write_bytes(b"[red]not a model[/red]" * 9)
    (models / "gone.gguf").symlink_to(tmp_path / "gone.gguf")
    rows = answer(invoke("list", "--json"))["models"]
    assert [row["name"] for row in rows] == ["babbler", "bad", "gone"]
    assert [row["error"] and row["error"]["error"] for row in rows] == [
        None,
        "engine.bad_model",
        "engine.bad_model",
    ]
    result = invoke("list")
    assert result.exit_code == 0
    assert "broken" in result.stdout
    for command in ("show", "test"):
        failed = invoke(command, "bad")
        assert isinstance(failed.exception, EngineError)
        assert failed.exception.code == "engine.bad_model"


def test_weights_that_are_no_numbers_fail_the_test(tmp_path: Path, invoke: Invoke) -> None:
    """Its header is good, so it is added; what it computes is not."""
    raw = bytearray(babbler_path().read_bytes())
    raw[-4096:] = b"\x00\x7e" * 2048
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    invoke("add", path)
    failed = invoke("test", "babbler")
    assert isinstance(failed.exception, EngineError)
    assert failed.exception.code == "engine.bad_model"
    (row,) = answer(invoke("list", "--json"))["models"]
    assert not row["self_test"]["passed"]
    assert "engine.bad_model" in row["self_test"]["why"]


@pytest.mark.parametrize("command", ["show", "test", "remove"])
def test_an_unknown_model_is_wrong_use(invoke: Invoke, command: str) -> None:
    result = invoke(command, "nothing")
    assert isinstance(result.exception, ConfigError)
    assert "no model named 'nothing'" in str(result.exception)


def test_the_configured_directory_is_used(tmp_path: Path, invoke: Invoke) -> None:
    """And `peerd run` sells what is in it, beside what --model names."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "config.toml").write_text(
        f'[provider]\nmodels_directory = "{elsewhere}"\n'
    )
    invoke("add", babbler_path())
    assert os.listdir(elsewhere) == ["babbler.gguf"]
    assert make_engine(tmp_path / "node", ProviderConfig()) is None
    provider = ProviderConfig(models_directory=str(elsewhere))
    assert make_engine(tmp_path / "node", provider) is not None


def test_listing_reads_a_file_once(tmp_path: Path, invoke: Invoke) -> None:
    """The second time its SHA-256 comes from the notes: nobody else could have said this one."""
    path = tmp_path / "some.gguf"
    path.write_bytes(babbler_path().read_bytes())
    os.utime(path, (10**9, 10**9))
    invoke("add", path)
    notes = tmp_path / "node" / NOTES_FILE
    true = hashlib.sha256(path.read_bytes()).hexdigest()
    notes.write_text(notes.read_text().replace(true, "ab" * 32))
    (row,) = answer(invoke("list", "--json"))["models"]
    assert row["sha256"] == "ab" * 32
