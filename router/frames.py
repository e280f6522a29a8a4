"""What comes on job streams, to the core that it is for. Sans-IO.

Rule: protocol/README.md, "Streams": what the payer may send, and what the payee.
"""

from collections.abc import Callable
from typing import Any

from protocol import messages, wire
from protocol.channel import ChannelState
from protocol.errors import RemoteError
from router.actions import SessionKey
from router.anchoring import Anchoring
from router.challenges import Challenges
from router.closing import Closing
from router.context import Context
from router.heads import Heads
from router.provider import Provider
from router.requester import Requester


class Frames:
    """Decodes and dispatches; raises what the cores raise."""

    def __init__(
        self,
        context: Context,
        requester: Requester,
        provider: Provider,
        closing: Closing,
        challenges: Challenges,
        heads: Heads,
        anchoring: Anchoring,
    ) -> None:
        self._context = context
        self._requester = requester
        self._provider = provider
        self._closing = closing
        self._challenges = challenges
        self._heads = heads
        self._anchoring = anchoring

    def take(self, session: SessionKey, body: bytes) -> None:
        """One frame's body. RemoteError: what is wrong with it."""
        message = wire.decode(body)
        if isinstance(message, messages.LogHead):
            self._heads.take(session, message)
            return
        if self._anchoring.take(session, message):
            return
        if isinstance(message, messages.CloseNotice):
            if session.outbound:
                self._challenges.take_notice(session, message)
                # An award that waited for this channel goes to another.
                self._requester.awarding.dispatch(session.peer)
            else:
                self._refusing(session, message.cid, self._challenges.take_notice, message)
            return
        if isinstance(message, messages.CloseClaim):
            self._challenges.take_claim(session, message)
            return
        if session.outbound:
            self._from_payee(session, message)
            self._requester.top_ups.proceed(session)
            self._closing.proceed(session)
        else:
            self._from_payer(session, message)

    def _from_payee(self, session: SessionKey, message: Any) -> None:
        delivery, payer = self._requester.delivery, self._requester.payer
        match message:
            case messages.Chunk():
                delivery.take_chunk(session, message)
            case messages.Accept():
                delivery.take_accept(session, message)
            case messages.VoucherAck():
                pass  # the payer's own log already holds the total
            case messages.NeedVoucher():
                delivery.take_need(session, message)
            case messages.Result():
                delivery.take_result(session, message)
            case messages.JobFailed():
                delivery.take_failed(session, message)
            case messages.Refuse():
                self._refused(session, message)
            case messages.Resume():
                self._requester.reestablish.take_resume(session, message)
            case messages.Reestablish():
                self._requester.reestablish.take(session, message)
                self._requester.awarding.dispatch(session.peer)
            case messages.TopUp():
                self._requester.top_ups.take_shown(session, message)
            case messages.TopUpAck():
                delivery.take_top_up_ack(session, message)
            case messages.CloseAck():
                self._closing.closed(payer.take_close_ack(session, message).cid)
                self._requester.breaks.resumed(self._context.ledger.channels[message.cid], [])
                self._requester.awarding.dispatch(session.peer)
            case _:
                raise RemoteError("session.protocol", type(message).__name__)

    def _refused(self, session: SessionKey, message: messages.Refuse) -> None:
        channel = self._context.ledger.channel(message.subject)
        closing = channel is not None and channel.state is ChannelState.CLOSING_COOP
        self._challenges.take_refusal(session, message.subject, message.code)
        self._requester.delivery.take_refuse(session, message)
        if closing:
            self._closing.refused(message.subject, message.code)

    def _from_payer(self, session: SessionKey, message: Any) -> None:
        provider = self._provider
        match message:
            case messages.Voucher():
                if not self._challenges.take_voucher(session, message):
                    channel = provider.payee.take_voucher(session, message)
                    provider.serving.voucher_taken(channel)
            case messages.Award():
                provider.take_award(session, message)
            case messages.DirectRequest():
                provider.standing.take_request(session, message)
            case messages.ReceiptAck():
                provider.take_receipt_ack(session, message)
            case messages.Cancel():
                provider.serving.take_cancel(session, message)
            case messages.TopUp():
                self._refusing(session, message.cid, provider.payee.take_top_up, message)
            case messages.CloseRequest():
                self._refusing(session, message.cid, provider.payee.take_close, message)
            case messages.CloseShown():
                self._challenges.take_shown(session, message)
            case messages.Resume():
                provider.serving.want(session, message)
            case messages.Reestablish():
                if not self._challenges.remind(session, message.cid):
                    self._refusing(session, message.cid, provider.reestablish.take, message)
            case _:
                raise RemoteError("session.protocol", type(message).__name__)

    def _refusing(
        self, session: SessionKey, cid: bytes, take: Callable[..., None], message: Any
    ) -> None:
        try:
            take(session, message)
        except RemoteError as error:
            self._context.send(session, messages.Refuse(cid, error.code))
            raise
