"""After a lost stream or a restart: both ends of a channel tell what they know, and agree again.

Repairs a side that was put back to an older log, as far as signatures reach. Sans-IO.
Rule: protocol/README.md, "Re-establish"; router/README.md, "Money".
"""

from dataclasses import dataclass

from protocol import limits, signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.fields import LaneClaim
from protocol.lane import Lane, LaneState
from protocol.messages import Reestablish, Resume, Voucher
from protocol.records import Denied, DueAgreed, LaneClosed, VoucherIssued
from router.actions import SessionKey
from router.breaks import Breaks
from router.context import Context
from router.payee import Payee
from router.payer import Payer
from router.serving import Serving
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
            lane = attempt.lane
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
            self._send_again(session, channel, message)
        self._payer.settle(session, channel)
        self._breaks.resumed(channel, going_on)
        return channel

    def _send_again(self, session: SessionKey, channel: Channel, message: Reestablish) -> None:
        """The last voucher, the same bytes; stated anew where it says less than the payee, whose
        log lost what it delivered, needs to hear."""
        theirs = sum(claim.due_ucr for claim in message.lanes[:1])
        lost = theirs < channel.settled_due_ucr + channel.audited_ucr
        if lost and sum(claim.due_ucr for claim in channel.issued) < channel.due_ucr:
            self._payer.repeat(session, channel)
        else:
            self._context.send(session, self._payer.sign_again(channel))

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
        if voucher.total_ucr > channel.deposit_ucr:
            raise RemoteError("channel.bad_reestablish", "over the deposit")
        context.append(VoucherIssued(channel.cid, voucher.total_ucr, voucher.lanes))


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


@dataclass(slots=True)
class _Settling:
    """One payee's reckoning with one returning payer; amounts in ucr.

    `uncovered` is what may still be taken off: sent, and paid for by no voucher. `denied` is
    what was taken off although we know that we sent it.
    """

    uncovered: int
    denied: int = 0

    def price(self, due_ucr: int, least_ucr: int, *, exact: bool) -> int:
        """`due_ucr` lowered towards `least_ucr`, as far as nothing covers it."""
        cut = min(max(0, due_ucr - least_ucr), self.uncovered)
        self.uncovered -= cut
        self.denied += cut if exact else 0
        return due_ucr - cut


