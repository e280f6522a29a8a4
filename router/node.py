"""One peer, without clock, socket or disk: dispatches inputs to the cores, returns actions.

The daemon and the simulator drive this same object. Their part of the bargain: actions of one
input run in order, and nothing after an Append leaves before that record is durable.
"""

from collections.abc import Callable

from protocol import limits, messages
from protocol.crypto import Signer, Verify, verify
from protocol.envelope import Signed
from protocol.errors import RemoteError
from router import actions as act
from router.actions import Action, Input, SessionKey
from router.admission import Admission, Opening
from router.anchoring import Anchoring, AnchorSettings
from router.challenges import Challenges
from router.cheques import ChequeTerms
from router.choosing import RequesterSettings
from router.context import Context
from router.fold import Fold
from router.heads import Heads
from router.ledger import Ledger
from router.provider import Provider
from router.requester import Requester
from router.trading import TradeSettings, Trading


class Node:
    """A gate for gossip, and what trades behind it.

    The second half is made when it is first needed: most nodes of a large simulated network
    pass gossip on and never buy or sell. A daemon's, which keeps a log, has it at once.
    """

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
        self.admission = Admission(network, check, opening)
        self._settings = TradeSettings(
            anchor or AnchorSettings(limits.DEPOSIT_UCR_MAX),
            requester,
            cheques or ChequeTerms(),
            bids_wanted,
            standing_offers,
        )
        self._trading: Trading | None = None
        if log is not None or ledger.channels:
            self._trade()

    def _trade(self) -> Trading:
        if self._trading is None:
            self._trading = Trading(self.context, self._settings)
        return self._trading

    @property
    def requester(self) -> Requester:
        """What it buys."""
        return self._trade().requester

    @property
    def provider(self) -> Provider:
        """What it sells."""
        return self._trade().provider

    @property
    def anchoring(self) -> Anchoring:
        """What stands behind deposits."""
        return self._trade().anchoring

    @property
    def challenges(self) -> Challenges:
        """Channels that one end closes alone."""
        return self._trade().challenges

    @property
    def heads(self) -> Heads:
        """The heads of its log, and of its peers'."""
        return self._trade().heads

    # --- the driver's side -----------------------------------------------------------------

    def admit(self, data: bytes, now_ns: int) -> Signed:
        """Whether gossip may be forwarded: the verified message, else RemoteError."""
        return self.admission.admit(data, now_ns)

    def offers_for_newcomer(self, now_ns: int) -> list[bytes]:
        """Gossip that a peer which has just joined the topic missed: the offers that stand."""
        self.context.now_ns = now_ns
        seller = self._trading.provider if self._trading is not None else None
        own = seller.standing.fresh() if seller is not None and not seller.draining else []
        room = max(0, limits.OFFERS_SHOWN_MAX - len(own))
        return own + self.context.offers.fresh(now_ns, room)

    @property
    def sessions(self) -> tuple[SessionKey, ...]:
        """The job streams that are up."""
        return self._trading.sessions if self._trading is not None else ()

    def next_timer(self) -> int | None:
        """When `handle_timer` wants to be called next, Unix ns; None for never."""
        return self.context.timers.next_at_ns()

    def handle_timer(self, now_ns: int) -> list[Action]:
        """Run every timer that is due."""
        self.context.now_ns = now_ns
        while (key := self.context.timers.pop_due(now_ns)) is not None:
            self._trade().handle_timer(key)
        return self._taken()

    def receive(self, item: Input, now_ns: int) -> list[Action]:
        """Handle one input at `now_ns`; never raises for what a peer did."""
        self.context.now_ns = now_ns
        if isinstance(item, act.GossipReceived):
            try:
                self._gossip(item.signed)
            except RemoteError as error:
                self.context.blame(item.signed.sender, error)
        else:
            self._trade().take(item)
        return self._taken()

    def _taken(self) -> list[Action]:
        """What came of an input or a timer."""
        if self._trading is not None:
            self._trading.tick()
        return self.context.take_actions()

    def _gossip(self, signed: Signed) -> None:
        """RemoteError: what the core that it is for says."""
        context, trading = self.context, self._trading
        if signed.sender == context.public_key:
            return
        match signed.message:
            case messages.Request():
                if trading is not None:  # who never sold anything has nothing to say
                    trading.provider.placing.take_request(signed)
            case messages.MoreBids():
                if trading is not None:
                    trading.provider.placing.asked_again(signed)
            case messages.Clearing():
                context.clearings.take(signed)
            case messages.StandingOffer():
                context.offers.take(signed, context.now_ns)
            case messages.SealedBid():
                self._trade().requester.take_bid(signed.sender, signed.message)
