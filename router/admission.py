"""What gossip gets in: size, form, signature, freshness, replay, rate; in that order of cost.

Sans-IO. The network forwards exactly what this admits. Rule: protocol/README.md, "Admission".
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from protocol import limits
from protocol.crypto import Verify, verify
from protocol.envelope import Signed, open_envelope
from protocol.errors import RemoteError
from protocol.messages import Clearing, MoreBids, Request, SealedBid, StandingOffer
from protocol.units import NS_PER_S

# Opens a message at a time; the simulator's remembers what all of its nodes open.
Opening = Callable[[bytes, int], Signed]

_TOKEN_NS: Final = NS_PER_S // limits.SENDER_RATE_PER_S
_BURST_NS: Final = limits.SENDER_BURST_MESSAGES * _TOKEN_NS


class RateLimiter:
    """A token bucket a sender, in integer ns: bursts of SENDER_BURST_MESSAGES, then the rate."""

    def __init__(self) -> None:
        self._free_at: OrderedDict[bytes, int] = OrderedDict()

    def allow(self, sender: bytes, now_ns: int) -> bool:
        """Count one message; False when the sender is over its rate."""
        fresh_at = now_ns - _BURST_NS
        free_at = max(self._free_at.pop(sender, 0), fresh_at)
        allowed = free_at + _TOKEN_NS <= now_ns
        self._free_at[sender] = free_at + _TOKEN_NS if allowed else free_at
        # The least recently heard sender is forgotten: at worst it gets a fresh burst, which
        # one that was silent for long enough has anyway.
        tracked = self._free_at
        while len(tracked) > limits.SENDERS_TRACKED_MAX:
            tracked.popitem(last=False)
        while tracked[next(iter(tracked))] < fresh_at:
            tracked.popitem(last=False)
        return allowed


class SeenMessages:
    """Digests of messages inside the freshness window; full means refusing, never forgetting.

    A plain dict holds them at a third of an ordered one's memory. What was deleted from its
    front is walked over again until it is rebuilt, when half of it is such.
    """

    def __init__(self) -> None:
        self._until: dict[bytes, int] = {}  # in the order of their times
        self._oldest_ns = 0
        self._deleted = 0

    def check(self, digest: bytes, now_ns: int) -> None:
        """RemoteError `envelope.replayed`, `admission.full`; remembers nothing."""
        # At the very end of its window a message is still fresh, so it is still remembered.
        if self._until and self._oldest_ns < now_ns:
            self._expire(now_ns)
        if digest in self._until:
            raise RemoteError("envelope.replayed", penalize=False)
        if len(self._until) >= limits.SEEN_MESSAGES_MAX:
            raise RemoteError("admission.full", penalize=False)

    def _expire(self, now_ns: int) -> None:
        expired = []
        for digest, until_ns in self._until.items():
            if until_ns >= now_ns:
                self._oldest_ns = until_ns
                break
            expired.append(digest)
        for digest in expired:
            del self._until[digest]
        self._deleted += len(expired)
        if self._deleted > len(self._until):
            self._until, self._deleted = dict(list(self._until.items())), 0

    def add(self, digest: bytes, now_ns: int) -> None:
        """Remember a digest that `check` let through, for as long as it could be fresh."""
        until_ns = now_ns + limits.FRESHNESS_NS + limits.CLOCK_SKEW_NS
        if not self._until:
            self._oldest_ns = until_ns
        self._until[digest] = until_ns


def open_gossip(data: bytes, network: str, now_ns: int, check: Verify) -> Signed:
    """The verified gossip message in `data`. RemoteError: codes of `open_envelope`."""
    allowed = (Request, SealedBid, StandingOffer, Clearing, MoreBids)
    return open_envelope(data, network, now_ns, allowed=allowed, verify=check)


class Admission:
    """The gate of the gossip topic."""

    def __init__(
        self, network: str, check: Verify = verify, opening: Opening | None = None
    ) -> None:
        self._open = opening or (lambda data, now_ns: open_gossip(data, network, now_ns, check))
        self._rates = RateLimiter()
        self._seen = SeenMessages()

    def admit(self, data: bytes, now_ns: int) -> Signed:
        """The verified message, or RemoteError with why not.

        Codes: those of `open_envelope`, `envelope.replayed`, `admission.rate`, `admission.full`.
        The rate counts verified messages that are new, so that nobody can use up another's by
        forging or repeating; what it keeps out is not remembered, so that one sender can't fill
        the memory that all share.
        """
        signed = self._open(data, now_ns)
        self._seen.check(signed.digest, now_ns)
        if not self._rates.allow(signed.sender, now_ns):
            raise RemoteError("admission.rate", penalize=False)
        self._seen.add(signed.digest, now_ns)
        return signed
