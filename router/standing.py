"""The provider's standing offers: said on the topic, kept until they end, collected by awards.

Sans-IO. An award on one needs no auction: the requester sends its request, unpublished, and the
award. Rule: router/README.md, "Standing offers".
"""

from collections import OrderedDict
from collections.abc import Callable

from protocol import limits
from protocol.envelope import Signed, open_envelope, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import DirectRequest, Request, StandingOffer
from router.actions import ModelOffer, Publish, SessionKey
from router.context import Context
from router.provider_job import PlacedBid
from router.quoting import bid_of, check_request, standing_offer
from router.timers import TimerKey

_TIMER = TimerKey("offers", b"")


class Standing:
    """What this node offers to anybody, and requests that came to collect."""

    def __init__(
        self,
        context: Context,
        free_places: Callable[[ModelOffer], int],
        deposit_max_ucr: Callable[[bytes], int],
    ) -> None:
        self._context = context
        self._free_places = free_places
        self._deposit_max_ucr = deposit_max_ucr
        self._given: OrderedDict[bytes, Signed] = OrderedDict()  # by digest, oldest first
        self._said: dict[str, ModelOffer] = {}
        self._said_at_ns = 0
        self._requests: dict[SessionKey, Signed] = {}

    def announce(self, offers: dict[str, ModelOffer]) -> None:
        """Offers changed or it is time: say those again that changed or would end.

        News waits for OFFER_INTERVAL_NS; what is the same, for OFFER_REFRESH_NS.
        """
        context = self._context
        self._expire()
        now_ns = context.now_ns
        wait_ns = self._said_at_ns + limits.OFFER_INTERVAL_NS - now_ns
        if self._said_at_ns and wait_ns > 0:
            if offers != self._said:
                context.timers.set(_TIMER, now_ns + wait_ns)
            return
        refresh = now_ns - self._said_at_ns >= limits.OFFER_REFRESH_NS
        changed = [
            offer for name, offer in offers.items() if refresh or self._said.get(name) != offer
        ]
        self._said, self._said_at_ns = dict(offers), now_ns
        for offer in changed[: limits.OFFERS_PER_SENDER_MAX]:
            self._say(offer)
        if offers:
            context.timers.set(_TIMER, now_ns + limits.OFFER_REFRESH_NS)

    def _say(self, offer: ModelOffer) -> None:
        context = self._context
        places = self._free_places(offer)
        if places <= 0:
            return
        standing = standing_offer(
            offer,
            places=places,
            deposit_max_ucr=self._deposit_max_ucr(b""),
            payee_salt=context.entropy(16),
            addresses=context.addresses,
            expires_at_ns=context.now_ns + limits.OFFER_LIFETIME_NS,
        )
        signed = sign_envelope(context.signer, context.network, standing, context.now_ns)
        self._given[signed.digest] = signed
        context.act(Publish(signed.data))
        context.note("offer.published", model=offer.name, places=places)

    def fresh(self) -> list[bytes]:
        """What was said last of each model, enveloped, and has not ended."""
        self._expire()
        said = {signed.message.model: signed.data for signed in self._given.values()}
        return [said[model] for model in said if model in self._said]

    def _expire(self) -> None:
        while self._given:
            digest, signed = next(iter(self._given.items()))
            if signed.message.expires_at_ns > self._context.now_ns:
                return
            del self._given[digest]

    # --- collecting ------------------------------------------------------------------------

    def take_request(self, session: SessionKey, message: DirectRequest) -> None:
        """A request whose award follows. RemoteError: as `open_envelope`,
        `award.bad_signature` when another made it."""
        context = self._context
        signed = open_envelope(
            message.request,
            context.network,
            context.now_ns,
            allowed=(Request,),
            verify=context.verify,
        )
        if signed.sender != session.peer:
            raise RemoteError("award.bad_signature", "another requester's request")
        self._requests[session] = signed

    def collect(self, session: SessionKey, request_id: bytes, offer_id: bytes) -> PlacedBid | None:
        """What an award on an offer of ours collects; None when it names none.

        RemoteError, not an offence: as `check_request`.
        """
        request = self._requests.pop(session, None)
        given = self._given.get(offer_id)
        if request is None or given is None or request.digest != request_id:
            return None
        offer: StandingOffer = given.message
        bid = bid_of(offer, request)
        check_request(offer, bid, request, self._context.public_key, self._context.now_ns)
        if offer.model != request.message.model:
            raise RemoteError("award.unknown_bid", "the offer is for another model")
        return PlacedBid(request, given, offer.model, bid)

    def session_closed(self, session: SessionKey) -> None:
        """What came on a stream that is gone is forgotten."""
        self._requests.pop(session, None)
