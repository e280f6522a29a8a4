"""What gossip gets in: size, form, signature, freshness, replay, rate; in that order of cost.

Sans-IO. The network forwards exactly what this admits. Rule: protocol/README.md, "Admission".
"""

from collections import OrderedDict

from protocol import limits
from protocol.crypto import Verify, verify
from protocol.envelope import Signed, open_envelope
from protocol.errors import RemoteError
from protocol.messages import Request, SealedBid
from protocol.units import NS_PER_S

_TOKEN_NS = NS_PER_S // limits.SENDER_RATE_PER_S


class RateLimiter:
    """A token bucket a sender, in integer ns: bursts of SENDER_BURST_MESSAGES, then the rate."""

    def __init__(self) -> None:
        self._free_at: OrderedDict[bytes, int] = OrderedDict()

    def allow(self, sender: bytes, now_ns: int) -> bool:
        """Count one message; False when the sender is over its rate."""
        burst_ns = limits.SENDER_BURST_MESSAGES * _TOKEN_NS
        free_at = max(self._free_at.pop(sender, 0), now_ns - burst_ns)
        allowed = free_at + _TOKEN_NS <= now_ns
        self._free_at[sender] = free_at + _TOKEN_NS if allowed else free_at
        # The least recently heard sender is forgotten: at worst it gets a fresh burst.
        while len(self._free_at) > limits.SENDERS_TRACKED_MAX:
            self._free_at.popitem(last=False)
        return allowed


class SeenMessages:
    """Digests of messages inside the freshness window; full means refusing, never forgetting."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, int] = OrderedDict()

    def check(self, digest: bytes, now_ns: int) -> None:
        """RemoteError `envelope.replayed`, `admission.full`; remembers nothing."""
        # At the very end of its window a message is still fresh, so it is still remembered.
        while self._until and next(iter(self._until.values())) < now_ns:
            self._until.popitem(last=False)
        if digest in self._until:
            raise RemoteError("envelope.replayed", penalize=False)
        if len(self._until) >= limits.SEEN_MESSAGES_MAX:
            raise RemoteError("admission.full", penalize=False)

    def add(self, digest: bytes, now_ns: int) -> None:
        """Remember a digest that `check` let through, for as long as it could be fresh."""
        self._until[digest] = now_ns + limits.FRESHNESS_NS + limits.CLOCK_SKEW_NS


class Admission:
    """The gate of the gossip topic."""

    def __init__(self, network: str, check: Verify = verify) -> None:
        self._network = network
        self._verify = check
        self._rates = RateLimiter()
        self._seen = SeenMessages()

    def admit(self, data: bytes, now_ns: int) -> Signed:
        """The verified message, or RemoteError with why not.

        Codes: those of `open_envelope`, `envelope.replayed`, `admission.rate`, `admission.full`.
        The rate counts verified messages that are new, so that nobody can use up another's by
        forging or repeating; what it keeps out is not remembered, so that one sender can't fill
        the memory that all share.
        """
        signed = open_envelope(
            data, self._network, now_ns, allowed=(Request, SealedBid), verify=self._verify
        )
        self._seen.check(signed.digest, now_ns)
        if not self._rates.allow(signed.sender, now_ns):
            raise RemoteError("admission.rate", penalize=False)
        self._seen.add(signed.digest, now_ns)
        return signed
