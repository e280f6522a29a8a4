"""Commands that read a node's log without a daemon: whose log it is, and what it says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from peer.cli import peerd
from peer.cli.audit import audit
from peer.cli.identity import initialize
from peer.daemon import LOG_DIRECTORY
from peer.identity import load_key
from peer.journal import Journal
from protocol import signing
from protocol.fields import ChannelTerms
from protocol.messages import Voucher
from protocol.records import (
    ChannelClosed,
    ChannelOpened,
    LaneClosed,
    LaneOpened,
    VoucherAccepted,
    VoucherIssued,
    encode_record,
)

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """`peerd` in this process; its settings of the logs are undone."""
    yield lambda *arguments: CliRunner().invoke(peerd, [str(part) for part in arguments])
    structlog.reset_defaults()


def write_log(directory: Path, network: str) -> None:
    """A node whose log holds one channel with one lane, on `network`."""
    initialize(directory)
    owner = load_key(directory).public_key
    terms = ChannelTerms(window_ucr=5, deposit_max_ucr=100, lifetime_ns=10**15, challenge_ns=1)
    opened = ChannelOpened(owner, bytes(32), bytes(16), bytes(16), terms, 100, 7)
    cid = signing.channel_id(network, owner, bytes(32), bytes(16), bytes(16), terms)
    lane = LaneOpened(cid, 1, bytes(32), bytes(32), "embedded", 15, 60, 8, b"")
    journal = Journal.open(
        directory / LOG_DIRECTORY, network=network, owner=owner, on_entry=lambda entry: None
    )
    for record in (opened, lane):
        journal.append_nowait(*encode_record(record))
    journal.close()


def test_log_of_a_network_that_a_flag_named_is_read(tmp_path: Path, invoke: Invoke) -> None:
    """The log itself says its network: `run --network` needs no flag when the log is read."""
    write_log(tmp_path, "elsewhere")
    verified = invoke("log", "verify", "--data", tmp_path, "--json")
    assert verified.exit_code == 0, verified.exception
    report = json.loads(verified.stdout)
    assert (report["ok"], report["network"], report["channels"]) == (True, "elsewhere", 1)
    listed = invoke("channels", "--data", tmp_path, "--json")
    assert listed.exit_code == 0, listed.exception
    (channel,) = json.loads(listed.stdout)["channels"]
    assert (channel["role"], channel["deposit_ucr"]) == ("payer", 100)


@pytest.mark.parametrize("command", [("log", "verify"), ("channels",)])
def test_log_of_another_node_is_foreign(
    tmp_path: Path, invoke: Invoke, command: tuple[str, ...]
) -> None:
    """A log beside a key that is not its owner's is refused, not read as one's own money."""
    write_log(tmp_path / "one", "main")
    initialize(tmp_path / "other")
    (tmp_path / "one" / LOG_DIRECTORY).rename(tmp_path / "other" / LOG_DIRECTORY)
    result = invoke(*command, "--data", tmp_path / "other")
    assert result.exit_code == 1
    assert "storage.foreign" in f"{result.stderr}{result.exception}"


def test_damaged_log_is_one_line_and_status_1(tmp_path: Path, invoke: Invoke) -> None:
    """`log verify` says where the damage is, with the code, in both forms."""
    write_log(tmp_path, "main")
    path = tmp_path / LOG_DIRECTORY / "00000000.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    plain = invoke("log", "verify", "--data", tmp_path)
    assert plain.exit_code == 1
    assert plain.stderr.startswith("peerd: storage.corrupt (00000000.log at offset")
    assert plain.stderr.count("\n") == 1
    as_json = invoke("log", "verify", "--data", tmp_path, "--json")
    assert as_json.exit_code == 1
    report = json.loads(as_json.stdout)
    assert (report["ok"], report["error"]) == (False, "storage.corrupt")
    assert "offset" in report["detail"]


# --- the audit of several logs -------------------------------------------------------------

TERMS = ChannelTerms(window_ucr=5, deposit_max_ucr=100, lifetime_ns=10**15, challenge_ns=1)


def write_channel(directory: Path, payer: bytes, payee: bytes, *rest: Any) -> None:
    """One end's log of the channel between these nodes, with more records made from its id."""
    opened = ChannelOpened(payer, payee, bytes(16), bytes(16), TERMS, 100, 7)
    cid = signing.channel_id("main", payer, payee, bytes(16), bytes(16), TERMS)
    owner = load_key(directory).public_key
    log = directory / LOG_DIRECTORY
    journal = Journal.open(log, network="main", owner=owner, on_entry=lambda entry: None)
    for record in (opened, *(make(cid) for make in rest)):
        journal.append_nowait(*encode_record(record))
    journal.close()


