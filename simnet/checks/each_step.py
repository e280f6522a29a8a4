"""Checks after every step of every node: the money's invariants, executions, logs.

Looks at what nodes want, what leaves them and what is durable; knows nothing of how the rules are
kept. Each check costs about what changed. An adversary's own acts are not judged, what honest
nodes do with it is. Rule: router/README.md, "Money" (I1 to I6).
"""

from typing import TYPE_CHECKING, Any, Final

from protocol import crypto, records, wire
from protocol.channel import Channel, Role
from protocol.framing import HEADER_BYTES
from protocol.messages import Award, Chunk, Voucher
from protocol.signing import opened_id
from router import actions as act
from router.actions import Action
from router.ledger import Ledger
from simnet.peer import Peer

if TYPE_CHECKING:
    from simnet.simulation import Simulation

_WATCHED: Final = (Award, Chunk, Voucher)


class CheckFailed(Exception):
    """A rule does not hold; `step` counts the steps of all nodes, from 1."""

    def __init__(self, rule: str, detail: str, node: int, step: int, at_ns: int) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule, self.detail = rule, detail
        self.node, self.step, self.at_ns = node, step, at_ns


class Durable:
    """What one node's disk holds for certain of its channels."""

    __slots__ = ("_read", "accepted", "issued", "reserved", "sent", "sent_ucr", "windows")

    def __init__(self) -> None:
        self._read = 0
        self.issued: dict[bytes, int] = {}
        self.accepted: dict[bytes, int] = {}
        self.windows: dict[bytes, int] = {}
        self.reserved: dict[tuple[bytes, int], int] = {}
        # Not on the disk, but bounded by it: the price of all chunks that left.
        self.sent: dict[tuple[bytes, int], int] = {}
        self.sent_ucr: dict[bytes, int] = {}

    def read(self, peer: Peer, network: str) -> "Durable":
        """Fold what became durable since: it never goes away."""
        for number, payload in peer.log[self._read : peer.durable]:
            self._fold(records.decode_record(number, payload), network)
        self._read = max(self._read, peer.durable)
        return self

    def _fold(self, record: Any, network: str) -> None:
        match record:
            case records.ChannelOpened():
                cid = opened_id(network, record)
                self.windows[cid] = record.terms.window_ucr
            case records.VoucherIssued():
                self.issued[record.cid] = max(record.total_ucr, self.issued.get(record.cid, 0))
            case records.VoucherAccepted():
                self.accepted[record.voucher.cid] = record.voucher.total_ucr
            case records.Reserved():
                self.reserved[record.cid, record.lane] = record.due_ucr
            case records.LaneClosed() if (record.cid, record.lane) in self.sent:
                self.leave(record.cid, record.lane, record.due_ucr)

    def leave(self, cid: bytes, lane: int, due_ucr: int) -> int:
        """The price of a lane is now so much; that of all lanes of the channel."""
        before = self.sent.get((cid, lane), 0)
        self.sent[cid, lane] = due_ucr
        self.sent_ucr[cid] = self.sent_ucr.get(cid, 0) + due_ucr - before
        return self.sent_ucr[cid]


