"""One job on a channel: its state machine and its arithmetic.

Lanes are accounting only; the channel's total is the money. Has no keys, clock or disk.
Rule: router/README.md, "Money".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol import limits
from protocol.fields import LaneClaim
from protocol.machine import apply
from protocol.messages import Result
from protocol.units import cost_ucr


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
    (_L.DONE, _V.ACKNOWLEDGE): _L.AUDIT,
    (_L.DONE, _V.ABORT): _L.ABORTED,
    (_L.AUDIT, _V.AUDIT_PASSED): _L.PAID,
    (_L.AUDIT, _V.DISPUTE): _L.DISPUTED,
    (_L.AUDIT, _V.ABORT): _L.ABORTED,
}


@dataclass(slots=True)
class Lane:
    """One job on a channel: its prices and how far it got.

    `due_ucr` is the price of what was sent (payee) or received (payer); `reserved_ucr` the
    price up to which the payee has durably said that it may have sent; `receipt_id` names the
    receipt that the payee signed. `exact` is False for a payee that restarted meanwhile and
    can't tell what it sent from what it reserved. `result` is kept until it is counter-signed,
    `resumes` counts the broken streams that the lane survived. Of the payer: what its vouchers
    may lag (`held_ucr`) until `audit_until_ns`, its advance, and the most that the prompt costs
    while no chunk has come.
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
    held_ucr: int = 0
    audit_until_ns: int = 0
    advance_ucr: int = 0
    prompt_ucr: int = 0

    def step(self, *events: LaneEvent) -> None:
        """Move by the table. RemoteError `channel.wrong_state`."""
        for event in events:
            self.state = apply(LANE_TRANSITIONS, self.state, event, "channel.wrong_state")

    def price_ucr(self, input_tokens: int, output_tokens: int) -> int:
        """The price due at these counts."""
        return cost_ucr(input_tokens, output_tokens, self.input_price_ucr, self.output_price_ucr)

    def next_chunk_ucr(self) -> int:
        """The most that the lane's next chunk may cost; nothing once all have come."""
        if self.state not in (LaneState.OFFERED, LaneState.ACTIVE, LaneState.PAUSED):
            return 0
        prompt_ucr = 0 if self.chunks else self.prompt_ucr
        return prompt_ucr + self.price_ucr(0, limits.CHUNK_TOKENS_MAX)

    def claim(self) -> LaneClaim:
        """The lane as a voucher states it."""
        return LaneClaim(self.lane, self.chunks, self.due_ucr)
