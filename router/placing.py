"""The bids that this provider places: quoted or withheld, sent, and kept until they end.

Sans-IO. Rule: router/README.md, "Life of a job", "Self-selection".
"""

from collections import OrderedDict
from typing import Protocol

from protocol import crypto, limits
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import Bid, Request, SealedBid
from protocol.wire import encode
from router.actions import ModelOffer, Publish, SendBid
from router.context import Context
from router.payee import Payee
from router.provider_job import PlacedBid
from router.quoting import quote
from router.rooms import Rooms
from router.self_selection import SelfSelection
from router.silences import Silences


class Seller(Protocol):
    """What a bid is made from."""

    payee: Payee
    rooms: Rooms

    @property
    def sells(self) -> bool:
        """Whether it offers something, or has since its start."""
        ...

    def find_offer(self, model: str) -> ModelOffer:
        """What is sold of a model now. RemoteError."""
        ...


class Placing:
    """Outstanding bids by id, each a promise that an award may collect on."""

    def __init__(self, context: Context, seller: Seller, self_selection: SelfSelection) -> None:
        self._context = context
        self._seller = seller
        self._self_selection = self_selection
        self._bids: OrderedDict[bytes, PlacedBid] = OrderedDict()
        self.silences = Silences(context)
        self.sent = 0

    def take_request(self, request: Signed) -> None:
        """Bid on a request, or stay silent (RemoteError, no offence, says why)."""
        if self._seller.sells:
            bid = self._quote(request)
            if not self._self_selection.withholds(request, bid):
                self._place(request, bid)

    def asked_again(self, signed: Signed) -> None:
        """A requester has too few bids: send the one that was withheld. RemoteError as there."""
        request_id: bytes = signed.message.request_id
        request = self._self_selection.asked_again(signed.sender, request_id)
        if request is not None:
            self._place(request, self._quote(request))

    def undelivered(self, sealed: SealedBid) -> None:
        """The requester can't be reached from here: gossip carries the sealed bid instead."""
        context = self._context
        signed = sign_envelope(context.signer, context.network, sealed, context.now_ns)
        context.act(Publish(signed.data))

    def find(self, bid_id: bytes) -> PlacedBid | None:
        """An outstanding bid, or None."""
        return self._bids.get(bid_id)

    def taken(self, bid_id: bytes) -> None:
        """An award collected on it, if it is a bid: it is used up."""
        placed = self._bids.pop(bid_id, None)
        if placed is not None:
            self._self_selection.won(placed.request.digest)

    def _quote(self, request: Signed) -> Bid:
        try:
            return self._quoted(request)
        except RemoteError as error:
            self.silences.keep(request, error)
            raise

    def _quoted(self, request: Signed) -> Bid:
        context, seller = self._context, self._seller
        offer = seller.find_offer(request.message.model)
        seller.rooms.check(offer, request.sender)
        self._expire()
        if len(self._bids) >= limits.BIDS_OUTSTANDING_MAX:
            raise RemoteError("provider.busy", "bids outstanding", penalize=False)
        return quote(
            offer,
            request,
            context.public_key,
            deposit_max_ucr=seller.payee.deposit_max_ucr(request.sender),
            payee_salt=context.entropy(16),
            addresses=context.addresses,
            now_ns=context.now_ns,
            carried_ucr=seller.payee.carried_ucr(request.sender),
        )

    def _place(self, request: Signed, bid: Bid) -> None:
        context = self._context
        ask: Request = request.message
        signed = sign_envelope(context.signer, context.network, bid, context.now_ns)
        sealed = crypto.seal(ask.ephemeral_key, signed.data, context.entropy(32))
        self._bids[signed.digest] = PlacedBid(request, signed, ask.model, bid)
        data = encode(SealedBid(request.digest, sealed))
        context.act(SendBid(request.sender, ask.addresses, request.digest, data))
        context.note("bid.sent", request_id=request.digest, peer_id=request.sender)
        self.sent += 1

    def _expire(self) -> None:
        while self._bids:
            bid_id, placed = next(iter(self._bids.items()))
            if placed.signed.message.expires_at_ns > self._context.now_ns:
                return
            del self._bids[bid_id]
