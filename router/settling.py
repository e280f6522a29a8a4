"""The payee's half of a re-establish: what the broken lanes cost, by its own log and by the payer.

Sans-IO. Rule: protocol/README.md, "Re-establish"; router/README.md, "Money".
"""

from dataclasses import dataclass

from protocol import limits
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.fields import LaneClaim
from protocol.messages import Reestablish, Resume
from protocol.records import Denied, DueAgreed
from router.actions import SessionKey
from router.context import Context
from router.payee import Payee
from router.reestablish import close_lane
from router.serving import Serving


@dataclass(slots=True)
class _Settling:
    """One payee's reckoning with one returning payer; amounts in ucr.

    `uncovered` is what may still be taken off: sent, and paid for by no voucher. `denied` is
    what was taken off although we know that we sent it; `unsure` what we may have sent of lanes
    that the payer does not name; `awaiting` the price of those that it may have closed before us.
    """

    uncovered: int
    awaiting: int
    denied: int = 0
    unsure: int = 0

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
        wanted = self._serving.take_wanted(channel, claimed)
        going_on = [number for number in wanted if counted or number in claimed]
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
            lanes = (*lanes, LaneClaim(last, 0, channel.closed.get(last, 0)))
        context.send(session, Reestablish(channel.cid, channel.total_ucr, lanes, channel.voucher))
        self._payee.show_deposit(session, channel)
        done = [channel.lanes[number] for number in going_on if number not in claimed]
        self._serving.go_on(session, channel, [*resumed, *(lane.claim() for lane in done)])

    def _settle(
        self, channel: Channel, claimed: dict[int, LaneClaim], going_on: list[int]
    ) -> list[LaneClaim]:
        """Close the broken lanes; what the payer named, as it is from now on.

        What a voucher covers or states as received stays due, or a payer could prepay a job,
        take it, and claim it back; beyond that, at most W, the payer's word is taken.
        """
        due_ucr = channel.due_ucr + _forgotten_ucr(channel, claimed, going_on)
        uncovered = max(0, due_ucr - channel.total_ucr)
        settling = _Settling(uncovered, _awaiting_ucr(channel, claimed))
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
            if claim is None and lane is not None and not lane.exact:
                settling.unsure += due
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
        closed = claimed[0].due_ucr - settling.awaiting
        least = max(closed + named, sum(stated.values()))
        before = channel.settled_due_ucr
        settled = settling.price(before, least, exact=True)
        if settled != before:
            settling.denied -= min(before - settled, settling.unsure)
            self._agree(channel, settled, channel.lane_last)

    def _catch_up(
        self, channel: Channel, claimed: dict[int, LaneClaim], answer: list[LaneClaim]
    ) -> None:
        """A payer that owns up to more than our log knows of: it was put back."""
        unnamed = sum(x.due_ucr for x in channel.lanes.values() if x.lane not in claimed)
        owed = claimed[0].due_ucr + sum(claim.due_ucr for claim in answer)
        settled = min(owed - unnamed, channel.deposit_ucr)
        if settled > channel.settled_due_ucr:
            self._context.note_rolled_back(channel.peer, cid=channel.cid, shown_ucr=settled)
            self._agree(channel, settled, max(channel.lane_last, *claimed))

    def _agree(self, channel: Channel, settled_ucr: int, last: int) -> None:
        record = DueAgreed(channel.cid, settled_ucr, channel.settled_lanes, last)
        self._context.append(record)


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


def _forgotten_ucr(channel: Channel, claimed: dict[int, LaneClaim], going_on: list[int]) -> int:
    """What the payer owns up to, of the lanes that end, beyond what our log knows: it was put
    back. The voucher that covers other lanes' reservations covers this too, and first."""
    forgotten = 0
    for number, claim in claimed.items():
        if number and number not in going_on:
            lane = channel.lanes.get(number)
            known = lane.due_ucr if lane else channel.closed.get(number, 0)
            forgotten += max(0, claim.due_ucr - known)
    return forgotten


def _counts_receipts(channel: Channel, claimed: dict[int, LaneClaim]) -> bool:
    """Whether the payer's sum of closed lanes has room for those that it need not name: else its
    log was put back to before them."""
    named = sum(due for number, due in channel.closed.items() if number in claimed)
    closed = channel.settled_due_ucr - named + _awaiting_ucr(channel, claimed)
    return claimed[0].due_ucr >= closed


def _awaiting_ucr(channel: Channel, claimed: dict[int, LaneClaim]) -> int:
    """The price of the lanes with a receipt that the payer may have closed, and answered."""
    lanes = channel.lanes.values()
    return sum(lane.due_ucr for lane in lanes if lane.result and lane.lane not in claimed)
