"""`peerd log` on files: what is exported, archived and signed can be checked, and damage is said.

Source: peer/README.md, "The log". In this process, without a daemon; with one: tests/e2e.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

import peer.cli
from peer.cli.identity import initialize
from peer.daemon import LOG_DIRECTORY
from peer.identity import load_key, peer_id
from peer.journal import Journal
from peer.upkeep import opened_heads
from protocol import limits
from protocol.errors import PeerdError
from protocol.log import FRAME_OVERHEAD_BYTES, HEADER_BYTES
from protocol.records import SnapshotBegun, SnapshotPart, SnapshotSigned
from router.ledger import Ledger
from router.snapshot import snapshot_parts
from tests.peer.journal_support import flip
from tests.peer.test_cli_offline import ended_at, issued, lane, write_channel

Peerd = Callable[..., dict[str, Any]]
PEER = bytes(range(32))


@pytest.fixture
def peerd() -> Iterator[Peerd]:
    """The object that a command prints; a failure's has its `error`, and one line on stderr."""

    def call(*arguments: object) -> dict[str, Any]:
        told = [*map(str, arguments), "--json"]
        result = CliRunner().invoke(peer.cli.peerd, told)
        if isinstance(result.exception, PeerdError):
            return {"error": result.exception.code, "detail": result.exception.detail}
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        found: dict[str, Any] = json.loads(result.stdout)
        assert (result.exit_code == 0) == ("error" not in found)
        if "error" in found:
            assert result.stderr.startswith(f"peerd: {found['error']}")
            assert result.stderr.count("\n") == 1
        return found

    yield call
    structlog.reset_defaults()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node that spent 8 ucr."""
    directory = tmp_path / "home"
    initialize(directory)
    write_channel(directory, key_of(directory), PEER, lane, issued(9), ended_at(8))
    return directory


def key_of(directory: Path) -> bytes:
    return load_key(directory).public_key


def owner(directory: Path) -> str:
    return peer_id(key_of(directory))


def exported(peerd: Peerd, home: Path, *options: object) -> Path:
    path = home.parent / "log.export"
    assert "error" not in peerd("log", "export", "-o", path, "--data", home, *options)
    return path


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.log"))


# --- exports -------------------------------------------------------------------------------


def test_an_export_is_checked_with_the_key_alone(peerd: Peerd, home: Path) -> None:
    """On another machine: no data directory, no node; the key as a peer id or in hex."""
    path = exported(peerd, home)
    whose = owner(home)
    key = key_of(home).hex()
    shutil.rmtree(home)
    for text in (whose, key, key.upper()):
        found = peerd("log", "verify", path, "--key", text)
        assert (found["ok"], found["owner"], found["records"]) == (True, whose, 5)
        assert (found["first_record"], found["signed_to"], found["heads"]) == (0, 3, 1)
        assert found["balance"]["spent_ucr"] == 8


def test_every_single_byte_of_an_export_counts(peerd: Peerd, home: Path) -> None:
    """Wherever a bit flips, the check fails with a code."""
    path, whose = exported(peerd, home), owner(home)
    whole = path.read_bytes()
    codes = set()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, place)
        found = peerd("log", "verify", path, "--key", whose)
        assert not found["ok"], place
        codes.add(found["error"])
    assert codes <= {"storage.corrupt", "storage.truncated", "storage.not_a_log"}


def test_an_export_that_was_cut_short_is_found(peerd: Peerd, home: Path) -> None:
    """In a record or between two; at nothing it is no export."""
    path, whose = exported(peerd, home), owner(home)
    whole = path.read_bytes()
    for length in (len(whole) - 1, HEADER_BYTES + FRAME_OVERHEAD_BYTES, HEADER_BYTES):
        path.write_bytes(whole[:length])
        assert peerd("log", "verify", path, "--key", whose)["error"] == "storage.truncated"
    for rest in (b"", b"peerdlog", b"x" * 900):
        path.write_bytes(rest)
        assert peerd("log", "verify", path, "--key", whose)["error"] == "storage.not_a_log"


def test_anothers_export_is_foreign(peerd: Peerd, home: Path) -> None:
    path = exported(peerd, home)
    found = peerd("log", "verify", path, "--key", peer_id(PEER))
    assert found["error"] == "storage.foreign"
    assert owner(home) in found["detail"]


def test_a_part_of_the_log_is_exported_up_to_the_next_signed_head(
    peerd: Peerd, home: Path
) -> None:
    """--from in the middle: frames and signatures are checked, but make no ledger."""
    peerd("log", "head", "--data", home)
    write_more(home)
    path = exported(peerd, home, "--from", 2, "--to", 3)
    found = peerd("log", "verify", path, "--key", owner(home))
    assert (found["first_record"], found["records"], found["signed_to"]) == (2, 5, 3)
    assert "balance" not in found
    missing = peerd("log", "export", "-o", path, "--to", 99, "--data", home)
    assert missing["error"] == "storage.truncated"
    assert not list(home.parent.glob("*.part"))


def write_more(home: Path) -> None:
    """Records after the last signed head."""
    with opened_heads(home, load_key(home)) as (_, context, _):
        (channel,) = context.ledger.channels.values()
        context.append(issued(20)(channel.cid))


@pytest.mark.parametrize(
    "options", [("--from", "3", "--to", "2"), ("FILE",), ("--key", "x")], ids=str
)
def test_wrong_use_is_said(home: Path, options: tuple[str, ...]) -> None:
    name = "export" if "--from" in options else "verify"
    more = ("-o", str(home / "x")) if name == "export" else ()
    arguments = ["log", name, *more, *options, "--data", str(home)]
    assert CliRunner().invoke(peer.cli.peerd, arguments).exit_code == 2


# --- heads ---------------------------------------------------------------------------------


def test_a_head_is_signed_once_for_the_same_records(peerd: Peerd, home: Path) -> None:
    first, second = (peerd("log", "head", "--data", home) for _ in range(2))
    assert first == second
    assert (first["record"], first["owner"], first["network"]) == (3, owner(home), "main")
    write_more(home)
    assert peerd("log", "head", "--data", home)["record"] == 5


def test_a_head_of_no_log(peerd: Peerd, tmp_path: Path) -> None:
    initialize(tmp_path / "new")
    found = peerd("log", "head", "--data", tmp_path / "new")
    assert found["error"] == "storage.no_log"


# --- archive -------------------------------------------------------------------------------


def small_segments(monkeypatch: pytest.MonkeyPatch, home: Path, count: int) -> None:
    """A log of several segments."""
    before = Journal.open

    def open_small(*arguments: Any, **options: Any) -> Journal:
        return before(*arguments, **options, segment_bytes_max=700)

    monkeypatch.setattr(Journal, "open", open_small)
    for _ in range(count):
        write_more(home)


def test_archived_segments_are_still_part_of_the_log(
    peerd: Peerd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch, home, 12)
    before = peerd("log", "verify", "--data", home)
    log, kept = home / LOG_DIRECTORY, home / "archive"
    old = segments(log)
    assert len(old) > 2
    found = peerd("log", "archive", "--data", home)
    assert (segments(kept), found["directory"]) == (old, str(kept))
    assert segments(log)[0] == f"{len(old):08d}.log"
    assert found["first_record"] == before["records"]
    after = peerd("log", "verify", "--data", home)
    assert (after["first_record"], after["balance"]) == (0, before["balance"])
    elsewhere = home.parent / "elsewhere"
    kept.rename(elsewhere)
    alone = peerd("log", "verify", "--data", home)
    assert (alone["ok"], alone["first_record"]) == (True, before["records"])
    assert alone["balance"] == before["balance"]
    whole = peerd("log", "verify", "--data", home, "--archive-dir", elsewhere)
    assert whole == after
    path = exported(peerd, home, "--archive-dir", elsewhere)
    assert peerd("log", "verify", path, "--key", owner(home))["first_record"] == 0
    assert exported(peerd, home, "--from", before["records"])
    found = peerd("log", "export", "-o", path, "--from", 0, "--data", home)
    assert found["error"] == "storage.truncated"


def test_keep_leaves_the_newest_of_the_old_segments(
    peerd: Peerd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch, home, 12)
    old = segments(home / LOG_DIRECTORY)
    peerd("log", "archive", "--data", home, "--keep", 2)
    assert segments(home / LOG_DIRECTORY)[:2] == old[-2:]
    assert segments(home / "archive") == old[:-2]


def test_what_stands_in_the_archive_already_is_never_written_over(
    peerd: Peerd, home: Path
) -> None:
    """Another node's segment has the same name: nothing is lost of either."""
    kept = home / "archive"
    kept.mkdir()
    (kept / "00000000.log").write_bytes(b"another node's")
    before = (home / LOG_DIRECTORY / "00000000.log").read_bytes()
    assert peerd("log", "archive", "--data", home)["error"] == "storage.archive"
    assert (kept / "00000000.log").read_bytes() == b"another node's"
    assert (home / LOG_DIRECTORY / "00000000.log").read_bytes() == before


