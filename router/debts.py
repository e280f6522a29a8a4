"""What payers owe on channels that are closed, under mutual credit. Pure.

Part of the ledger: changed by records alone. Rule: router/README.md, "Anchors".
"""

from dataclasses import dataclass, field

from protocol import limits


@dataclass(slots=True)
class Debts:
    """In ucr, by payer, oldest debtor first, at most DEBTORS_MAX."""

    by_payer: dict[bytes, int] = field(default_factory=dict)

    def owed_ucr(self, payer: bytes) -> int:
        """What the payer owes."""
        return self.by_payer.get(payer, 0)

    def add(self, payer: bytes, amount_ucr: int) -> None:
        """A channel of this payer was settled at so much."""
        if amount_ucr:
            self.by_payer[payer] = self.owed_ucr(payer) + amount_ucr
            if len(self.by_payer) > limits.DEBTORS_MAX:
                del self.by_payer[next(iter(self.by_payer))]

    def paid(self, payer: bytes, amount_ucr: int) -> None:
        """By the operator's word, so much was paid outside of this system."""
        left = self.owed_ucr(payer) - amount_ucr
        if left > 0:
            self.by_payer[payer] = left
        else:
            self.by_payer.pop(payer, None)