class Checkers:
    """Hangs itself onto a simulation; raises CheckFailed within the step that breaks a rule."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._durable: dict[int, Durable] = {}
        self._shadows: dict[int, tuple[int, Ledger]] = {}
        self._signed: dict[bytes, int] = {}
        self._awarded: dict[bytes, bool] = {}  # job -> whether a machine had it
        simulation.after_step = self._step
        simulation.before_send = self._leaves

    def _fail(self, peer: Peer, rule: str, detail: str) -> None:
        simulation = self._simulation
        raise CheckFailed(rule, detail, peer.index, simulation.steps, simulation.clock.now_ns)

    # --- what a node wants -----------------------------------------------------------------

    def _step(self, peer: Peer, actions: list[Action]) -> None:
        honest = not self._simulation.is_adversary(peer.index)
        appended = False
        for action in actions:
            if isinstance(action, act.Append):
                appended = True
            elif isinstance(action, act.Send) and honest:
                message = _message(action.data)
                voucher = message.voucher if isinstance(message, Award) else message
                if isinstance(voucher, Voucher):
                    self._signs(peer, voucher)
            elif isinstance(action, act.StartJob) and honest:
                self._starts(peer, action.job_id)
        if appended and honest:
            self._replays(peer, actions)

    def _signs(self, peer: Peer, voucher: Voucher) -> None:
        before = self._signed.get(voucher.cid, 0)
        if voucher.total_ucr <= before:
            return  # said again, after a break
        channel = peer.node.context.ledger.channels[voucher.cid]
        total, deposit = voucher.total_ucr, channel.deposit_ucr
        if total > deposit:
            self._fail(peer, "I1 signed <= deposit", f"{total} of {deposit} ucr")
        advance = self._simulation.advance_ucr(peer.index)
        if total - channel.due_ucr > advance:
            ahead = f"{total - channel.due_ucr} ucr, A is {advance}"
            self._fail(peer, "I4 signed - received due <= A", ahead)
        self._signed[voucher.cid] = total

    def _starts(self, peer: Peer, job_id: bytes) -> None:
        started = self._awarded.get(job_id)
        if started is not False:
            what = "it runs already" if started else "nobody awarded it"
            self._fail(peer, "one execution an award", f"job {job_id.hex()[:16]}: {what}")
        self._awarded[job_id] = True

    # --- what leaves -----------------------------------------------------------------------

    def _leaves(self, peer: Peer, data: bytes) -> None:
        message = _message(data)
        if isinstance(message, Award):
            job_id = crypto.digest(message.cid, message.lane.to_bytes(8, "big"))
            self._awarded.setdefault(job_id, False)
        if message is None or self._simulation.is_adversary(peer.index):
            return
        durable = self._durable.setdefault(peer.index, Durable())
        durable.read(peer, self._simulation.network)
        voucher = message.voucher if isinstance(message, Award) else message
        if isinstance(voucher, Voucher):
            issued = durable.issued.get(voucher.cid, 0)
            if voucher.total_ucr > issued:
                detail = f"{voucher.total_ucr} signed, {issued} durable"
                self._fail(peer, "I2 signed <= payer-durable total", detail)
        elif isinstance(message, Chunk):
            self._chunk_leaves(peer, durable, message)

    def _chunk_leaves(self, peer: Peer, durable: Durable, chunk: Chunk) -> None:
        lane = chunk.cid, chunk.lane
        reserved = durable.reserved.get(lane, 0)
        if chunk.due_ucr > reserved:
            detail = f"{chunk.due_ucr} due, {reserved} reserved"
            self._fail(peer, "a chunk leaves behind its durable reservation", detail)
        sent = durable.leave(*lane, max(chunk.due_ucr, durable.sent.get(lane, 0)))
        paid, window = durable.accepted.get(chunk.cid, 0), durable.windows[chunk.cid]
        if sent - paid > window:
            detail = f"{sent} sent, {paid} paid, W is {window}"
            self._fail(peer, "I3 sent - payee-durable total <= W", detail)

    # --- logs and states -------------------------------------------------------------------

    def _replays(self, peer: Peer, actions: list[Action]) -> None:
        """The log so far, folded by itself, says what the live ledger says."""
        incarnation, shadow = self._shadows.get(peer.index, (-1, None))
        live = peer.node.context.ledger
        if shadow is None or incarnation != peer.incarnation:
            shadow = Ledger(self._simulation.network, peer.signer.public_key)
            for number, payload in peer.log:
                shadow.replay(number, payload)
            self._shadows[peer.index] = peer.incarnation, shadow
            touched = list(live.channels)
            if shadow.channels.keys() != live.channels.keys():
                self._fail(peer, "a log replays to its state", "other channels")
        else:
            touched = []
            for action in actions:
                if isinstance(action, act.Append):
                    record = records.decode_record(action.type, action.payload)
                    if isinstance(record, records.VoucherAccepted):
                        self._accepts(peer, shadow, record.voucher)
                    shadow.apply(record)
                    touched += _cids(record)
        for cid in touched:
            ours, again = live.channels.get(cid), shadow.channels.get(cid)
            if ours is not None and again is not None and _money(ours) != _money(again):
                detail = f"{_money(ours)} live, {_money(again)} replayed"
                self._fail(peer, "a log replays to its state", detail)
            if ours is not None and ours.settled_ucr is not None:
                self._settles(peer, ours)

    def _accepts(self, peer: Peer, shadow: Ledger, voucher: Voucher) -> None:
        channel, total = shadow.channels[voucher.cid], voucher.total_ucr
        if total <= channel.total_ucr:
            detail = f"{channel.total_ucr}, then {total}"
            self._fail(peer, "I5 accepted totals strictly rise", detail)
        payer = self._simulation.number_of(channel.payer)
        signed = self._signed.get(voucher.cid, 0)
        if total > signed and not self._simulation.is_adversary(payer):
            self._fail(peer, "I6 paid <= signed", f"{total} paid, {signed} signed")

    def _settles(self, peer: Peer, channel: Channel) -> None:
        """Nothing appears: who was paid has it from who paid."""
        other = self._simulation.by_key[channel.peer]
        theirs = other.node.context.ledger.channels.get(channel.cid)
        if theirs is None or theirs.settled_ucr is None:
            return
        paying, earning = channel, theirs
        if channel.role is Role.PAYEE:
            paying, earning = theirs, channel
        detail = appeared(paying, earning)
        if detail and not self._simulation.is_adversary(other.index):
            self._fail(peer, "conservation", detail)


def appeared(paying: Channel, earning: Channel) -> str:
    """What is wrong with the two ends of a settled channel; empty when it is right.

    Agreed ends are equal. Alone, the payee may lack the payer's last voucher, if they never spoke
    again; then it earns less than was paid, never more.
    """
    paid, earned = paying.settled_ucr or 0, earning.settled_ucr or 0
    if earned > paid or paid - earned > max(0, paying.total_ucr - earning.total_ucr):
        return f"{paid} ucr paid, {earned} earned"
    return ""


def _message(data: bytes) -> Any:
    """The watched message in framed bytes, else None."""
    message = wire.decode(data[HEADER_BYTES:])
    return message if isinstance(message, _WATCHED) else None


def _cids(record: Any) -> list[bytes]:
    inner = getattr(record, "voucher", None) or getattr(record, "receipt", None) or record
    cid = getattr(inner, "cid", None)
    return [] if cid is None else [cid]


def _money(channel: Channel) -> tuple[int | None, ...]:
    return (
        channel.total_ucr,
        channel.settled_ucr,
        channel.deposit_ucr,
        channel.settled_due_ucr,
        channel.lane_last,
    )
