"""What a node needs to buy and sell: its cores, wired to each other, and its job streams. Sans-IO.

Rule: router/README.md.
"""

from dataclasses import dataclass

from protocol import limits, messages, wire
from protocol.channel import Channel, Role
from protocol.errors import RemoteError
from protocol.framing import FrameReader
from router import actions as act
from router.actions import Input, SessionKey
from router.anchoring import Anchoring, AnchorSettings
from router.audits import Audits
from router.challenges import Challenges
from router.cheques import ChequeTerms
from router.choosing import RequesterSettings
from router.closing import Closing
from router.context import Context
from router.frames import Frames
from router.heads import Heads
from router.lifetimes import SWEEP, Lifetimes
from router.provider import Provider
from router.reestablish import close_lane
from router.requester import Requester
from router.timers import TimerKey


@dataclass(frozen=True, slots=True)
class TradeSettings:
    """What a node trades by; the same for every node of a simulated market."""

    anchor: AnchorSettings
    requester: RequesterSettings | None
    cheques: ChequeTerms
    bids_wanted: int
    standing_offers: bool


class Trading:
    """A requester and a provider over one ledger, one log and one set of timers."""

    def __init__(self, context: Context, settings: TradeSettings) -> None:
        self.context = context
        self.heads = Heads(context)
        self.anchoring = Anchoring(
            context,
            settings.anchor,
            connect=lambda peer, at: self.requester.awarding.connect(peer, at),
            is_up=lambda peer: self.requester.awarding.is_up(peer),
            funded=lambda cid: self.requester.funded(cid),
            refused=lambda cid, code: self.requester.unfunded(cid, code),
            window_ucr=lambda: self.provider.window_ucr(),
            challenged=lambda cid: self.challenges.challenged(cid),
            settled=lambda cid, settled_ucr: self.challenges.settled(cid, settled_ucr),
        )
        anchor = self.anchoring.anchor
        self.requester = Requester(context, anchor, settings.requester)
        self.provider = Provider(
            context,
            anchor,
            settings.cheques,
            settings.bids_wanted,
            standing_offers=settings.standing_offers,
        )
        payer = self.requester.payer
        self._readers: dict[SessionKey, FrameReader] = {}
        is_up = self._readers.__contains__
        self.closing = Closing(context, payer, self.requester.awarding.connect)
        self.challenges = Challenges(
            context, anchor, payer, self.provider.payee, self.closing, self._stop, is_up
        )
        self.lifetimes = Lifetimes(context, anchor, self.closing, self.challenges, is_up)
        self.audits = Audits(context, payer, self.closing, is_up)
        self._frames = Frames(
            context,
            self.requester,
            self.provider,
            self.closing,
            self.challenges,
            self.heads,
            self.anchoring,
        )

    @property
    def sessions(self) -> tuple[SessionKey, ...]:
        """The job streams that are up."""
        return tuple(self._readers)

    def take(self, item: Input) -> None:
        """Handle one input other than gossip; never raises for what a peer did."""
        peer, session = b"", None
        if isinstance(item, act.SessionData):
            peer, session = item.session.peer, item.session
        elif isinstance(item, act.BidReceived):
            peer = item.peer
        try:
            self._dispatch(item)
        except RemoteError as error:
            self._offence(peer, session, error)

    def handle_timer(self, key: TimerKey) -> None:
        """A timer is due."""
        if key == SWEEP:
            self.lifetimes.sweep()
        elif key.kind == "audit":
            self.audits.handle_timer(key)
        elif key.kind in Provider.TIMERS:
            self.provider.handle_timer(key)
        elif key.kind in Anchoring.TIMERS:
            self.anchoring.handle_timer(key)
        else:
            self.requester.handle_timer(key)

    def tick(self) -> None:
        """Behind every input and timer: what may have become due by it."""
        self.heads.tick()
        self.lifetimes.tick()

    def _offence(self, peer: bytes, session: SessionKey | None, error: RemoteError) -> None:
        """A peer's input was wrong; an offence ends its stream."""
        if self.context.blame(peer, error) and session is not None:
            self.context.act(act.CloseSession(session, error.code))
            self._session_closed(session, error.code, may_resume=False)

    def _stop(self, channel: Channel) -> None:
        """A channel ends with what runs on it."""
        if channel.role is Role.PAYER:
            self.requester.breaks.stop(channel, "channel.challenged")
        else:
            self.provider.serving.stop(channel)
        for lane in list(channel.lanes.values()):
            due, code = lane.due_ucr, "channel.challenged"
            close_lane(self.context, channel, lane.claim(), due, code)
        if channel.role is Role.PAYER:
            self.requester.awarding.dispatch(channel.peer)  # what waited for it needs another

    # --- inputs ----------------------------------------------------------------------------

    def _dispatch(self, item: Input) -> None:
        if self.provider.cheques.take(item):
            return
        match item:
            case act.SessionData():
                self._session_data(item.session, item.data)
            case act.JobTokens():
                self.provider.serving.job_tokens(item.job_id, item.pieces, item.logprobs)
            case act.BidReceived():
                self._bid(item.peer, item.data)
            case act.BidUndelivered():
                self.provider.placing.undelivered(wire.decode(item.data))
            case act.SessionOpened():
                self._session_opened(item.session)
            case act.SessionClosed():
                self._session_closed(item.session, item.code)
            case act.OffersChanged():
                self.provider.set_offers(item.offers)
            case act.JobStarted():
                self.provider.serving.job_started(item.job_id, item.input_tokens)
            case act.JobFinished():
                self.provider.serving.job_finished(item)
            case act.JobBroke():
                self.provider.serving.job_broke(item.job_id, item.code)
            case act.Ask():
                self.requester.ask(item)
            case act.CancelAsk():
                self.requester.cancel(item.ask_id)
            case act.AuditPassed():
                self.audits.passed(item.cid, item.lane)
            case act.Dispute():
                self.audits.dispute(item.cid, item.lane, item.code)
            case act.ForceClose():
                self.challenges.close(item.cids)
            case act.TopUpChannel():
                self.requester.top_ups.ask(item.cid, item.deposit_ucr)
            case act.CloseChannels():
                self.closing.close(item.cids, self._readers.__contains__)
            case act.OpenChannel():
                self.anchoring.openings.ask(item.payee, item.deposit_ucr)
            case act.ClaimDeposits():
                self.anchoring.claim(item.cids)
            case act.DebtWasPaid():
                self.anchoring.paid(item.payer, item.amount_ucr)
            case act.AskAccounts():
                self.anchoring.anchor.ask_accounts()
            case act.Started():
                self.anchoring.start()
                self.provider.cheques.start()
            case act.Drain():
                self.provider.drain()
            case act.GiveFeedback():
                self.requester.judging.feedback(item.receipt_id, item.verdict)
            case act.SignHead():
                self.heads.announce()
            case act.Snapshot():
                self.heads.snapshot()

    def _bid(self, peer: bytes, data: bytes) -> None:
        message = wire.decode(data, limits.SEALED_BID_BYTES_MAX + 64)
        if not isinstance(message, messages.SealedBid):
            raise RemoteError("session.protocol", "not a bid")
        self.requester.take_bid(peer, message)

    # --- sessions --------------------------------------------------------------------------

    def _session_opened(self, session: SessionKey) -> None:
        if session in self._readers:
            self._session_closed(session, "session.closed")
        if len(self._readers) >= limits.SESSIONS_MAX:
            self.context.act(act.CloseSession(session, "admission.full"))
            self._session_closed(session, "admission.full")
            return
        self._readers[session] = FrameReader()
        if session.outbound:
            self.heads.session_opened(session)
            self.requester.awarding.session_opened(session.peer)
            self.anchoring.session_opened(session)
            self.closing.proceed(session)
        self.challenges.session_opened(session)

    def _session_closed(self, session: SessionKey, code: str, *, may_resume: bool = True) -> None:
        self._readers.pop(session, None)
        self.heads.session_closed(session)
        self.anchoring.session_closed(session)
        if session.outbound:
            self.requester.awarding.session_closed(session.peer, code, may_resume=may_resume)
            self.closing.unreached(session.peer)
        else:
            self.provider.session_closed(session.peer, may_resume=may_resume)

    def _session_data(self, session: SessionKey, data: bytes) -> None:
        reader = self._readers.get(session)
        if reader is None:
            return  # closed by us while these bytes were on their way
        for body in reader.feed(data):
            try:
                self._frames.take(session, body)
            except RemoteError as error:
                # One that is no offence must not take the frames behind it along.
                self._offence(session.peer, session, error)
            if session not in self._readers:
                return
        if reader.broken is not None:
            raise reader.broken
