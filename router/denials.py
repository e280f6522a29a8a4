"""What payers denied on returning, and what they paid since: the size of a payer's credit.

Part of the ledger: changed by records alone. Rule: router/README.md, "Money".
"""

from dataclasses import dataclass, field

from protocol import limits


@dataclass(slots=True)
class Denial:
    """What one payer denied, and what it has paid since; in ucr."""

    denied_ucr: int = 0
    paid_ucr: int = 0

    @property
    def open_ucr(self) -> int:
        """What is not yet made good."""
        return max(0, self.denied_ucr - self.paid_ucr // limits.DENIAL_FORGIVEN_PER)


@dataclass(slots=True)
class Denials:
    """By payer, oldest first, at most DENIALS_TRACKED_MAX."""

    by_payer: dict[bytes, Denial] = field(default_factory=dict)

    def add(self, payer: bytes, denied_ucr: int) -> None:
        """The payer denied so much more."""
        self.by_payer.setdefault(payer, Denial()).denied_ucr += denied_ucr
        if len(self.by_payer) > limits.DENIALS_TRACKED_MAX:
            del self.by_payer[next(iter(self.by_payer))]

    def paid(self, payer: bytes, paid_ucr: int) -> None:
        """The payer paid so much more; all of it made good, the slate is clean."""
        denial = self.by_payer.get(payer)
        if denial is None:
            return
        denial.paid_ucr += paid_ucr
        if not denial.open_ucr:
            del self.by_payer[payer]

    def open_ucr(self, payer: bytes) -> int:
        """What the payer has not yet made good."""
        denial = self.by_payer.get(payer)
        return denial.open_ucr if denial else 0
