"""Receipts whose last payment waits for a local auditor, or for a time to pass. Sans-IO.

Only the payer knows of it: its vouchers lag. Rule: router/README.md, "Holdback".
"""

from collections.abc import Callable

from protocol.channel import Channel, Role
from protocol.lane import Lane, LaneState
from protocol.records import AuditClosed
from router import events
from router.actions import SessionKey
from router.closing import Closing
from router.context import Context
from router.ledger import DISPUTED, PASSED
from router.payer import Payer
from router.timers import TimerKey


class Audits:
    """Lanes in AUDIT: a verdict or the time's end pays what was held back, or keeps it."""

    def __init__(
        self,
        context: Context,
        payer: Payer,
        closing: Closing,
        is_up: Callable[[SessionKey], bool],
    ) -> None:
        self._context = context
        self._payer = payer
        self._closing = closing
        self._is_up = is_up
        for channel in context.ledger.channels.values():
            for lane in channel.lanes.values():
                if lane.state is LaneState.AUDIT:
                    context.timers.set(_timer(channel, lane), lane.audit_until_ns)

    def passed(self, cid: bytes, number: int) -> None:
        """The auditor has nothing to say against the receipt."""
        self._verdict(cid, number, PASSED, "")

    def dispute(self, cid: bytes, number: int, code: str) -> None:
        """The auditor says that what was delivered is not what was bought."""
        self._verdict(cid, number, DISPUTED, code)

    def handle_timer(self, key: TimerKey) -> None:
        """Nobody said anything in time, if the channel is still there."""
        channel = self._context.ledger.channel(key.subject)
        if channel is not None and key.lane in channel.lanes:
            self.passed(key.subject, key.lane)

    def _verdict(self, cid: bytes, number: int, verdict: int, code: str) -> None:
        context, channel = self._context, self._context.ledger.channel(cid)
        lane = channel.lanes.get(number) if channel else None
        if channel is None or channel.role is not Role.PAYER or lane is None:
            return self._tell(cid, number, "channel.unknown")
        if lane.state is not LaneState.AUDIT:
            return self._tell(cid, number, "channel.wrong_state")
        context.timers.cancel(_timer(channel, lane))
        kept = 0
        if verdict == DISPUTED:
            # Only what no voucher has paid: the rest is gone, and must not be taken off others.
            unpaid = max(0, channel.due_ucr - channel.total_ucr)
            kept = min(lane.held_ucr, lane.due_ucr, unpaid)
        record = AuditClosed(cid, number, verdict, kept, code or "ok", context.now_ns)
        context.append(record)
        context.note("audit.closed", cid=cid, lane=number, verdict=verdict, kept_ucr=kept)
        session = SessionKey(channel.peer, outbound=True)
        if self._is_up(session):
            self._payer.settle(session, channel)
            self._closing.proceed(session)
        return self._tell(cid, number, code if verdict == DISPUTED else "")

    def _tell(self, cid: bytes, number: int, code: str) -> None:
        self._context.deliver(events.CONTROL_ASK, events.AuditEnded(cid, number, code))


def watch_audit(context: Context, channel: Channel, lane: Lane) -> None:
    """A lane has come to AUDIT: it is paid when its time is over."""
    context.timers.set(_timer(channel, lane), lane.audit_until_ns)


def _timer(channel: Channel, lane: Lane) -> TimerKey:
    return TimerKey("audit", channel.cid, lane.lane)