def lane(cid: bytes) -> LaneOpened:
    return LaneOpened(cid, 1, bytes(32), bytes(32), "embedded", 15, 60, 8, b"")


def ended_at(due_ucr: int) -> Callable[[bytes], LaneClosed]:
    return lambda cid: LaneClosed(cid, 1, 1, due_ucr, "engine.crashed", 9)


def issued(total_ucr: int) -> Callable[[bytes], VoucherIssued]:
    return lambda cid: VoucherIssued(cid, total_ucr, ())


def accepted(total_ucr: int) -> Callable[[bytes], VoucherAccepted]:
    return lambda cid: VoucherAccepted(Voucher(cid, total_ucr, (), bytes(64)))


def refused(cid: bytes) -> ChannelClosed:
    return ChannelClosed(cid, 0, 2, 9, b"", b"")


@pytest.mark.parametrize(
    ("payer_records", "payee_records", "conserved"),
    [
        ([lane, issued(9), ended_at(8)], [lane, accepted(9), ended_at(8)], True),
        ([lane, issued(9), ended_at(8)], [lane, accepted(9), ended_at(7)], False),
        ([lane, issued(9), ended_at(8)], [lane, accepted(10), ended_at(8)], False),
        ([lane, issued(101), ended_at(8)], [lane, accepted(9), ended_at(8)], False),
        # Busy providers refuse an award with its opening, and keep no trace of either.
        ([lane, issued(9), ended_at(0), refused], None, True),
        ([lane, issued(9), ended_at(8)], None, False),
        (None, [lane, accepted(9), ended_at(8)], False),
    ],
)
def test_audit_finds_what_does_not_agree(
    tmp_path: Path,
    payer_records: list[Any] | None,
    payee_records: list[Any] | None,
    conserved: bool,
) -> None:
    """Both ends say one price and no voucher is invented; only a refused opening has one end."""
    ends = [tmp_path / "payer", tmp_path / "payee"]
    for directory in ends:
        initialize(directory)
    payer, payee = (load_key(directory).public_key for directory in ends)
    for directory, records in zip(ends, (payer_records, payee_records), strict=True):
        if records is not None:
            write_channel(directory, payer, payee, *records)
        else:
            owner = load_key(directory).public_key
            log = directory / LOG_DIRECTORY
            Journal.open(log, network="main", owner=owner, on_entry=lambda entry: None).close()
    findings = audit(ends, "main")
    assert findings == {"logs_ok": True, "receipts_ok": False, "conserved": conserved}


def test_channels_of_a_node_that_never_ran_are_none(invoke: Invoke, tmp_path: Path) -> None:
    """An empty list, not an error: nothing was bought or sold yet."""
    initialize(tmp_path / "node")
    result = invoke("channels", "--data", tmp_path / "node", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["channels"] == []


def test_every_command_but_one_takes_json() -> None:
    """Source: README, "Commands"."""

    def without(command: click.Command, name: str) -> list[str]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            named = [
                (one, command.get_command(context, one)) for one in command.list_commands(context)
            ]
            return [
                path for one, found in named if found for path in without(found, f"{name} {one}")
            ]
        return [] if any("--json" in option.opts for option in command.params) else [name]

    assert without(peerd, "peerd") == ["peerd mcp"]
