"""What `peerd run` and `peerd gateway` make of file, environment and flags."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from click.testing import CliRunner

from peer.cli import peerd
from peer.cli.identity import initialize
from peer.config import Config


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Config]]:
    """The configurations with which nodes would start; none does."""
    configs: list[Config] = []

    def begin(_: Any, directory: Path, signer: Any, config: Config, *more: Any) -> None:
        configs.append(config)

    monkeypatch.setattr(trio, "run", begin)
    yield configs
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("command", "file", "variable", "flag", "listens"),
    [
        ("gateway", "", "", "", "127.0.0.1:4180"),
        ("gateway", "127.0.0.1:1", "", "", "127.0.0.1:1"),
        ("gateway", "127.0.0.1:1", "127.0.0.1:2", "", "127.0.0.1:2"),
        ("gateway", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:3"),
        ("run", "", "", "", ""),
        ("run", "127.0.0.1:1", "", "", "127.0.0.1:1"),
        ("run", "127.0.0.1:1", "", "127.0.0.1:3", "127.0.0.1:3"),
    ],
)
def test_where_the_api_listens(
    tmp_path: Path,
    started: list[Config],
    command: str,
    file: str,
    variable: str,
    flag: str,
    listens: str,
) -> None:
    """Flags over environment over file; a gateway listens without being told where."""
    initialize(tmp_path)
    if file:
        (tmp_path / "config.toml").write_text(f'[api]\nlisten = "{file}"\n')
    arguments = [command, "--data", str(tmp_path), *(("--api", flag) if flag else ())]
    environment = {"PEERD_API_LISTEN": variable or None}
    result = CliRunner().invoke(peerd, arguments, env=environment)
    assert result.exit_code == 0, result.exception
    assert [config.api.listen for config in started] == [listens]
