"""Judges of what daemons said and left behind: events, logs, money, processes."""

from dataclasses import dataclass
from pathlib import Path

from peer.cli.books import read_ledger
from peer.identity import load_key
from peer.journal import verify_log
from protocol.channel import Channel, Role
from protocol.limits import CHUNK_TOKENS_MAX
from protocol.units import cost_ucr
from router.ledger import Ledger
from tests.e2e.support import Daemon, Json, run_json

# A full chunk at the dearest price that a test's provider sells at.
CHUNK_UCR = cost_ucr(0, CHUNK_TOKENS_MAX, 0, 60_000_000)
# What is lent on a lane: a chunk, and before the first one a prompt of under 64 tokens.
LANE_AHEAD_UCR = CHUNK_UCR + cost_ucr(64, 0, 15_000_000, 0)


def of(events: list[Json], kind: str) -> list[Json]:
    """The events of one kind."""
    return [event for event in events if event.get("event") == kind]


def answer_of(events: list[Json]) -> str:
    """The text of a request that must have succeeded."""
    assert of(events, "done"), events[-1]
    return "".join(event["text"] for event in of(events, "text"))


@dataclass(frozen=True, slots=True)
class Ends:
    """One channel as its two ends' logs have it."""

    payer: Channel
    payee: Channel


def ledger_of(daemon: Daemon) -> Ledger:
    """What a daemon's log says of its money; the log must verify."""
    report = verify_log(daemon.directory / "log")
    assert report.state != "corrupt", report
    return read_ledger(daemon.directory, load_key(daemon.directory).public_key)


def shared_channels(requester: Daemon, provider: Daemon) -> list[Ends]:
    """The channels that the provider's log has with this requester, each with both ends.

    Read in this order, the payer's log is never behind what the payee's has of it, though both
    may be written meanwhile.
    """
    earning = ledger_of(provider)
    paying = ledger_of(requester)
    return [
        Ends(paying.channels[cid], channel)
        for cid, channel in earning.channels.items()
        if channel.role is Role.PAYEE and channel.payer == paying.owner
    ]


def check_windows(ends: Ends) -> None:
    """What a crash may cost, from the two logs: no end owes the other more than its window.

    Vouchers run a chunk ahead on every open lane, and pay for its prompt before the first.
    """
    payer, payee = ends.payer, ends.payee
    bound = payee.terms.window_ucr + LANE_AHEAD_UCR * max(1, len(payer.lanes))
    assert abs(payer.due_ucr - payee.reserved_ucr) <= bound, (payer, payee)
    assert payee.total_ucr <= payer.total_ucr <= payer.deposit_ucr
    assert payer.deposit_ucr <= payee.deposit_ucr, "the payer counts on a top-up behind the payee"
    assert payee.reserved_ucr <= payee.total_ucr + payee.terms.window_ucr


def _process_state(path: Path) -> tuple[str, int] | None:
    """State letter and parent of a process by its /proc directory; None when it is gone."""
    try:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def workers_of(daemon: Daemon) -> list[int]:
    """The daemon's children, which are its engine's workers (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        state = _process_state(path)
        if state is not None and state[0] != "Z" and state[1] == daemon.pid:
            found.append(int(path.name))
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended (Linux)."""
    state = _process_state(Path(f"/proc/{pid}"))
    return state is None or state[0] == "Z"


def verify(daemon: Daemon) -> Json:
    """`peerd log verify`, which must find the log good."""
    report = run_json("log", "verify", "--data", str(daemon.directory))
    assert report["ok"]
    return report
