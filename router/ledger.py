"""The node's money, as the fold of its log: channels, lanes, balances.

`apply` is the only way anything that lasts changes, live or in a replay, so a restart sees what
was. What a record means for a state goes through the tables of protocol.channel. A log knows no
connection: folded without a node, a channel is DETACHED from its opening on, and every lasting
event is legal there. Has no keys, clock or disk. Rule: router/README.md, "Money".
"""

from typing import Any

from protocol import limits, records
from protocol.channel import Channel, ChannelEvent, Role
from protocol.errors import LocalError, RemoteError, StorageError
from protocol.lane import Lane, LaneEvent, LaneState
from protocol.messages import Result
from protocol.signing import opened_id, receipt_id
from router.backing import Backing
from router.balance import Balance, sum_up
from router.cheque_book import ChequeBook
from router.debts import Debts
from router.denials import Denials
from router.head_book import HeadBook
from router.keyed import KeyedRequests
from router.reputation import Reputation
from router.vault import Vault

PASSED, DISPUTED = 1, 2  # verdicts of an audit
# How a channel came to be closed, by the number in its record.
COOPERATIVE, REFUSED, UNILATERAL = 1, 2, 3
_CLOSED_BY = {
    COOPERATIVE: ChannelEvent.CLOSE_ACK,
    REFUSED: ChannelEvent.REFUSE,
    UNILATERAL: ChannelEvent.DEADLINE,
}