# --- damage --------------------------------------------------------------------------------


def test_a_segment_that_is_missing_cut_or_anothers_is_said(
    peerd: Peerd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(monkeypatch, home, 12)
    log = home / LOG_DIRECTORY
    kept = {path: path.read_bytes() for path in log.glob("*.log")}
    other = tmp_path / "other"
    initialize(other)
    write_channel(other, key_of(other), PEER, lane)
    middle = log / "00000001.log"
    foreign = (other / LOG_DIRECTORY / "00000000.log").read_bytes()
    for data, code in (
        (None, "storage.corrupt"),
        (kept[middle][:-9], "storage.corrupt"),
        (kept[log / "00000000.log"], "storage.corrupt"),
        (foreign, "storage.foreign"),
    ):
        middle.unlink() if data is None else middle.write_bytes(data)
        found = peerd("log", "verify", "--data", home)
        assert found["error"] == code
        middle.write_bytes(kept[middle])
    assert peerd("log", "verify", "--data", home)["ok"]
    assert {path: path.read_bytes() for path in log.glob("*.log")} == kept


def test_a_snapshot_that_lies_is_found_by_verify_and_by_nothing_before(
    peerd: Peerd, home: Path
) -> None:
    """Its owner signed it: a start takes it, the check of the whole log does not."""
    with opened_heads(home, load_key(home)) as (heads, context, _):
        assert context.log is not None
        rich = Ledger("main", key_of(home))
        rich.forgotten_earned_ucr = 10**9
        parts = list(snapshot_parts(rich))
        context.append(SnapshotBegun(len(parts)))
        for part in parts:
            context.append(SnapshotPart(part))
        context.append(SnapshotSigned(heads._sign(context.log), 1))
    assert peerd("log", "verify", "--data", home)["error"] == "storage.bad_snapshot"


def test_a_log_that_is_in_use_is_not_signed_by_another(peerd: Peerd, home: Path) -> None:
    """A daemon has the lock and does not answer: it is told, and nothing changes."""
    journal = Journal.open(
        home / LOG_DIRECTORY, network="main", owner=key_of(home), on_entry=lambda entry: None
    )
    try:
        for command in ("head", "archive"):
            assert peerd("log", command, "--data", home)["error"] == "storage.locked"
        assert peerd("log", "verify", "--data", home)["records"] == 4
    finally:
        journal.close()


def test_a_long_log_is_read_from_its_snapshot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start replays is bounded by SNAPSHOT_RECORDS, however long the log is."""
    monkeypatch.setattr(limits, "SNAPSHOT_RECORDS", 20)
    with opened_heads(home, load_key(home)) as (heads, context, _):
        (channel,) = context.ledger.channels.values()
        for total in range(20, 400):
            context.append(issued(total)(channel.cid))
            heads.tick()
    with opened_heads(home, load_key(home)) as (_, context, journal):
        report = journal.report
        assert report.records > 400
        assert report.records - report.replayed_from < 60
        (channel,) = context.ledger.channels.values()
        assert channel.total_ucr == 399
