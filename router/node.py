"""One peer, without clock, socket or disk: dispatches inputs to the cores, returns actions.

The daemon and the simulator drive this same object. Their part of the bargain: actions of one
input run in order, and nothing after an Append leaves before that record is durable.
"""

from collections.abc import Callable

from protocol import limits, messages, wire
from protocol.channel import Channel, Role
from protocol.crypto import Signer, Verify, verify
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.framing import FrameReader
from router import actions as act
from router.actions import Action, Input, SessionKey
from router.admission import Admission, Opening
from router.anchoring import Anchoring, AnchorSettings
from router.audits import Audits
from router.challenges import Challenges
from router.cheques import ChequeTerms
from router.choosing import RequesterSettings
from router.closing import Closing
from router.context import Context
from router.fold import Fold
from router.frames import Frames
from router.heads import Heads
from router.ledger import Ledger
from router.lifetimes import SWEEP, Lifetimes
from router.provider import Provider
from router.reestablish import close_lane
from router.requester import Requester


class Node:
    """A requester and a provider over one ledger, one log and one set of timers."""

    def __init__(
        self,
        signer: Signer,
        network: str,
        ledger: Ledger,
        *,
        entropy: Callable[[int], bytes],
        anchor: AnchorSettings | None = None,
        check: Verify = verify,
        opening: Opening | None = None,
        log: Fold | None = None,
        standing_offers: bool = False,
        bids_wanted: int = 0,
        requester: RequesterSettings | None = None,
        cheques: ChequeTerms | None = None,
    ) -> None:
        ledger.live = True
        self.context = Context(signer, network, ledger, entropy, check, log)
        self.heads = Heads(self.context)
        self.admission = Admission(network, check, opening)
        self.anchoring = Anchoring(
            self.context,
            anchor or AnchorSettings(limits.DEPOSIT_UCR_MAX),
            connect=lambda peer, at: self.requester.awarding.connect(peer, at),
            is_up=lambda peer: self.requester.awarding.is_up(peer),
            funded=lambda cid: self.requester.funded(cid),
            refused=lambda cid, code: self.requester.unfunded(cid, code),
            window_ucr=lambda: self.provider.window_ucr(),
            challenged=lambda cid: self.challenges.challenged(cid),
            settled=lambda cid, settled_ucr: self.challenges.settled(cid, settled_ucr),
        )
        backed_by = self.anchoring.anchor
        self.requester = Requester(self.context, backed_by, requester)
        terms, offers = cheques or ChequeTerms(), self.requester.offers
        self.provider = Provider(
            self.context, backed_by, terms, offers, bids_wanted, standing_offers=standing_offers
        )
        self._readers: dict[SessionKey, FrameReader] = {}
        self.closing = Closing(self.context, self.requester.payer, self.requester.awarding.connect)
        self.challenges = Challenges(
            self.context,
            backed_by,
            self.requester.payer,
            self.provider.payee,
            self.closing,
            self._stop,
            self._readers.__contains__,
        )
        self.lifetimes = Lifetimes(
            self.context, backed_by, self.closing, self.challenges, self._readers.__contains__
        )
        self.audits = Audits(
            self.context, self.requester.payer, self.closing, self._readers.__contains__
        )
        self._frames = Frames(
            self.context,
            self.requester,
            self.provider,
            self.closing,
            self.challenges,
            self.heads,
            self.anchoring,
        )

    # --- the driver's side -----------------------------------------------------------------

    def admit(self, data: bytes, now_ns: int) -> Signed:
        """Whether gossip may be forwarded: the verified message, else RemoteError."""
        return self.admission.admit(data, now_ns)

    def offers_for_newcomer(self, now_ns: int) -> list[bytes]:
        """Gossip that a peer which has just joined the topic missed: the offers that stand."""
        self.context.now_ns = now_ns
        own = self.provider.standing.fresh() if not self.provider.draining else []
        room = max(0, limits.OFFERS_SHOWN_MAX - len(own))
        return own + self.requester.offers.fresh(now_ns, room)

    @property
    def sessions(self) -> tuple[SessionKey, ...]:
        """The job streams that are up."""
        return tuple(self._readers)

    def next_timer(self) -> int | None:
        """When `handle_timer` wants to be called next, Unix ns; None for never."""
        return self.context.timers.next_at_ns()

    def handle_timer(self, now_ns: int) -> list[Action]:
        """Run every timer that is due."""
        self.context.now_ns = now_ns
        while (key := self.context.timers.pop_due(now_ns)) is not None:
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
        self.heads.tick()
        self.lifetimes.tick()
        return self.context.take_actions()

    def receive(self, item: Input, now_ns: int) -> list[Action]:
        """Handle one input at `now_ns`; never raises for what a peer did."""
        self.context.now_ns = now_ns
        peer, session = b"", None
        if isinstance(item, act.SessionData):
            peer, session = item.session.peer, item.session
        elif isinstance(item, act.BidReceived):
            peer = item.peer
        elif isinstance(item, act.GossipReceived):
            peer = item.signed.sender
        try:
            self._dispatch(item)
        except RemoteError as error:
            self._offence(peer, session, error)
        self.heads.tick()
        self.lifetimes.tick()
        return self.context.take_actions()

    def _offence(self, peer: bytes, session: SessionKey | None, error: RemoteError) -> None:
        if not error.penalize:
            self.context.note("input.ignored", peer_id=peer, code=error.code, detail=error.detail)
            return
        self.context.note("peer.offence", peer_id=peer, code=error.code, detail=error.detail)
        self.context.penalize(peer, error.code)
        if session is not None:
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
            case act.GossipReceived():
                self._gossip(item.signed)
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

    def _gossip(self, signed: Signed) -> None:
        if signed.sender == self.context.public_key:
            return
        if isinstance(signed.message, messages.Clearing):
            self.context.clearings.take(signed)
        elif not self.provider.placing.take_gossip(signed):
            self.requester.take_gossip(signed)

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
