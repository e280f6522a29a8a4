"""When a voucher goes out for a running lane, and over how much. Sans-IO.

Rule: router/README.md, "Money": between half a chunk and a chunk ahead, never over A.
"""

from protocol.errors import LocalError
from protocol.messages import Voucher
from protocol.units import format_credits
from router import events
from router.attempt import Attempt
from router.context import Context
from router.job import Job
from router.payer import Payer, headroom_ucr
from router.top_ups import TopUps


class Paying:
    """Vouchers of the lanes that this node pays for."""

    def __init__(self, context: Context, payer: Payer, top_ups: TopUps) -> None:
        self._context = context
        self._payer = payer
        self._top_ups = top_ups

    def ahead(self, job: Job, attempt: Attempt) -> None:
        """Keep the vouchers between half a chunk and a chunk ahead of what is due."""
        channel = attempt.channel
        left = attempt.parameters.output_tokens_max - attempt.output_tokens
        headroom = headroom_ucr(attempt.scored, 0, left)
        payable = self._payer.payable_ucr(channel)
        if channel.total_ucr - payable <= headroom // 2:
            self._send(job, attempt, payable + headroom)

    def needed(self, job: Job, attempt: Attempt) -> None:
        """The provider is paused until the total reaches what `attempt` needs: pay it, or have
        the deposit raised first.

        LocalError `channel.over_deposit`, `channel.advance_limit`: it won't be paid.
        """
        channel, total_ucr = attempt.channel, attempt.needed_ucr
        advance = total_ucr - self._payer.payable_ucr(channel)
        if total_ucr > channel.total_ucr and advance > job.ask.advance_max_ucr:
            allowed_ucr = job.ask.advance_max_ucr
            wanted, allowed = format_credits(advance), format_credits(allowed_ucr)
            raise LocalError(
                "channel.advance_limit",
                f"{wanted} credits wanted, {allowed} allowed",
                short_ucr=advance - allowed_ucr,
            )
        if total_ucr > channel.deposit_ucr:
            if not self._top_ups.can_offer(channel):
                total, deposit = format_credits(total_ucr), format_credits(channel.deposit_ucr)
                raise LocalError(
                    "channel.over_deposit",
                    f"{total} of {deposit} credits",
                    short_ucr=total_ucr - channel.deposit_ucr,
                )
            # With room for another chunk, so that not each one waits for an answer.
            left = attempt.parameters.output_tokens_max - attempt.output_tokens
            raised_ucr = total_ucr + headroom_ucr(attempt.scored, 0, left)
            self._top_ups.offer(attempt.session, channel, raised_ucr)
            return
        attempt.needed_ucr = 0
        if total_ucr > channel.total_ucr:  # else it is on its way
            self._send(job, attempt, total_ucr)

    def _send(self, job: Job, attempt: Attempt, target_ucr: int) -> None:
        voucher = self._payer.issue(attempt.channel, target_ucr, job.ask.advance_max_ucr)
        if voucher is not None:
            self._context.send(attempt.session, voucher)
            self.tell(job, voucher)

    def tell(self, job: Job, voucher: Voucher) -> None:
        """Report a voucher to its asker and the log."""
        at_ns = job.elapsed_ns(self._context.now_ns)
        paid = events.Paid(voucher.cid, voucher.total_ucr, at_ns)
        self._context.deliver(job.ask.ask_id, paid)
        self._context.note("voucher.sent", request_id=job.id, total_ucr=voucher.total_ucr)
