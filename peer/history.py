"""What was bought and sold, job by job, from the log alone; and its sums.

Pure but for the clock's calendar: days are UTC. Knows nothing of channels' states.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from peer.identity import peer_id
from protocol import records
from protocol.messages import Receipt
from protocol.signing import cheque_id, opened_id, receipt_id
from protocol.units import NS_PER_S

Json = dict[str, Any]

GROUPS: Final = ("peer", "provider", "model", "strategy", "day", "hour")
UNKNOWN: Final = "unknown"  # the strategy of a job that was bought before logs had it


@dataclass(slots=True)
class SettledJob:
    """One lane that ended; `code` is empty where a receipt says how.

    `role` is ours: payer bought, payee sold. `agreed` says that both signed the receipt.
    """

    cid: bytes
    lane: int
    role: str
    peer: bytes
    model: str
    at_ns: int
    cost_ucr: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    code: str = ""
    receipt_id: bytes = b""
    agreed: bool = False
    ended: bool = False
    strategy: str = ""  # by which its provider was chosen; the payer's log alone knows

    @property
    def day(self) -> str:
        """The UTC day on which it began, 2026-01-31."""
        return self.hour[:10]

    @property
    def hour(self) -> str:
        """The UTC hour in which it began, 2026-01-31T14."""
        return datetime.fromtimestamp(self.at_ns // NS_PER_S, UTC).isoformat()[:13]


class History:
    """The fold of a log into jobs, in the order in which their lanes were opened."""

    def __init__(self, owner: bytes) -> None:
        self._owner = owner
        self._peers: dict[bytes, tuple[str, bytes]] = {}  # channel -> our role, the other end
        self._jobs: dict[tuple[bytes, int], SettledJob] = {}
        self._bought: dict[tuple[bytes, bytes], SettledJob] = {}  # request, provider -> its last
        self._cheques: dict[tuple[bytes, int], bytes] = {}  # user and nonce -> id, while open

    def jobs(self) -> Iterator[SettledJob]:
        """Those that ended."""
        return (job for job in self._jobs.values() if job.ended)

    def take(self, network: str, record: Any) -> None:
        """Fold one record in; most say nothing of jobs."""
        match record:
            case records.ChannelOpened():
                cid = opened_id(network, record)
                paying = record.payer == self._owner
                other = record.payee if paying else record.payer
                self._peers[cid] = ("payer" if paying else "payee", other)
            case records.LaneOpened():
                role, other = self._peers.get(record.cid, ("", b""))
                self._jobs[record.cid, record.lane] = opened = SettledJob(
                    record.cid, record.lane, role, other, record.model, record.opened_at_ns
                )
                if role == "payer":
                    self._bought[record.request_id, other] = opened
            case records.AwardJudged():
                bought = self._bought.pop((record.request_id, record.provider), None)
                if bought is not None:
                    bought.strategy = record.strategy
            case records.LaneClosed():
                job = self._jobs.get((record.cid, record.lane))
                if job is not None:
                    job.cost_ucr, job.code = record.due_ucr, record.code
                    job.ended, job.receipt_id = True, b""
            case records.ReceiptSigned():
                self._received(record.receipt, agreed=False)
            case records.ReceiptAcknowledged():
                self._received(record.receipt, agreed=True)
            case records.ChequeTaken():
                self._take_cheque(network, record)
            case records.ChequeCharged():
                self._charge(record)
            case records.ReceiptCountersigned():
                job = self._jobs.get((record.cid, record.lane))
                if job is not None and job.receipt_id == record.receipt_id:
                    job.agreed = True

    def _take_cheque(self, network: str, record: records.ChequeTaken) -> None:
        """A job whose channel and lane are the cheque's id and 0."""
        cheque = record.cheque
        self._cheques[cheque.user, cheque.nonce] = cid = cheque_id(network, cheque)
        self._jobs[cid, 0] = SettledJob(
            cid, 0, "payee", cheque.user, record.model, record.taken_at_ns
        )

    def _charge(self, record: records.ChequeCharged) -> None:
        cid = self._cheques.pop((record.user, record.nonce), b"")
        job = self._jobs.get((cid, 0))
        if record.receipt is not None:
            self._received(record.receipt, agreed=False)
        elif job is not None:
            job.cost_ucr, job.code, job.ended = record.cost_ucr, record.code, True

    def _received(self, receipt: Receipt, *, agreed: bool) -> None:
        job = self._jobs.get((receipt.cid, receipt.lane))
        if job is None:
            return
        job.cost_ucr, job.code, job.ended = receipt.price_ucr, "", True
        job.input_tokens, job.output_tokens = receipt.input_tokens, receipt.output_tokens
        job.receipt_id, job.agreed = receipt_id(receipt), agreed


def job_json(job: SettledJob, owner: bytes) -> Json:
    """One job in the log of `owner`; amounts in ucr."""
    bought = job.role == "payer"
    peer = peer_id(job.peer) if job.peer else ""
    return {
        "at_ns": job.at_ns,
        "day": job.day,
        "hour": job.hour,
        "role": job.role,
        "peer": peer,
        "provider": peer if bought else peer_id(owner),
        "strategy": (job.strategy or UNKNOWN) if bought else None,
        "model": job.model,
        "channel": job.cid.hex(),
        "lane": job.lane,
        "input_tokens": job.input_tokens,
        "output_tokens": job.output_tokens,
        "cost_ucr": job.cost_ucr,
        "error": job.code or None,
        "receipt_id": job.receipt_id.hex() or None,
        "countersigned": job.agreed,
    }


def sums_json(jobs: Iterable[Json], by: str) -> list[Json]:
    """The jobs' sums by one of GROUPS, the name first; sorted by name. Only what was bought has
    a strategy; the rest is `sold`."""
    rows: dict[str, Json] = {}
    for job in jobs:
        name = job[by] if job[by] is not None else "sold"
        row = rows.setdefault(
            name,
            {by: name, "jobs": 0, "failed": 0, "input_tokens": 0, "output_tokens": 0}
            | {"spent_ucr": 0, "earned_ucr": 0, "net_ucr": 0},
        )
        paid = job["role"] == "payer"
        row["jobs"] += 1
        row["failed"] += job["error"] is not None
        row["input_tokens"] += job["input_tokens"]
        row["output_tokens"] += job["output_tokens"]
        row["spent_ucr" if paid else "earned_ucr"] += job["cost_ucr"]
        row["net_ucr"] += -job["cost_ucr"] if paid else job["cost_ucr"]
    return [rows[name] for name in sorted(rows)]
