"""What channels do by the clock: deadlines of closes alone, ends of lifetimes. Sans-IO.

Rule: router/README.md, "Closing alone".
"""

from collections.abc import Callable
from typing import Final

from protocol import limits
from protocol.channel import Channel, ChannelState, Role
from router.actions import SessionKey
from router.anchor import Anchor
from router.challenges import Challenges, period_ns
from router.closing import Closing
from router.context import Context
from router.timers import TimerKey

SWEEP: Final = TimerKey("sweep", b"")


class Lifetimes:
    """Looks after open channels when the next of them is due, by one timer."""

    def __init__(
        self,
        context: Context,
        anchor: Anchor,
        closing: Closing,
        challenges: Challenges,
        is_up: Callable[[SessionKey], bool],
    ) -> None:
        self._context = context
        self._anchor = anchor
        self._closing = closing
        self._challenges = challenges
        self._is_up = is_up
        self._asked: dict[bytes, int] = {}  # co-operative closes at the lifetime's end
        self._look_again_ns: dict[bytes, int] = {}
        self._seen = (-1, -1, -1)
        self._arm()

    def tick(self) -> None:
        """Channels may have come or gone, or begun to close: look when the next is due."""
        ledger = self._context.ledger
        seen = len(ledger.channels), ledger.open_channels, self._challenges.begun
        if seen != self._seen:
            self._arm()
            self._seen = seen

    def _arm(self) -> None:
        channels = self._context.ledger.channels.values()
        due = [self._due_ns(channel) for channel in channels if channel.is_open]
        if due:
            self._context.timers.set(SWEEP, min(due))
        else:
            self._context.timers.cancel(SWEEP)

    def _due_ns(self, channel: Channel) -> int:
        """When something has to be done about an open channel."""
        if channel.state is ChannelState.CHALLENGE:
            return self._look_again_ns.get(channel.cid, channel.deadline_ns)
        if channel.role is Role.PAYEE:
            return channel.claim_at_ns()
        if channel.cid in self._asked:
            return channel.expires_at_ns() + period_ns(channel)
        return channel.claim_at_ns() - limits.CLAIM_MARGIN_NS

    def sweep(self) -> None:
        """Settle what is past its deadline, end what is past its lifetime."""
        now_ns, channels = self._context.now_ns, self._context.ledger.channels
        for kept in (self._asked, self._look_again_ns):
            for cid in [cid for cid in kept if cid not in channels or not channels[cid].is_open]:
                del kept[cid]
        for channel in list(channels.values()):
            if channel.is_open and self._due_ns(channel) <= now_ns:
                self._act(channel)
        self._arm()

    def _act(self, channel: Channel) -> None:
        context = self._context
        if channel.state is ChannelState.CHALLENGE:
            settled_ucr = self._anchor.finalize(context, channel)
            if settled_ucr is not None:
                self._challenges.settle(channel, settled_ucr)
            else:
                again_ns = context.now_ns + limits.FINALIZE_RETRY_NS
                self._look_again_ns[channel.cid] = again_ns
        elif channel.role is Role.PAYER and channel.cid not in self._asked:
            self._asked[channel.cid] = context.now_ns
            self._closing.close((channel.cid,), self._is_up)
        else:
            # Also a payee without a voucher: the payer may show one that was lost, or the close
            # that a log put back forgot.
            self._challenges.begin(channel, channel.role)
