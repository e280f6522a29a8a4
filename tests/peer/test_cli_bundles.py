"""`peerd channels export` and `check`, on logs that a market made.

Source: protocol/README.md, "Settlement bundle".
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from peer.cli import peerd
from peer.daemon import LOG_DIRECTORY
from peer.identity import KEY_FILE
from peer.journal import Journal
from protocol.errors import ConfigError, LocalError, RemoteError
from simnet.peer import Peer
from tests.router.support import close_all, complete, key_of, make_world

Invoke = Callable[..., Result]
NETWORK = "sim"


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """`peerd` in this process; its settings of the logs are undone."""
    yield lambda *arguments: CliRunner().invoke(peerd, [str(part) for part in arguments])
    structlog.reset_defaults()


def home_of(peer: Peer, directory: Path) -> Path:
    """A data directory with the peer's key and log."""
    directory.mkdir()
    key = directory / KEY_FILE
    key.write_text(peer.signer.seed.hex() + "\n")
    os.chmod(key, 0o600)
    log = directory / LOG_DIRECTORY
    owner = key_of(peer)
    journal = Journal.open(log, network=NETWORK, owner=owner, on_entry=lambda entry: None)
    for number, payload in peer.log:
        journal.append_nowait(number, payload)
    journal.close()
    return directory


@pytest.fixture(params=["open", "closed"])
def homes(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A provider and a requester after two jobs on one channel."""
    world = make_world(standing_offers=False)
    provider, requester = world.peers
    for number in (1, 2):
        complete(world, requester, number)
    if request.param == "closed":
        close_all(world, requester)
    return home_of(provider, tmp_path / "provider"), home_of(requester, tmp_path / "requester")


def test_both_ends_export_the_same_evidence(
    homes: tuple[Path, Path], tmp_path: Path, invoke: Invoke
) -> None:
    """What one end can prove, the other can, and a third party needs no node to check it."""
    found = []
    for home in homes:
        (channel,) = json.loads(invoke("channels", "--json", "--data", home).stdout)["channels"]
        file = tmp_path / f"{home.name}.bundle"
        wrote = invoke(
            "channels", "export", channel["channel"][:8], "-o", file, "--data", home, "--json"
        )
        assert wrote.exit_code == 0, wrote.exception
        checked = invoke("channels", "check", file, "--json")
        assert checked.stdout == wrote.stdout
        found.append(json.loads(checked.stdout))
        assert found[-1]["owed_ucr"] == channel["voucher_total_ucr"]
        assert found[-1]["agreed_ucr"] == channel["due_ucr"]
        assert found[-1]["closed_ucr"] == channel["settled_ucr"]
    assert found[0] == found[1]
    assert (found[0]["agreed_jobs"], found[0]["claimed_jobs"]) == (2, 0)
    plain = invoke("channels", "check", tmp_path / "provider.bundle").stdout
    assert "Both signed that 2 jobs were delivered" in plain
    assert f"{found[0]['payer']} opened it to {found[0]['payee']}" in plain
    assert "can have the payee paid, and nobody else" in plain
    assert (tmp_path / "provider.bundle").read_bytes() == (
        tmp_path / "requester.bundle"
    ).read_bytes()


def test_a_changed_file_is_one_coded_error(
    homes: tuple[Path, Path], tmp_path: Path, invoke: Invoke
) -> None:
    """Exit status 1; a file that is none at all, too; one that is not there is wrong use."""
    (channel,) = json.loads(invoke("channels", "--json", "--data", homes[0]).stdout)["channels"]
    file = tmp_path / "bundle"
    invoke("channels", "export", channel["channel"], "-o", file, "--data", homes[0])
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    for content in (bytes(data), b"", b"hello"):
        file.write_bytes(content)
        result = invoke("channels", "check", file)
        assert isinstance(result.exception, RemoteError)
        assert result.exception.code.startswith("bundle.")
    result = invoke("channels", "check", tmp_path / "missing")
    assert isinstance(result.exception, ConfigError)


def test_what_can_not_be_exported_says_why(
    homes: tuple[Path, Path], tmp_path: Path, invoke: Invoke
) -> None:
    """No such channel; nowhere to write."""
    unknown = invoke("channels", "export", "ffff", "-o", tmp_path / "x", "--data", homes[0])
    assert isinstance(unknown.exception, LocalError)
    assert unknown.exception.code == "channel.unknown"
    (channel,) = json.loads(invoke("channels", "--json", "--data", homes[0]).stdout)["channels"]
    nowhere = tmp_path / "no" / "where"
    result = invoke("channels", "export", channel["channel"], "-o", nowhere, "--data", homes[0])
    assert result.exception is not None
    assert "storage.unwritable" in str(result.exception)
