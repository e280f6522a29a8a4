"""Bids of strangers, crafted by hand, for one requester without providers."""

from dataclasses import replace
from typing import Any

from protocol import crypto, limits, wire
from protocol.crypto import Signer
from protocol.envelope import Signed, sign_envelope
from protocol.fields import ChannelTerms
from protocol.messages import Bid, SealedBid
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    make_ask,
    make_world,
    stranger,
)


def ask_alone(**changes: Any) -> tuple[World, Peer, Signed]:
    """A requester without providers, its world, and the request that it published."""
    world = make_world(0)
    (requester,) = world.peers
    world.give(requester, make_ask(**changes))
    return world, requester, request_of(requester)


def request_of(requester: Peer) -> Signed:
    """The requester's newest open request."""
    request_id = requester.heard(events.Published)[-1].request_id
    job = requester.node.requester.job(request_id)
    assert job is not None
    return job.request


def sealed_for(request: Signed, plaintext: bytes) -> bytes:
    """Bytes sealed to a request's key, as they travel."""
    sealed = crypto.seal(request.message.ephemeral_key, plaintext, bytes([5]) * 32)
    return wire.encode(SealedBid(request.digest, sealed))


def bid_of(signer: Signer, request: Signed, now_ns: int, **changes: Any) -> Signed:
    """A signed, acceptable bid."""
    bid = Bid(
        request_id=request.digest,
        model_digest=bytes(32),
        input_price_ucr=15_000_000,
        output_price_ucr=60_000_000,
        ttft_ns=NS_PER_MS,
        tokens_per_s_milli=50_000,
        expires_at_ns=now_ns + 30 * NS_PER_S,
        terms=ChannelTerms(1_920, 10**7, limits.CHANNEL_LIFETIME_NS, limits.CHALLENGE_NS),
        payee_salt=bytes(16),
        addresses=(),
    )
    return sign_envelope(signer, "sim", replace(bid, **changes), now_ns)


def deliver(world: World, requester: Peer, number: int, **changes: Any) -> None:
    """Stranger `number` bids on the requester's request."""
    request, signer = request_of(requester), stranger(number)
    signed = bid_of(signer, request, world.clock.now_ns, **changes)
    world.give(requester, act.BidReceived(signer.public_key, sealed_for(request, signed.data)))


def ignored(peer: Peer) -> list[str]:
    """Codes of what the peer ignored without blaming anybody."""
    return [fields["code"] for event, fields in peer.notes if event == "input.ignored"]
