"""What a person sees: no cell is cut, nothing is an empty table, and what is new is no damage.

Source: peer/cli/screen.py, credit.py, peer/upkeep.py.
"""

import socket
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from rich.console import Console

import peer.cli
from peer.cli.channels import channels_table
from peer.cli.identity import initialize
from peer.cli.screen import Screen
from peer.daemon import LOG_DIRECTORY
from peer.errors import first_error
from peer.identity import load_key
from peer.journal import Journal
from protocol.errors import NetworkError
from protocol.units import format_credits

AMOUNT_UCR = 1_234_567


def drawn(width: int, draw: Callable[[Console], None]) -> str:
    console = Console(width=width, record=True, file=StringIO())
    draw(console)
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_digit_of_an_amount_is_cut(width: int) -> None:
    names = ("deposit", "voucher_total", "due", "refund")
    row: dict[str, Any] = {f"{name}_ucr": AMOUNT_UCR for name in names}
    row |= {"channel": "5d" * 32, "role": "payer", "peer": "12D3KooW" * 5, "state": "ready"}
    text = drawn(width, lambda console: console.print(channels_table([row])))
    assert text.count("…") == 1  # the peer id's own
    assert width == 40 or text.count(format_credits(AMOUNT_UCR)) == len(names)


def test_an_award_by_an_offer_shows_no_table_of_bids() -> None:
    screen = Screen()

    def draw(console: Console) -> None:
        screen.progress = console
        screen.show({"event": "award", "provider": "12D3KooW", "role": "award", "at_ms": 3.0})

    assert drawn(80, draw).strip() == "+3 ms  awarded to 12D3KooW, by its standing offer"


@pytest.mark.parametrize("command", [("credit", "list"), ("cheques", "list"), ("witness",)])
def test_nobody_is_a_line(command: tuple[str, ...], tmp_path: Path) -> None:
    initialize(tmp_path / "new")
    told = CliRunner().invoke(peer.cli.peerd, [*command, "--data", str(tmp_path / "new")])
    structlog.reset_defaults()
    assert told.output.startswith("no ")
    assert len(told.output.splitlines()) == 1


def test_the_head_of_a_log_without_records_was_not_rolled_back(tmp_path: Path) -> None:
    initialize(tmp_path / "new")
    owner = load_key(tmp_path / "new").public_key
    path = tmp_path / "new" / LOG_DIRECTORY
    Journal.open(path, network="main", owner=owner, on_entry=lambda entry: None).close()
    told = CliRunner().invoke(peer.cli.peerd, ["log", "head", "--data", str(tmp_path / "new")])
    structlog.reset_defaults()
    assert getattr(told.exception, "code", None) == "storage.no_log"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_busy_port_of_the_api_is_named(tmp_path: Path) -> None:
    initialize(tmp_path / "new")
    here = ["--data", str(tmp_path / "new"), "--listen", "/ip4/127.0.0.1/tcp/0"]
    with socket.create_server(("127.0.0.1", 0)) as busy:
        api = f"127.0.0.1:{busy.getsockname()[1]}"
        told = CliRunner().invoke(peer.cli.peerd, ["gateway", "--api", api, *here])
    structlog.reset_defaults()
    assert isinstance(told.exception, BaseException)
    error = first_error(told.exception)
    assert isinstance(error, NetworkError)
    assert error.code == "network.listen"
    assert api in error.detail
    assert "in use" in error.detail
