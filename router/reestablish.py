"""After a lost stream or a restart: both ends of a channel tell what they know, and agree again.

Repairs a side that was put back to an older log, as far as signatures reach. Sans-IO.
Rule: protocol/README.md, "Re-establish"; router/README.md, "Money".
"""

from protocol import signing
from protocol.channel import Channel, ChannelEvent
from protocol.errors import RemoteError
from protocol.fields import LaneClaim
from protocol.lane import Lane, LaneState
from protocol.messages import Reestablish, Resume, Voucher
from protocol.records import DueAgreed, LaneClosed
from router.actions import SessionKey
from router.breaks import Breaks
from router.context import Context
from router.payer import Payer
from router.top_ups import TopUps


class PayerReestablish:
    """The paying end: tells what it received, takes the payee's answer."""

    def __init__(self, context: Context, payer: Payer, top_ups: TopUps, breaks: Breaks) -> None:
        self._context = context
        self._payer = payer
        self._top_ups = top_ups
        self._breaks = breaks
        self._going_on: dict[bytes, list[int]] = {}  # by channel, until its payee's answer

    def tell(self, session: SessionKey, channel: Channel) -> None:
        """After a reconnect: the lanes that shall go on, our total, what we received a lane."""
        self._going_on[channel.cid] = []
        for attempt in self._breaks.away(channel):
            lane, attempt.asked = attempt.lane, True
            self._context.send(session, Resume(channel.cid, lane.lane, lane.chunks + 1))
        message = Reestablish(channel.cid, channel.total_ucr, channel.claims(), None)
        self._context.send(session, message)

    def take_resume(self, session: SessionKey, message: Resume) -> None:
        """The payee goes on with a lane. RemoteError `channel.unknown`, `channel.wrong_state`,
        `channel.bad_reestablish`."""
        channel = self._payer.find(session, message.cid)
        channel.check(ChannelEvent.REESTABLISH)
        asked = {a.lane.lane: a.lane.chunks + 1 for a in self._breaks.away(channel)}
        if asked.get(message.lane) != message.sequence:
            raise RemoteError("channel.bad_reestablish", "goes on with what we did not ask for")
        self._going_on.setdefault(channel.cid, []).append(message.lane)

    def take(self, session: SessionKey, message: Reestablish) -> Channel:
        """The payee's answer: adopt a voucher that we forgot, close the lanes that broke.

        An answer that can't be true freezes the channel.

        RemoteError `channel.unknown`, `channel.wrong_state`, `channel.bad_reestablish`.
        """
        channel = self._payer.find(session, message.cid)
        channel.check(ChannelEvent.REESTABLISH)
        going_on = self._going_on.pop(channel.cid, [])
        try:
            if message.total_ucr > channel.total_ucr:
                self._adopt(channel, message.voucher)
            prices = _broken(channel, message.lanes, going_on)
            agreed = self._agreed(channel, message.lanes, prices)
        except RemoteError as error:
            self._payer.freeze(channel, error.code)
            raise
        channel.step(ChannelEvent.REESTABLISH)
        for lane, due_ucr in prices:
            close_lane(self._context, channel, lane.claim(), due_ucr)
        if agreed is not None:
            self._context.append(agreed)
        # In this order: a payee that was put back may have lost the deposit that they need.
        self._top_ups.repeat(session, channel)
        if channel.total_ucr > message.total_ucr:
            self._context.send(session, self._payer.sign_again(channel))
        self._payer.settle(session, channel)
        self._breaks.resumed(channel, going_on)
        return channel

    def _agreed(
        self, channel: Channel, claims: tuple[LaneClaim, ...], prices: list[tuple[Lane, int]]
    ) -> DueAgreed | None:
        """What the closed lanes cost by the payee's answer, when that is more than we know.

        The payee may keep what our vouchers promise ahead of delivery, at most A in all, and
        nothing more. RemoteError `channel.bad_reestablish`.
        """
        audited = channel.audited_ucr  # closed for the payee, and still open here
        ours = channel.settled_due_ucr + audited + sum(price for _, price in prices)
        count = channel.settled_lanes + len(prices)
        theirs = LaneClaim(0, 0, 0)
        if claims and claims[0].lane == 0:
            theirs = claims[0]
        broken = [lane.lane for lane, _ in prices]
        lanes = channel.lanes.values()
        running = sum(x.due_ucr for x in lanes if x.lane not in broken) - audited
        stated = sum(claim.due_ucr for claim in channel.issued)
        # An adopted voucher may state lanes that we forgot, and that the payee has not closed.
        agreed = max(ours, theirs.due_ucr, stated - running)
        if agreed - ours <= channel.disputed_ucr:
            agreed = ours  # it counts what we dispute, and may
        if agreed + running > max(channel.total_ucr, stated, channel.due_ucr):
            raise RemoteError("channel.bad_reestablish", "more than we signed")
        last = max((claim.lane for claim in claims), default=0)
        if agreed == ours and last <= channel.lane_last:
            return None
        # Lanes that we know nothing of: our log was put back to an older state.
        return DueAgreed(channel.cid, agreed - audited, max(count, theirs.chunks), last)

    def _adopt(self, channel: Channel, voucher: Voucher | None) -> None:
        """Our own signature, which our log has lost, is as good as a record of it."""
        context = self._context
        if voucher is None or voucher.cid != channel.cid:
            raise RemoteError("channel.bad_reestablish", "no voucher shown")
        signed = signing.voucher_bytes(
            context.network, channel.cid, voucher.total_ucr, voucher.lanes
        )
        if not context.verify(context.public_key, signed, voucher.signature):
            raise RemoteError("channel.bad_reestablish", "the signature is not ours")
        self._payer.adopt(channel, voucher)


def _broken(
    channel: Channel, claims: tuple[LaneClaim, ...], going_on: list[int]
) -> list[tuple[Lane, int]]:
    """Our lanes that end here, and the prices that the payee closed them at."""
    answered = {claim.lane: claim.due_ucr for claim in claims}
    lanes = [
        lane
        for number, lane in channel.lanes.items()
        if number not in going_on and lane.state is not LaneState.AUDIT
    ]
    return [(lane, answered.get(lane.lane, lane.due_ucr)) for lane in lanes]


def close_lane(
    context: Context,
    channel: Channel,
    claim: LaneClaim,
    due_ucr: int,
    code: str = "session.closed",
) -> None:
    """Log the end of a lane that broke with its stream, or for another reason."""
    number, chunks = claim.lane, claim.chunks
    context.append(LaneClosed(channel.cid, number, chunks, due_ucr, code, context.now_ns))
