"""The signed heads that a node knows: its own, its peers', and one of its own that it lost.

Part of the ledger: changes by log records alone. Rule: router/README.md, "Heads".
"""

from dataclasses import dataclass, field

from protocol import limits
from protocol.fields import SignedHead
from protocol.records import HeadSeen


@dataclass(slots=True)
class HeadBook:
    """`own` are our last heads by record; `seen` a peer's newest; `shown` one that we lost.

    While the log is not longer than `shown`, a head of ours could be a second one of the same
    record, so none is signed.
    """

    own: dict[int, SignedHead] = field(default_factory=dict)
    seen: dict[bytes, SignedHead] = field(default_factory=dict)
    shown: SignedHead | None = None

    def signed(self, head: SignedHead) -> None:
        """We signed it."""
        self.own[head.sequence] = head
        while len(self.own) > limits.HEADS_KEPT:
            del self.own[next(iter(self.own))]

    def saw(self, owner: bytes, record: HeadSeen) -> None:
        """A peer showed it; `owner` is this node."""
        if record.owner == owner:
            if self.shown is None or record.head.sequence > self.shown.sequence:
                self.shown = record.head
            return
        self.seen.pop(record.owner, None)  # the newest is last
        self.seen[record.owner] = record.head
        while len(self.seen) > limits.HEADS_SEEN_MAX:
            del self.seen[next(iter(self.seen))]

    @property
    def newest(self) -> SignedHead | None:
        """Our newest signed head."""
        return next(reversed(self.own.values()), None)

    def lacks(self, head: SignedHead, sequence: int) -> bool:
        """Whether a validly signed head of ours is not one of this log, whose last record is
        `sequence`; heads older than those kept pass."""
        if head.sequence > sequence:
            return True
        held = self.own.get(head.sequence)
        if held is not None:
            return held.head != head.head
        return bool(self.own) and head.sequence > next(iter(self.own))
