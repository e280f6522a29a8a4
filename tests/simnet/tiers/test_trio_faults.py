"""Whole daemons that die, start again and see wrong times do what the event heap's nodes do.

Source: simnet/README.md, "Tiers". Disks are slow here, so that crashes find records unwritten.
"""

from pathlib import Path
from typing import Any

import pytest

from peer.journal import Journal, read_entries
from protocol.log import LogEntry
from simnet.disk import VirtualDisk
from simnet.peer import Peer
from simnet.scenario import Scenario
from simnet.scenario.faults import AnyFault, Churn, Crash, FlashCrowd, Partition, Skew, SlowDisk
from simnet.scenario.market import Providers, Requesters
from simnet.scenario.network import Disk
from simnet.tiers import shell
from simnet.tiers.life import Record, after_crash
from simnet.tiers.trio_tier import TrioRun

HERE = Path()
LOG = Path("/node/log")
RECORDS: list[Record] = [(2, bytes([number]) * 40) for number in range(6)]


def small(*faults: AnyFault) -> Scenario:
    """14 nodes, three requests a second, disks that take 400 ms."""
    return Scenario(
        name="small",
        nodes=14,
        duration_s=20,
        providers=(Providers(count=6),),
        requesters=(Requesters(count=6, requests_per_s=3.0),),
        disk=Disk(sync_us=400_000),
        faults=faults,
    )


def summary_of(settings: Scenario, seed: int) -> dict[str, Any]:
    """Of a run in both tiers, whose logs are equal to the byte."""
    summary = TrioRun(settings, seed, HERE).go()
    assert summary["checks_ok"], summary["faults"]
    assert summary["decisions"]["same_logs"], summary["decisions"]["differences"]
    return summary


# --- clocks and crowds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        (Skew(skew_ms=1_500, at_s=3, for_s=8, every_s=3),),
        (
            Partition(nodes=5, at_s=2, for_s=3, every_s=5),
            SlowDisk(sync_ms=150),
            FlashCrowd(group="requesters", requests=25, at_s=3),
        ),
    ],
    ids=["skew", "crowd"],
)
def test_wrong_clocks_and_crowds_leave_the_same_logs(faults: tuple[AnyFault, ...]) -> None:
    """Timers of daemons follow a clock that is set; where many act in one nanosecond, as a crowd
    and all that follows from it does, both tiers have one order."""
    assert summary_of(small(*faults), 1)["decisions"]["decisions"] > 150


# --- crashes -----------------------------------------------------------------------------------


def test_daemons_that_come_and_go_leave_the_same_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed without a goodbye, often with records that no sync reached, some of which survive."""
    tails: list[tuple[int, bool]] = []

    def watched(*arguments: Any) -> VirtualDisk:
        tails.append((len(arguments[-2]), arguments[-1] is not None))
        return after_crash(*arguments)

    monkeypatch.setattr(shell, "after_crash", watched)
    churn = Churn(up_s=8, down_s=2, lost_records=4)
    crash = Crash(nodes=3, at_s=1, for_s=1, every_s=1, lost_records=4)
    summary = summary_of(small(churn, crash), 1)
    assert summary["decisions"]["decisions"] > 10
    assert summary["failures"]["request.cancelled"] > 2
    assert any(kept for kept, _ in tails)
    assert any(torn for _, torn in tails)


def written(disk: VirtualDisk) -> list[Record]:
    """The records of a log."""
    return [(entry.type, entry.payload) for entry in read_entries(LOG, disk=disk)]


def test_a_crash_keeps_what_was_synced_and_so_much_of_the_rest() -> None:
    """Two records synced, two more that survived, one torn, one lost: a daemon finds four, and
    sets the torn bytes aside."""

    def opened(disk: VirtualDisk, seen: list[LogEntry]) -> Journal:
        return Journal.open(
            LOG,
            network="sim",
            owner=bytes(32),
            on_entry=seen.append,
            disk=disk,
        )

    disk = VirtualDisk()
    journal = opened(disk, [])
    for record in RECORDS[:2]:
        journal.append_nowait(*record)
    journal.flush()
    for record in RECORDS[2:]:
        journal.append_nowait(*record)
    left = after_crash(disk, LOG, "sim", bytes(32), RECORDS[2:4], RECORDS[4])
    journal.close()  # the dead process goes on for a moment: not on this disk
    assert written(disk) == RECORDS
    seen: list[LogEntry] = []
    again = opened(left, seen)
    assert [(entry.type, entry.payload) for entry in seen] == RECORDS[:4]
    assert again.report.torn_bytes > 0
    again.append_nowait(*RECORDS[5])
    again.close()
    assert written(left) == [*RECORDS[:4], RECORDS[5]]


def test_the_dead_are_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a daemon's tasks still do while they unwind draws no chance, sends nothing, writes
    nothing: its peers learn of its death as of any."""
    acted: list[tuple[bool, bool]] = []
    perform = shell.ShellDaemon.perform

    def watched(daemon: shell.ShellDaemon, action: Any) -> None:
        before = daemon._world.links.sent_bytes, len(peer_of(daemon).log)
        perform(daemon, action)
        after = daemon._world.links.sent_bytes, len(peer_of(daemon).log)
        acted.append((daemon.life.over, before != after))

    def peer_of(daemon: shell.ShellDaemon) -> Peer:
        return daemon.life.peer

    monkeypatch.setattr(shell.ShellDaemon, "perform", watched)
    summary_of(small(Crash(group="requesters", at_s=4, for_s=2, every_s=3)), 1)
    assert (True, False) in acted
    assert (True, True) not in acted
