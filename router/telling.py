"""What this requester tells others of its auctions, where enough bid to choose among.

Sans-IO. Silent while others say nearly the same. Rule: router/README.md, "Self-selection".
"""

from dataclasses import dataclass, field

from protocol import limits
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import Bid, Clearing, Request
from router.actions import Publish
from router.auction import measure, told_points
from router.bidding import GOOD_BIDS_MIN
from router.clearings import PPM
from router.context import Context
from router.job import Job
from router.self_selection import lot_ppm
from router.timers import TimerKey

# What others told is nearly the same within these, in 1/1000 of it. Who estimates sellers from
# four lots is off by two half of the time: that is no news.
_SAME_POINTS_MILLI = 1_500
_SAME_SELLERS_MILLI = 5_000


@dataclass(slots=True)
class _Tally:
    """An auction that was decided, while late bids are still counted."""

    request: Signed
    ranked: list[Bid]  # those in time that were acceptable, best first
    bidders: dict[bytes, None] = field(default_factory=dict)


class Telling:
    """One auction of a model at a time is looked at, every CLEARING_INTERVAL_NS."""

    def __init__(self, context: Context, *, tells: bool) -> None:
        self._context = context
        self._tells = tells
        self._tallies: dict[bytes, _Tally] = {}
        self._looked_ns: dict[str, int] = {}

    def watch(self, job: Job) -> None:
        """An auction is decided; what came of it is told when its window would have ended."""
        context, request = self._context, job.request
        ask: Request = request.message
        filters = ask.filters
        # An auction for a few is not the market; one without bids has no price.
        if not self._tells or not job.bids or filters.providers_only or filters.model_digest:
            return
        due_ns = self._looked_ns.get(ask.model, 0) + limits.CLEARING_INTERVAL_NS
        if context.now_ns < due_ns:
            return
        self._looked_ns.pop(ask.model, None)
        self._looked_ns[ask.model] = context.now_ns
        if len(self._looked_ns) > limits.CLEARING_MODELS_KEPT:
            del self._looked_ns[next(iter(self._looked_ns))]
        ranked = sorted(
            (scored.bid for scored in job.bids), key=lambda bid: measure(request, bid)[2]
        )
        self._tallies[job.id] = _Tally(request, ranked, dict.fromkeys(job.bidders))
        at_ns = max(context.now_ns, request.sent_at_ns + ask.bid_window_ns)
        context.timers.set(TimerKey("clearing", job.id), at_ns)

    def heard(self, request_id: bytes, peer: bytes) -> None:
        """A bid came; a late one is only counted."""
        tally = self._tallies.get(request_id)
        if tally is not None and len(tally.bidders) < limits.BIDS_PER_REQUEST_MAX:
            tally.bidders[peer] = None

    def tell(self, request_id: bytes) -> None:
        """Say what an auction came to, if that is news to anybody."""
        tally = self._tallies.pop(request_id, None)
        if tally is None:
            return
        context, request = self._context, tally.request
        told = clearing(request, tally.ranked, list(tally.bidders))
        bar = context.clearings.bar(request, context.now_ns)
        if bar is None and len(tally.bidders) <= limits.CLEARING_RANK:
            return  # nobody withholds, and there is nothing to withhold
        if bar is not None and bar.voices >= limits.CLEARINGS_ENOUGH:
            near = _near(told_points(request, told), bar.points, _SAME_POINTS_MILLI)
            if near and _near(told.sellers, bar.sellers, _SAME_SELLERS_MILLI):
                return
        signed = sign_envelope(context.signer, context.network, told, context.now_ns)
        try:
            context.clearings.take(signed)
        except RemoteError:
            return  # windows differ in length, clocks are set back: nobody would hear it so soon
        context.act(Publish(signed.data))
        context.note("clearing.told", model=told.model, sellers=told.sellers)


def clearing(request: Signed, ranked: list[Bid], bidders: list[bytes]) -> Clearing:
    """What is told of an auction: `ranked` bids in time, best first, and all `bidders`.

    Late bids are not opened: as many of the best are taken to be among them as among others. But
    what is told was matched by GOOD_BIDS_MIN in time, as bidding waits for so many: a bar that few
    reach would have every requester ask again, and tell one that fewer reach.
    """
    place = limits.CLEARING_RANK * len(ranked) // max(1, len(bidders))
    bid = ranked[min(len(ranked), max(GOOD_BIDS_MIN, place)) - 1]
    return Clearing(
        model=request.message.model,
        input_tokens_max=request.message.input_tokens_max,
        input_price_ucr=bid.input_price_ucr,
        output_price_ucr=bid.output_price_ucr,
        ttft_ns=bid.ttft_ns,
        tokens_per_s_milli=bid.tokens_per_s_milli,
        sellers=sellers_estimate(request.digest, bidders),
    )


def sellers_estimate(request_id: bytes, bidders: list[bytes]) -> int:
    """How many would have bid, from who did.

    Whoever draws a low lot bids, whatever the others do, so the lowest lots lie as close to 0 as
    there are sellers. Bidders that are no more than are wanted are taken for all that there are.
    """
    if len(bidders) <= limits.CLEARING_RANK:
        return max(1, len(bidders))
    count = limits.BIDS_WANTED // 2  # about so many more draw a lot as low as bids
    lots = sorted(lot_ppm(bidder, request_id) for bidder in bidders)
    estimate = (count - 1) * PPM // max(1, lots[count - 1])
    return min(limits.U32_MAX, max(len(bidders), estimate))


def _near(one: int, other: int, factor_milli: int) -> bool:
    least, most = sorted((one, other))
    return most * 1_000 <= least * factor_milli
