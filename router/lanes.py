"""A lane of a request, opened on a channel, and the award that says so. Sans-IO."""

from protocol import signing
from protocol.channel import Channel
from protocol.fields import ChannelOpen
from protocol.messages import Award, Voucher
from protocol.records import LaneOpened
from protocol.transcript import transcript_start
from router.actions import SessionKey
from router.attempt import Attempt
from router.auction import ScoredBid
from router.context import Context
from router.job import Job
from router.pace import Pace
from router.quoting import input_tokens_allowed, text_bytes


def open_lane(context: Context, job: Job, scored: ScoredBid, channel: Channel) -> Attempt:
    """Log the channel's next lane, for this bid."""
    number = channel.lane_last + 1
    bid_id = scored.signed.digest
    context.append(
        LaneOpened(
            cid=channel.cid,
            lane=number,
            request_id=job.id,
            bid_id=bid_id,
            model=job.ask.model,
            input_price_ucr=scored.bid.input_price_ucr,
            output_price_ucr=scored.bid.output_price_ucr,
            opened_at_ns=context.now_ns,
            bid=scored.signed.data,
        )
    )
    lane, request = channel.lanes[number], job.request.message
    lane.held_ucr = job.ask.holdback_ucr if job.ask.audit_ns else 0
    lane.advance_ucr = job.ask.advance_max_ucr
    lane.prompt_ucr = lane.price_ucr(request.input_tokens_max, 0)
    commitment = request.prompt_commitment
    return Attempt(
        request=job.id,
        ask=request,
        parameters=job.ask.parameters,
        commitment=commitment,
        scored=scored,
        session=SessionKey(scored.signed.sender, outbound=True),
        channel=channel,
        lane=lane,
        transcript=transcript_start(context.network, job.id, bid_id, commitment),
        slot=job.slot,
        input_tokens_most=input_tokens_allowed(job.ask.prompt, request),
        prompt_bytes=text_bytes(job.ask.prompt),
        pace=Pace(context.now_ns),
    )


def award_message(
    context: Context,
    job: Job,
    attempt: Attempt,
    opening: ChannelOpen | None,
    voucher: Voucher | None,
) -> Award:
    """The award of a lane, signed."""
    lane = attempt.lane
    signed = signing.award_bytes(
        context.network,
        job.id,
        lane.bid_id,
        attempt.channel.cid,
        lane.lane,
        attempt.commitment,
        attempt.parameters,
    )
    return Award(
        request_id=job.id,
        bid_id=lane.bid_id,
        cid=attempt.channel.cid,
        lane=lane.lane,
        prompt=job.ask.prompt,
        prompt_key=job.prompt_key,
        parameters=attempt.parameters,
        open=opening,
        voucher=voucher,
        signature=context.signer.sign(signed),
    )
