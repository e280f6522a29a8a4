"""A payment channel and its lanes: the two state machines and the arithmetic of one channel.

One direction, payer to payee; one cumulative total, which is the nonce; lanes are accounting
only. A `Channel` changes by nothing but `apply`ing log records (protocol.records), so a replay
rebuilds it. Has no keys, clock or disk. Rule: router/README.md, "Money".
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from protocol import limits
from protocol.fields import ChannelTerms, LaneClaim
from protocol.machine import apply
from protocol.messages import Result, Voucher
from protocol.units import cost_ucr


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
    (_C.CHALLENGE, _E.RESPOND): _C.CHALLENGE,
    (_C.CHALLENGE, _E.LOST): _C.CHALLENGE,
    (_C.CHALLENGE, _E.DEADLINE): _C.SETTLED,
    (_C.FROZEN, _E.LOST): _C.FROZEN,
    (_C.FROZEN, _E.LANE_CLOSE): _C.FROZEN,
    (_C.FROZEN, _E.CHALLENGE): _C.CHALLENGE,
    (_C.FROZEN, _E.CLOSE_ACK): _C.CLOSED,
}


class LaneState(Enum):
    """Where a job's lane stands; ABORTED lanes are settled at what was delivered."""

    OFFERED = "offered"
    ACTIVE = "active"
    PAUSED = "paused"
    DONE = "done"
    AUDIT = "audit"
    PAID = "paid"
    DISPUTED = "disputed"
    ABORTED = "aborted"


class LaneEvent(Enum):
    """What can happen to a lane."""

    ACCEPT = "accept"
    CHUNK = "chunk"
    WINDOW_FULL = "window_full"
    VOUCHER = "voucher"
    RESULT = "result"
    ACKNOWLEDGE = "acknowledge"
    AUDIT_PASSED = "audit_passed"
    DISPUTE = "dispute"
    ABORT = "abort"


_L, _V = LaneState, LaneEvent

LANE_TRANSITIONS: Final[dict[tuple[LaneState, LaneEvent], LaneState]] = {
    (_L.OFFERED, _V.ACCEPT): _L.ACTIVE,
    (_L.OFFERED, _V.ABORT): _L.ABORTED,
    (_L.ACTIVE, _V.CHUNK): _L.ACTIVE,
    (_L.ACTIVE, _V.VOUCHER): _L.ACTIVE,
    (_L.ACTIVE, _V.WINDOW_FULL): _L.PAUSED,
    (_L.ACTIVE, _V.RESULT): _L.DONE,
    (_L.ACTIVE, _V.ABORT): _L.ABORTED,
    (_L.PAUSED, _V.VOUCHER): _L.ACTIVE,
    (_L.PAUSED, _V.WINDOW_FULL): _L.PAUSED,
    (_L.PAUSED, _V.ABORT): _L.ABORTED,
    (_L.DONE, _V.VOUCHER): _L.DONE,
    (_L.DONE, _V.ACKNOWLEDGE): _L.AUDIT,
    (_L.DONE, _V.DISPUTE): _L.DISPUTED,
    (_L.DONE, _V.ABORT): _L.ABORTED,
    (_L.AUDIT, _V.AUDIT_PASSED): _L.PAID,
    (_L.AUDIT, _V.DISPUTE): _L.DISPUTED,
}


@dataclass(slots=True)
class Lane:
    """One job on a channel: its prices and how far it got.

    `due_ucr` is the price of what was sent (payee) or received (payer); `reserved_ucr` the
    price up to which the payee has durably said that it may have sent; `receipt_id` names the
    receipt that the payee signed. `exact` is False for a payee that restarted meanwhile and
    can't tell what it sent from what it reserved. `result` is kept until it is counter-signed,
    `resumes` counts the broken streams that the lane survived.
    """

    lane: int
    request_id: bytes
    bid_id: bytes
    input_price_ucr: int
    output_price_ucr: int
    state: LaneState = LaneState.OFFERED
    chunks: int = 0
    due_ucr: int = 0
    reserved_ucr: int = 0
    receipt_id: bytes = b""
    result: Result | None = None
    exact: bool = True
    resumes: int = 0

    def step(self, *events: LaneEvent) -> None:
        """Move by the table. RemoteError `channel.wrong_state`."""
        for event in events:
            self.state = apply(LANE_TRANSITIONS, self.state, event, "channel.wrong_state")

    def price_ucr(self, input_tokens: int, output_tokens: int) -> int:
        """The price due at these counts."""
        return cost_ucr(input_tokens, output_tokens, self.input_price_ucr, self.output_price_ucr)

    def claim(self) -> LaneClaim:
        """The lane as a voucher states it."""
        return LaneClaim(self.lane, self.chunks, self.due_ucr)


@dataclass(slots=True)
class Channel:
    """One channel as one node sees it; amounts in ucr.

    `total_ucr` is the highest total issued (payer) or held with its voucher (payee); `issued`
    the claims of the payer's last voucher, so that it can be signed again as it was.
    `settled_due_ucr` is the price of all closed lanes; `closed` the last closed lanes' prices,
    kept so that a reconnecting peer that missed the end can still be reconciled, `receipts`
    those that the payer counter-signed under them. The salts and
    `open_signature`, the payer's, are kept as evidence for others.
    `offered_ucr` is the deposit that the payer last offered.
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
    settled_due_ucr: int = 0
    settled_lanes: int = 0
    closed: dict[int, int] = field(default_factory=dict)
    receipts: dict[int, bytes] = field(default_factory=dict)
    settled_ucr: int | None = None
    payer_salt: bytes = bytes(16)
    payee_salt: bytes = bytes(16)
    open_signature: bytes = b""
    offered_ucr: int = 0

    def step(self, event: ChannelEvent) -> None:
        """Move by the table. RemoteError `channel.wrong_state`."""
        self.check(event)
        self.state = CHANNEL_TRANSITIONS[self.state, event]

    def check(self, event: ChannelEvent) -> None:
        """That the table has a cell for `event` now. RemoteError `channel.wrong_state`."""
        apply(CHANNEL_TRANSITIONS, self.state, event, "channel.wrong_state")

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

    def claims(self) -> tuple[LaneClaim, ...]:
        """What a voucher states: lane 0 is the sum of the closed lanes, then the open ones."""
        settled = LaneClaim(0, min(self.settled_lanes, limits.U32_MAX), self.settled_due_ucr)
        return (settled, *(self.lanes[number].claim() for number in sorted(self.lanes)))

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
