"""The node's money, as the fold of its log: channels, lanes, balances.

`apply` is the only way anything changes, live or in a replay, so a restart sees what was. Has
no keys, clock or disk. Rule: router/README.md, "Money".
"""

from dataclasses import dataclass
from typing import Any

from protocol import limits, records
from protocol.channel import Channel, ChannelState, Lane, LaneState, Role
from protocol.errors import LocalError, StorageError
from protocol.signing import channel_id, receipt_id
from router.head_book import HeadBook


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums over channels, in ucr. As payer: spent and locked; as payee: earned and unpaid.

    `spent_ucr`/`earned_ucr` count what was delivered; `locked_ucr` what open channels hold of
    our deposits beyond that; `unpaid_ucr` what we delivered and hold no voucher for.
    """

    spent_ucr: int
    locked_ucr: int
    earned_ucr: int
    unpaid_ucr: int

    @property
    def net_ucr(self) -> int:
        """Earned less spent."""
        return self.earned_ucr - self.spent_ucr


class Ledger:
    """All channels of one node, by id, in the order in which they were opened."""

    def __init__(self, network: str, owner: bytes) -> None:
        self.network = network
        self.owner = owner
        self.channels: dict[bytes, Channel] = {}
        self.receipts = 0
        self.open_channels = 0
        self.heads = HeadBook()
        self.closed: list[bytes] = []  # oldest first, at most CHANNELS_CLOSED_KEPT
        self.forgotten_spent_ucr = 0
        self.forgotten_earned_ucr = 0

    def channel(self, cid: bytes) -> Channel | None:
        """The channel, or None."""
        return self.channels.get(cid)

    def with_peer(self, peer: bytes, role: Role) -> list[Channel]:
        """The open channels with `peer` in which we have `role`, oldest first."""
        return [
            channel
            for channel in self.channels.values()
            if channel.role is role and channel.peer == peer and channel.is_open
        ]

    def balance(self) -> Balance:
        """The sums over all channels."""
        spent, earned = self.forgotten_spent_ucr, self.forgotten_earned_ucr
        locked = unpaid = 0
        for channel in self.channels.values():
            due = channel.due_ucr if channel.settled_ucr is None else channel.settled_ucr
            if channel.role is Role.PAYER:
                spent += due
                locked += channel.deposit_ucr - due if channel.is_open else 0
            else:
                earned += due
                unpaid += max(0, due - channel.total_ucr) if channel.is_open else 0
        return Balance(spent, locked, earned, unpaid)

    def apply(self, record: Any) -> None:
        """Fold one record in. LocalError `channel.unknown` when it names what is not there."""
        match record:
            case records.ChannelOpened():
                self._open(record)
            case records.LaneOpened():
                self._lane_opened(record)
            case records.VoucherIssued():
                self._voucher_issued(record)
            case records.VoucherAccepted():
                channel = self._channel(record.voucher.cid)
                channel.voucher = record.voucher
                channel.total_ucr = record.voucher.total_ucr
            case records.Reserved():
                lane = self._lane(record.cid, record.lane)
                lane.reserved_ucr = max(lane.reserved_ucr, record.due_ucr)
            case records.LaneClosed():
                self._channel(record.cid).close_lane(record.lane, record.due_ucr)
            case records.ReceiptSigned():
                lane = self._lane(record.receipt.cid, record.receipt.lane)
                lane.due_ucr = lane.reserved_ucr = record.receipt.price_ucr
                lane.chunks = record.receipt.chunks
                lane.receipt_id = receipt_id(record.receipt)
                lane.state = LaneState.DONE
            case records.ReceiptAcknowledged():
                self.receipts += 1
                channel = self._channel(record.receipt.cid)
                channel.close_lane(record.receipt.lane, record.receipt.price_ucr)
            case records.ReceiptCountersigned():
                self.receipts += 1
                channel = self._channel(record.cid)
                channel.close_lane(record.lane, self._lane(record.cid, record.lane).due_ucr)
            case records.ChannelClosed():
                self._close(self._channel(record.cid), record.settled_ucr)
            case records.ChannelFrozen():
                self._channel(record.cid).state = ChannelState.FROZEN
            case records.CloseAgreed():
                self._channel(record.cid)
            case records.HeadSigned() | records.SnapshotSigned():
                self.heads.signed(record.head)
            case records.HeadSeen():
                self.heads.saw(self.owner, record)
            case records.SnapshotBegun() | records.SnapshotPart():
                pass  # what they say, the records before them said: see router/fold.py
            case _:
                raise AssertionError(f"no rule for {type(record).__name__}")

    def replay(self, number: int, payload: bytes) -> Any:
        """Fold one log frame in and return its record. StorageError `storage.corrupt` when it
        makes no sense."""
        record = records.decode_record(number, payload)
        try:
            self.apply(record)
        except LocalError as error:
            raise StorageError("storage.corrupt", f"{type(record).__name__}: {error}") from error
        return record

    def finish_replay(self) -> None:
        """After a restart no peer is connected, and a payee may have sent all it reserved."""
        for channel in self.channels.values():
            if not channel.is_open:
                continue
            if channel.state is not ChannelState.FROZEN:
                channel.state = ChannelState.DETACHED
            for lane in channel.lanes.values():
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
        cid = channel_id(
            self.network,
            record.payer,
            record.payee,
            record.payer_salt,
            record.payee_salt,
            record.terms,
        )
        role = Role.PAYER if record.payer == self.owner else Role.PAYEE
        self.open_channels += 1
        self.channels[cid] = Channel(
            cid=cid,
            role=role,
            payer=record.payer,
            payee=record.payee,
            terms=record.terms,
            deposit_ucr=record.deposit_ucr,
            opened_at_ns=record.opened_at_ns,
        )

    def _close(self, channel: Channel, settled_ucr: int) -> None:
        channel.settled_ucr = settled_ucr
        channel.lanes.clear()
        channel.state = ChannelState.CLOSED
        self.open_channels -= 1
        self.closed.append(channel.cid)
        if len(self.closed) > limits.CHANNELS_CLOSED_KEPT:
            oldest = self.channels.pop(self.closed.pop(0))
            if oldest.role is Role.PAYER:
                self.forgotten_spent_ucr += oldest.settled_ucr or 0
            else:
                self.forgotten_earned_ucr += oldest.settled_ucr or 0

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
        channel.total_ucr = max(channel.total_ucr, record.total_ucr)
        for claim in record.lanes:
            lane = channel.lanes.get(claim.lane)
            if lane is not None and claim.chunks > lane.chunks:
                lane.chunks, lane.due_ucr = claim.chunks, claim.due_ucr
