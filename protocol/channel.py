"""A payment channel: its state machine and the arithmetic of its total and its lanes.

One direction, payer to payee; one cumulative total, which is the nonce; lanes are accounting
only. A `Channel` changes by nothing but `apply`ing log records (protocol.records), so a replay
rebuilds it. Has no keys, clock or disk. Rule: router/README.md, "Money".
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from protocol import limits
from protocol.errors import RemoteError
from protocol.fields import ChannelTerms, LaneClaim
from protocol.lane import Lane, LaneState
from protocol.messages import Voucher


class Role(Enum):
    """Which end of the channel this node is."""

    PAYER = "payer"
    PAYEE = "payee"


class ChannelState(Enum):
    """Where a channel stands. DETACHED: nothing but re-establishing; FROZEN: claim and close."""

    NEW = "new"
    OPENING = "opening"
    READY = "ready"
    DETACHED = "detached"
    CLOSING_COOP = "closing_coop"
    CLOSED = "closed"
    CHALLENGE = "challenge"
    SETTLED = "settled"
    FROZEN = "frozen"


class ChannelEvent(Enum):
    """What can happen to a channel."""

    OPEN = "open"
    ACCEPT = "accept"
    REFUSE = "refuse"
    LANE_OPEN = "lane_open"
    CHUNK = "chunk"
    VOUCHER = "voucher"
    TOP_UP = "top_up"
    LANE_CLOSE = "lane_close"
    LOST = "lost"
    REESTABLISH = "reestablish"
    CLOSE_REQUEST = "close_request"
    CLOSE_REFUSE = "close_refuse"
    CLOSE_ACK = "close_ack"
    CHALLENGE = "challenge"
    RESPOND = "respond"
    DEADLINE = "deadline"
    FAULT = "fault"


_C, _E = ChannelState, ChannelEvent

CHANNEL_TRANSITIONS: Final[dict[tuple[ChannelState, ChannelEvent], ChannelState]] = {
    (_C.NEW, _E.OPEN): _C.OPENING,
    (_C.OPENING, _E.ACCEPT): _C.READY,
    (_C.OPENING, _E.REFUSE): _C.CLOSED,
    (_C.OPENING, _E.LANE_OPEN): _C.OPENING,
    (_C.OPENING, _E.VOUCHER): _C.OPENING,
    (_C.OPENING, _E.LANE_CLOSE): _C.OPENING,
    (_C.OPENING, _E.LOST): _C.DETACHED,
    (_C.OPENING, _E.CHALLENGE): _C.CHALLENGE,
    (_C.OPENING, _E.FAULT): _C.FROZEN,
    (_C.READY, _E.LANE_OPEN): _C.READY,
    (_C.READY, _E.CHUNK): _C.READY,
    (_C.READY, _E.VOUCHER): _C.READY,
    (_C.READY, _E.TOP_UP): _C.READY,
    (_C.READY, _E.LANE_CLOSE): _C.READY,
    (_C.READY, _E.LOST): _C.DETACHED,
    (_C.READY, _E.CLOSE_REQUEST): _C.CLOSING_COOP,
    (_C.READY, _E.CHALLENGE): _C.CHALLENGE,
    (_C.READY, _E.FAULT): _C.FROZEN,
    (_C.DETACHED, _E.LOST): _C.DETACHED,
    (_C.DETACHED, _E.LANE_CLOSE): _C.DETACHED,
    (_C.DETACHED, _E.REESTABLISH): _C.READY,
    (_C.DETACHED, _E.REFUSE): _C.CLOSED,
    (_C.DETACHED, _E.CLOSE_ACK): _C.CLOSED,
    (_C.DETACHED, _E.CHALLENGE): _C.CHALLENGE,
    (_C.DETACHED, _E.FAULT): _C.FROZEN,
    (_C.CLOSING_COOP, _E.CLOSE_ACK): _C.CLOSED,
    (_C.CLOSING_COOP, _E.CLOSE_REFUSE): _C.READY,
    (_C.CLOSING_COOP, _E.LOST): _C.DETACHED,
    (_C.CLOSING_COOP, _E.CHALLENGE): _C.CHALLENGE,
    (_C.CLOSING_COOP, _E.FAULT): _C.FROZEN,
    (_C.CHALLENGE, _E.REFUSE): _C.CLOSED,
    (_C.CHALLENGE, _E.LANE_CLOSE): _C.CHALLENGE,
    (_C.CHALLENGE, _E.RESPOND): _C.CHALLENGE,
    (_C.CHALLENGE, _E.LOST): _C.CHALLENGE,
    (_C.CHALLENGE, _E.CLOSE_ACK): _C.CLOSED,
    (_C.CHALLENGE, _E.DEADLINE): _C.SETTLED,
    (_C.FROZEN, _E.LOST): _C.FROZEN,
    (_C.FROZEN, _E.LANE_CLOSE): _C.FROZEN,
    (_C.FROZEN, _E.CHALLENGE): _C.CHALLENGE,
}


@dataclass(slots=True)
class Channel:
    """One channel as one node sees it; amounts in ucr.

    `total_ucr` is the highest total issued (payer) or held with its voucher (payee); `issued`
    the claims of the payer's last voucher, so that it can be signed again as it was.
    `settled_due_ucr` is the price of all closed lanes; `closed` the last closed lanes' prices,
    kept so that a reconnecting peer that missed the end can still be reconciled, `receipts`
    those that the payer counter-signed under them. The salts and
    `open_signature`, the payer's, are kept as evidence for others.
    `offered_ucr` is the deposit that the payer last offered, `deadline_ns` the end of the
    challenge period, `disputed_ucr` what the payer keeps back for good, `agreed_signature` the
    payee's under a close by agreement, `raised_by` the other end's under the last top-up that
    counts. `replayed_last` is the highest lane that this process
    knows from its log alone, which may be an old copy.
    """

    cid: bytes
    role: Role
    payer: bytes
    payee: bytes
    terms: ChannelTerms
    deposit_ucr: int
    opened_at_ns: int
    state: ChannelState = ChannelState.NEW
    total_ucr: int = 0
    voucher: Voucher | None = None
    issued: tuple[LaneClaim, ...] = ()
    lanes: dict[int, Lane] = field(default_factory=dict)
    lane_last: int = 0
    replayed_last: int = 0
    settled_due_ucr: int = 0
    settled_lanes: int = 0
    closed: dict[int, int] = field(default_factory=dict)
    receipts: dict[int, bytes] = field(default_factory=dict)
    settled_ucr: int | None = None
    payer_salt: bytes = bytes(16)
    payee_salt: bytes = bytes(16)
    open_signature: bytes = b""
    offered_ucr: int = 0
    deadline_ns: int = 0
    disputed_ucr: int = 0
    agreed_signature: bytes = b""
    raised_by: bytes = b""

    def step(self, event: ChannelEvent) -> None:
        """Move by the table. RemoteError `channel.wrong_state`."""
        self.check(event)
        self.state = CHANNEL_TRANSITIONS[self.state, event]

    def check(self, event: ChannelEvent) -> None:
        """That the table has a cell for `event` now. RemoteError `channel.wrong_state`."""
        if not self.allows(event):
            detail = f"{event.value} in {self.state.value}"
            # Who has not heard of a close yet is no offender.
            heard = self.state not in (_C.CHALLENGE, _C.CLOSED, _C.SETTLED)
            raise RemoteError("channel.wrong_state", detail, penalize=heard)

    def allows(self, event: ChannelEvent) -> bool:
        """Whether the table has a cell for `event` now."""
        return (self.state, event) in CHANNEL_TRANSITIONS

    @property
    def peer(self) -> bytes:
        """The other end's public key."""
        return self.payee if self.role is Role.PAYER else self.payer

    @property
    def due_ucr(self) -> int:
        """The price of everything sent (payee) or received (payer) on the channel."""
        return self.settled_due_ucr + sum(lane.due_ucr for lane in self.lanes.values())

    @property
    def held_ucr(self) -> int:
        """What the payer's vouchers may lag behind the due, until audits close."""
        return sum(min(lane.held_ucr, lane.due_ucr) for lane in self.lanes.values())

    @property
    def audited_ucr(self) -> int:
        """The price of the lanes whose receipts are signed and still under audit."""
        return sum(x.due_ucr for x in self.lanes.values() if x.state is LaneState.AUDIT)

    @property
    def reserved_ucr(self) -> int:
        """As `due_ucr`, with open lanes counted up to their reservation."""
        reserved = sum(max(lane.due_ucr, lane.reserved_ucr) for lane in self.lanes.values())
        return self.settled_due_ucr + reserved

    @property
    def spendable_ucr(self) -> int:
        """What the payer can still promise."""
        return self.deposit_ucr - max(self.total_ucr, self.due_ucr)

    @property
    def is_open(self) -> bool:
        """Whether money can still move."""
        return self.state not in (ChannelState.CLOSED, ChannelState.SETTLED)

    def expires_at_ns(self) -> int:
        """When the channel's lifetime ends, Unix ns."""
        return self.opened_at_ns + self.terms.lifetime_ns

    def claim_at_ns(self) -> int:
        """When the payee claims, and no lane is opened any more, Unix ns."""
        margin_ns = min(limits.CLAIM_MARGIN_NS, self.terms.lifetime_ns // 4)
        return self.expires_at_ns() - margin_ns

    def claims(self) -> tuple[LaneClaim, ...]:
        """What a voucher states: lane 0 is the sum of the closed lanes, then the open ones.

        A lane under audit is closed for the other end.
        """
        open_lanes = [x for x in self.lanes.values() if x.state is not LaneState.AUDIT]
        count = self.settled_lanes + len(self.lanes) - len(open_lanes)
        settled_ucr = self.settled_due_ucr + self.audited_ucr
        settled = LaneClaim(0, min(count, limits.U32_MAX), settled_ucr)
        return (settled, *sorted((lane.claim() for lane in open_lanes), key=lambda x: x.lane))

    def close_lane(self, number: int, due_ucr: int) -> None:
        """Settle a lane at `due_ucr`; again for a closed one, when a reconnect lowers it."""
        lane = self.lanes.pop(number, None)
        if lane is None:
            self.settled_due_ucr += due_ucr - self.closed.get(number, due_ucr)
        else:
            self.settled_due_ucr += due_ucr
            self.settled_lanes += 1
        self.closed[number] = due_ucr
        while len(self.closed) > limits.LANES_PER_CHANNEL_MAX:
            oldest = next(iter(self.closed))
            del self.closed[oldest]
            self.receipts.pop(oldest, None)

    def raise_deposit(self, deposit_ucr: int, signature: bytes) -> None:
        """A top-up counts; the signature is the other end's."""
        self.deposit_ucr, self.raised_by = deposit_ucr, signature

    def settle(self, settled_ucr: int, agreed_signature: bytes) -> None:
        """The end of the channel, and of the lanes that a crash between its records left open:
        all that a replay knows of a payee's is what was reserved."""
        payee = self.role is Role.PAYEE
        self.settled_due_ucr = self.reserved_ucr if payee else self.due_ucr
        self.lanes.clear()
        self.settled_ucr, self.agreed_signature = settled_ucr, agreed_signature