class Ledger:
    """All channels of one node, by id, in the order in which they were opened."""

    def __init__(self, network: str, owner: bytes) -> None:
        self.vault = Vault(network)
        self.backing = Backing(network, owner)
        self.network, self.owner = network, owner
        self.live = False  # whether a node, which may be connected, goes on from here
        self.channels: dict[bytes, Channel] = {}
        self.receipts = 0
        self.open_channels = 0
        self.heads = HeadBook()
        self.denials = Denials()
        self.debts = Debts()
        self.reputation = Reputation()
        self.keyed, self.cheques = KeyedRequests(), ChequeBook()
        self._with_peer: dict[tuple[bytes, Role], dict[bytes, Channel]] = {}  # open ones
        self.closed: list[bytes] = []  # oldest first, at most CHANNELS_CLOSED_KEPT
        self.forgotten_spent_ucr = self.forgotten_earned_ucr = 0

    def channel(self, cid: bytes) -> Channel | None:
        """The channel, or None."""
        return self.channels.get(cid)

    def with_peer(self, peer: bytes, role: Role) -> list[Channel]:
        """The open channels with `peer` in which we have `role`, oldest first."""
        return list(self._with_peer.get((peer, role), {}).values())

    def window_ucr(self, channel: Channel) -> int:
        """Payee: how far what we send on `channel` may run ahead of its vouchers now.

        W of the terms, less what this payer denied and what it owes for ended lanes of its
        other channels: one payer is lent one window, however often it comes back.
        """
        owed = sum(
            max(0, other.settled_due_ucr - other.total_ucr)
            for other in self.with_peer(channel.payer, Role.PAYEE)
            if other is not channel
        )
        denied = self.denials.open_ucr(channel.payer)
        return max(0, channel.terms.window_ucr - owed - denied)

    def balance(self) -> Balance:
        """The sums over all channels and cheques."""
        spent, earned = self.forgotten_spent_ucr, self.forgotten_earned_ucr
        return sum_up(self.channels.values(), spent, earned, self.cheques.earned_ucr)

    def apply(self, record: Any) -> None:
        """Fold one record in. LocalError `channel.unknown` when it names what is not there."""
        self.keyed.watch(record)
        match record:
            case records.ChannelOpened():
                self._open(record)
            case records.LaneOpened():
                self._lane_opened(record)
            case records.VoucherIssued():
                self._voucher_issued(record)
            case records.VoucherAccepted():
                self._voucher_accepted(record)
            case records.ChannelClosed():
                self._close(self._channel(record.cid), record)
            case records.ChannelFrozen():
                self._channel(record.cid).step(ChannelEvent.FAULT)
            case records.CloseAgreed():
                self._channel(record.cid)
            case records.DueAgreed():
                channel = self._channel(record.cid)
                channel.settled_due_ucr = record.settled_due_ucr
                channel.settled_lanes = record.settled_lanes
                channel.lane_last = max(channel.lane_last, record.lane_last)
            case records.ChallengeStarted():
                channel = self._channel(record.cid)
                channel.step(ChannelEvent.CHALLENGE)
                channel.deadline_ns = record.deadline_ns
            case records.TopUpOffered():
                self._channel(record.cid).offered_ucr = record.deposit_ucr
            case records.DepositRaised():
                self._channel(record.cid).raise_deposit(record.deposit_ucr, record.signature)
            case records.Denied():
                self.denials.add(self._channel(record.cid).payer, record.denied_ucr)
            case records.HeadSigned() | records.SnapshotSigned():
                self.heads.signed(record.head)
            case records.HeadSeen():
                self.heads.saw(self.owner, record)
            case records.SnapshotBegun() | records.SnapshotPart():
                pass  # what they say, the records before them said: see router/fold.py
            case records.OpeningSigned():
                self._channel(record.cid).open_signature = record.signature
            case records.DebtPaid():
                self.debts.paid(record.payer, record.amount_ucr)
            case _:
                self._apply_to_lane(record)

    def _apply_to_lane(self, record: Any) -> None:
        match record:
            case records.Reserved():
                lane = self._lane(record.cid, record.lane)
                lane.reserved_ucr = max(lane.reserved_ucr, record.due_ucr)
            case records.LaneClosed():
                channel = self._channel(record.cid)
                self._end_lane(channel, record.lane, record.due_ucr, LaneEvent.ABORT)
            case records.ReceiptSigned():
                lane = self._lane(record.receipt.cid, record.receipt.lane)
                _start(lane)
                lane.step(LaneEvent.RESULT)
                lane.due_ucr = lane.reserved_ucr = record.receipt.price_ucr
                lane.chunks = record.receipt.chunks
                lane.receipt_id = receipt_id(record.receipt)
                lane.result = Result(record.receipt, record.payee_signature)
            case records.ReceiptAcknowledged():
                channel = self._channel(record.receipt.cid)
                lane = self._lane(channel.cid, record.receipt.lane)
                _start(lane)
                lane.step(LaneEvent.RESULT, LaneEvent.ACKNOWLEDGE)
                lane.chunks, lane.due_ucr = record.receipt.chunks, record.receipt.price_ucr
                if not lane.audit_until_ns:
                    self._end_lane(channel, lane.lane, lane.due_ucr, LaneEvent.AUDIT_PASSED)
                channel.receipts[lane.lane] = receipt_id(record.receipt)
                self.receipts += 1
            case records.AuditOpened():
                lane = self._lane(record.cid, record.lane)
                lane.held_ucr, lane.audit_until_ns = record.held_ucr, record.until_ns
            case records.AuditClosed():
                channel, lane = self._channel(record.cid), self._lane(record.cid, record.lane)
                passed = record.verdict == PASSED
                event = LaneEvent.AUDIT_PASSED if passed else LaneEvent.DISPUTE
                channel.disputed_ucr += record.kept_ucr
                self._end_lane(channel, lane.lane, lane.due_ucr - record.kept_ucr, event)
            case records.ReceiptCountersigned():
                channel, lane = self._channel(record.cid), self._lane(record.cid, record.lane)
                lane.step(LaneEvent.ACKNOWLEDGE)
                self._end_lane(channel, lane.lane, lane.due_ucr, LaneEvent.AUDIT_PASSED)
                self.receipts += 1
            case _:
                books = (self.vault, self.backing, self.reputation, self.keyed, self.cheques)
                known = any(book.apply(record) for book in books)
                assert known, f"no rule for {type(record).__name__}"

    def replay(self, number: int, payload: bytes) -> Any:
        """Fold one log frame in and return its record. StorageError `storage.corrupt` when it
        makes no sense."""
        record = records.decode_record(number, payload)
        try:
            self.apply(record)
        except (LocalError, RemoteError) as error:
            raise StorageError("storage.corrupt", f"{type(record).__name__}: {error}") from error
        return record

    def finish_replay(self) -> None:
        """After a restart a payee may have sent all that it reserved, and more if its log was
        put back; what it knows for certain are its receipts."""
        for channel in self.channels.values():
            channel.replayed_last = channel.lane_last
            for lane in channel.lanes.values():
                lane.exact = lane.result is not None
                lane.due_ucr = max(lane.due_ucr, lane.reserved_ucr)

    def _channel(self, cid: bytes) -> Channel:
        channel = self.channels.get(cid)
        if channel is None:
            raise LocalError("channel.unknown", cid.hex()[:16])
        return channel

    def _lane(self, cid: bytes, number: int) -> Lane:
        lane = self._channel(cid).lanes.get(number)
        if lane is None:
            raise LocalError("channel.unknown", f"lane {number} of {cid.hex()[:16]}")
        return lane

    def _open(self, record: records.ChannelOpened) -> None:
        cid = opened_id(self.network, record)
        role = Role.PAYER if record.payer == self.owner else Role.PAYEE
        channel = Channel(
            cid=cid,
            role=role,
            payer=record.payer,
            payee=record.payee,
            terms=record.terms,
            deposit_ucr=record.deposit_ucr,
            opened_at_ns=record.opened_at_ns,
            payer_salt=record.payer_salt,
            payee_salt=record.payee_salt,
        )
        channel.step(ChannelEvent.OPEN)
        if not self.live:
            channel.step(ChannelEvent.LOST)
        self.keep(channel)

    def keep(self, channel: Channel) -> None:
        """Take in a channel as it is."""
        self.channels[channel.cid] = channel
        if channel.is_open:
            self.open_channels += 1
            self._with_peer.setdefault((channel.peer, channel.role), {})[channel.cid] = channel

    def _close(self, channel: Channel, record: records.ChannelClosed) -> None:
        if record.how not in _CLOSED_BY:
            raise LocalError("channel.wrong_state", f"closed by {record.how}")
        channel.step(_CLOSED_BY[record.how])
        channel.settle(record.settled_ucr, record.payee_signature)
        payee = channel.role is Role.PAYEE
        if payee and channel.due_ucr > record.settled_ucr:
            # Never paid, and never will be: as if denied.
            self.denials.add(channel.payer, channel.due_ucr - record.settled_ucr)
        if payee and not self.backing.proved_ucr(channel.cid):
            self.debts.add(channel.payer, record.settled_ucr)
        self.open_channels -= 1
        siblings = self._with_peer[channel.peer, channel.role]
        del siblings[channel.cid]
        if not siblings:
            del self._with_peer[channel.peer, channel.role]
        self.closed.append(channel.cid)
        if len(self.closed) > limits.CHANNELS_CLOSED_KEPT:
            oldest = self.channels.pop(self.closed.pop(0))
            if oldest.role is Role.PAYER:
                self.forgotten_spent_ucr += oldest.settled_ucr or 0
            else:
                self.forgotten_earned_ucr += oldest.settled_ucr or 0

    def _end_lane(self, channel: Channel, number: int, due_ucr: int, event: LaneEvent) -> None:
        """Settle a lane; one that is closed already when a reconnect lowers its price."""
        channel.step(ChannelEvent.LANE_CLOSE)
        if lane := channel.lanes.get(number):
            lane.step(event)
        channel.close_lane(number, due_ucr)

    def _lane_opened(self, record: records.LaneOpened) -> None:
        channel = self._channel(record.cid)
        channel.lanes[record.lane] = Lane(
            lane=record.lane,
            request_id=record.request_id,
            bid_id=record.bid_id,
            input_price_ucr=record.input_price_ucr,
            output_price_ucr=record.output_price_ucr,
        )
        channel.lane_last = max(channel.lane_last, record.lane)

    def _voucher_issued(self, record: records.VoucherIssued) -> None:
        channel = self._channel(record.cid)
        if record.total_ucr >= channel.total_ucr:
            channel.total_ucr, channel.issued = record.total_ucr, record.lanes
        for claim in record.lanes:
            lane = channel.lanes.get(claim.lane)
            if lane is not None and claim.chunks > lane.chunks:
                lane.chunks, lane.due_ucr = claim.chunks, claim.due_ucr

    def _voucher_accepted(self, record: records.VoucherAccepted) -> None:
        channel = self._channel(record.voucher.cid)
        self.denials.paid(channel.payer, record.voucher.total_ucr - channel.total_ucr)
        channel.voucher = record.voucher
        channel.total_ucr = record.voucher.total_ucr


def _start(lane: Lane) -> None:
    """A replayed lane was never seen to start; one with a receipt did."""
    if lane.state is LaneState.OFFERED:
        lane.step(LaneEvent.ACCEPT)
