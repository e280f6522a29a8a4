"""What goes wrong between processes: one line with a code, an exit status, and nothing lost.

Source: README, "Run a node". What needs no other process is in tests/peer/test_cli_errors.py.
"""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from peer.cli.identity import initialize
from tests.e2e.judging import answer_of
from tests.e2e.support import (
    LISTEN,
    NETWORK,
    PATIENCE_S,
    Daemon,
    Market,
    provider_flags,
    run,
    run_json,
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A requester and a provider with something in their logs; no test here harms them."""
    Daemon.started.clear()
    with ExitStack() as stack:
        made = Market(tmp_path_factory.mktemp("errors"), stack)
        (provider,) = made.sell(provider_flags())
        answer_of(made.requester.ask(max_tokens=8, providers_only=[provider.peer_id]))
        yield made


def refuse(status: int, code: str, hint: str, *arguments: str) -> None:
    """The command ends with this status and, as its last words, one line that says why."""
    done = run(*arguments, "--json")
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"peerd: {code} "), done.stderr
    assert hint in last
    value = json.loads(done.stdout)
    error = value["error"]
    assert (error["code"] if isinstance(error, dict) else error) == code


def test_request_that_nobody_bids_on(market: Market) -> None:
    """A model that nobody has, a price too low, an answer too long: what to look at is said."""
    requester = market.requester
    where = ("--data", str(requester.directory), "--window-ms", "300")
    hint = "see `peerd models`"
    refuse(1, "request.unknown_model", hint, "ask", "hello?", *where, "--model", "no-such-model")
    # Who can't win is silent; what sellers asked before tells a price too low all the same.
    for changes in ({"max_price_ucr": 1}, {"max_tokens": 100_000}):
        (*_, failed) = requester.ask(bid_window_ms=300, **changes)
        assert failed["code"] in ("request.no_bids", "request.price_too_low")
        assert failed["paid_ucr"] == 0


def test_deposit_is_cut_to_what_the_provider_believes(market: Market) -> None:
    """A channel's deposit is at most the credit limit of 10 credits, less what is still owed for
    closed channels, however much is offered."""
    requester, (provider,) = market.requester, market.providers
    requester.call("close")
    owed = sum(item["settled_ucr"] or 0 for item in provider.channels())
    only = {"max_tokens": 8, "providers_only": [provider.peer_id]}
    answer_of(requester.ask(deposit_ucr=10**12, **only))
    (channel,) = [item for item in requester.channels() if item["state"] == "ready"]
    assert channel["deposit_ucr"] == 10_000_000 - owed


def test_second_daemon_on_a_directory(market: Market) -> None:
    """It is refused, and the first one goes on."""
    where = ("--data", str(market.requester.directory))
    refuse(1, "storage.locked", "stop it or choose another", "run", *where, "--listen", LISTEN)
    assert market.requester.status()["peer_id"] == market.requester.peer_id


def test_busy_port(tmp_path: Path) -> None:
    """The address is named."""
    initialize(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        hint = f"({address}): the listen address can't be used; is the port busy?"
        refuse(1, "network.listen", hint, "run", "--data", str(tmp_path), "--listen", address)


def copy_of(daemon: Daemon, tmp_path: Path) -> Path:
    """A node's directory as it is now, to be damaged."""
    copy = tmp_path / "copy"
    shutil.copytree(daemon.directory, copy, ignore=shutil.ignore_patterns("control.sock"))
    return copy


def test_log_damaged_in_its_middle(market: Market, tmp_path: Path) -> None:
    """The daemon refuses to start on it and changes no byte; `log verify` says where."""
    home = copy_of(market.requester, tmp_path)
    path = home / "log" / "00000000.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    flags = ("--data", str(home), "--network", NETWORK, "--listen", LISTEN)
    refuse(1, "storage.corrupt", "00000000.log at offset", "run", *flags)
    refuse(1, "storage.corrupt", "restore it", "log", "verify", "--data", str(home))
    assert path.read_bytes() == data
    assert sorted(item.name for item in (home / "log").iterdir()) == ["00000000.log", "lock"]


def test_log_that_ends_in_a_half_record(market: Market, tmp_path: Path) -> None:
    """A torn tail is set aside, and the node starts with all records before it; a service
    manager hears when it is ready, and when it stops."""
    home = copy_of(market.requester, tmp_path)
    path = home / "log" / "00000000.log"
    path.write_bytes(path.read_bytes()[:-3])
    report = run_json("log", "verify", "--data", str(home))
    assert report["state"] == "torn_tail"
    with ExitStack() as stack:
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        daemon = Daemon(home)
        daemon.settings["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        stack.callback(daemon.end)
        assert daemon.start().ready["records"] == report["records"]
        assert manager.recv(100) == f"READY=1\nMAINPID={daemon.process.pid}".encode()
        daemon.begin_end()
        assert manager.recv(100) == b"STOPPING=1"
    assert list((home / "log").glob("torn-*.bin"))
    assert run_json("log", "verify", "--data", str(home))["state"] == "clean"


@pytest.mark.parametrize("whose", ["node", "network"])
def test_log_of_another(market: Market, tmp_path: Path, whose: str) -> None:
    """Another node's log, or one of another network, is no place to write to."""
    home = copy_of(market.requester, tmp_path)
    network = NETWORK
    if whose == "node":
        shutil.copy(market.providers[0].directory / "key", home / "key")
    else:
        network = "elsewhere"
    before = (home / "log" / "00000000.log").read_bytes()
    flags = ("--data", str(home), "--network", network, "--listen", LISTEN)
    refuse(1, "storage.foreign", "belongs to another node or network", "run", *flags)
    assert (home / "log" / "00000000.log").read_bytes() == before