class PayeeReestablish:
    """The earning end: settles the broken lanes, says at what, shows its best voucher."""

    def __init__(self, context: Context, payee: Payee, serving: Serving) -> None:
        self._context = context
        self._payee = payee
        self._serving = serving

    def take(self, session: SessionKey, message: Reestablish) -> None:
        """The payer is back. RemoteError `channel.unknown`, `channel.wrong_state`,
        `channel.frozen`, `channel.bad_lanes`."""
        context = self._context
        ended = context.ledger.channel(message.cid)
        if ended and ended.payer == session.peer and ended.settled_ucr is not None:
            self._payee.show_end(session, ended)
            return
        channel = self._payee.find(session, message.cid)
        if channel.state is ChannelState.FROZEN:
            raise RemoteError("channel.frozen", penalize=False)
        channel.check(ChannelEvent.REESTABLISH)
        claimed = _check_claims(channel, message.lanes)
        counted = _counts_receipts(channel, claimed)
        going_on = self._serving.take_wanted(channel, claimed, counted=counted)
        resumed = [claimed[number] for number in going_on if number in claimed]
        answer = self._settle(channel, claimed, going_on)
        self._catch_up(channel, claimed, answer)
        channel.step(ChannelEvent.REESTABLISH)
        for claim in resumed:
            context.send(session, Resume(channel.cid, claim.lane, claim.chunks + 1))
        lanes = (channel.claims()[0], *answer)
        if len(lanes) < limits.LANES_PER_CHANNEL_MAX and lanes[-1].lane < channel.lane_last:
            # A payer that lost records must not use a lane's number again.
            last = channel.lane_last
            known = LaneClaim(last, 0, channel.closed.get(last, 0))
            lanes = (*lanes, claimed.get(last, known))
        context.send(session, Reestablish(channel.cid, channel.total_ucr, lanes, channel.voucher))
        done = [channel.lanes[number] for number in going_on if number not in claimed]
        self._serving.go_on(session, channel, [*resumed, *(lane.claim() for lane in done)])

    def _settle(
        self, channel: Channel, claimed: dict[int, LaneClaim], going_on: list[int]
    ) -> list[LaneClaim]:
        """Close the broken lanes; what the payer named, as it is from now on.

        What a voucher covers or states as received stays due, or a payer could prepay a job,
        take it, and claim it back; beyond that, at most W, the payer's word is taken.
        """
        settling = _Settling(max(0, channel.due_ucr - channel.total_ucr))
        vouched = channel.voucher.lanes if channel.voucher else ()
        stated = {c.lane: c.due_ucr for c in vouched if c.lane not in going_on}
        claimed = {number: c for number, c in claimed.items() if number not in going_on}
        answer = []
        ending = (claimed.keys() | channel.lanes.keys()) - {0, *going_on}
        for number in sorted(ending):
            lane, claim = channel.lanes.get(number), claimed.get(number)
            due = lane.due_ucr if lane else channel.closed.get(number)
            if due is None:
                if claim is not None:
                    answer.append(claim)  # our log has lost it: the payer owns up to it
                continue
            claim = claim or LaneClaim(number, lane.chunks if lane else 0, due)
            least = max(claim.due_ucr, stated.get(number, 0))
            price = settling.price(due, least, exact=lane is None or lane.exact)
            if lane is not None or price != due:
                close_lane(self._context, channel, claim, price)
            if number in claimed:
                answer.append(LaneClaim(number, claim.chunks, max(price, claim.due_ucr)))
        self._settle_closed(channel, claimed, stated, settling)
        if settling.denied:
            self._context.append(Denied(channel.cid, settling.denied))
        return answer

    def _settle_closed(
        self,
        channel: Channel,
        claimed: dict[int, LaneClaim],
        stated: dict[int, int],
        settling: _Settling,
    ) -> None:
        """The lanes that both closed: a payer that knows of less lowers their sum likewise."""
        named = sum(max(c.due_ucr, stated.get(c.lane, 0)) for c in claimed.values() if c.lane)
        least = max(claimed[0].due_ucr + named, sum(stated.values()))
        settled = settling.price(channel.settled_due_ucr, least, exact=True)
        if settled != channel.settled_due_ucr:
            self._agree(channel, settled, channel.lane_last)

    def _catch_up(
        self, channel: Channel, claimed: dict[int, LaneClaim], answer: list[LaneClaim]
    ) -> None:
        """A payer that owns up to more than our log knows of: it was put back."""
        unnamed = sum(x.due_ucr for x in channel.lanes.values() if x.lane not in claimed)
        owed = claimed[0].due_ucr + sum(claim.due_ucr for claim in answer)
        settled = min(owed - unnamed, channel.deposit_ucr)
        if settled > channel.settled_due_ucr:
            self._agree(channel, settled, max(channel.lane_last, *claimed))

    def _agree(self, channel: Channel, settled_ucr: int, last: int) -> None:
        record = DueAgreed(channel.cid, settled_ucr, channel.settled_lanes, last)
        self._context.append(record)


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


def _check_claims(channel: Channel, claims: tuple[LaneClaim, ...]) -> dict[int, LaneClaim]:
    """The payer's claims by lane. RemoteError `channel.bad_lanes`.

    More than we sent is a lie, unless our log was put back to before we sent it, which nobody
    can tell of a lane that was there when this process started.
    """
    assert channel.role is Role.PAYEE
    numbers = [claim.lane for claim in claims]
    if numbers != sorted(set(numbers)) or numbers[:1] != [0]:
        raise RemoteError("channel.bad_lanes", "not lane 0 and then in rising order")
    for claim in claims[1:]:
        lane = channel.lanes.get(claim.lane)
        due = channel.closed.get(claim.lane) if lane is None else lane.due_ucr
        certain = claim.lane > channel.replayed_last
        if due is not None and certain and claim.due_ucr > due:
            raise RemoteError("channel.bad_lanes", "more than was sent")
    return {claim.lane: claim for claim in claims}


def _counts_receipts(channel: Channel, claimed: dict[int, LaneClaim]) -> bool:
    """Whether the payer's sum of closed lanes has room for all that wait for its receipt, and that
    it does not name: else its log was put back to before them."""
    named = sum(due for number, due in channel.closed.items() if number in claimed)
    waiting = sum(x.due_ucr for x in channel.lanes.values() if x.result and x.lane not in claimed)
    return claimed[0].due_ucr >= channel.settled_due_ucr - named + waiting
