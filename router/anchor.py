"""What makes a deposit credible: one interface, and mutual credit as its default. Pure.

A witness quorum and a contract come behind the same interface. Rule: router/README.md, "Money".
"""

from typing import Protocol

from protocol.channel import Role
from router.ledger import Ledger


class Anchor(Protocol):
    """How far a payer is good for its deposits."""

    def deposit_max_ucr(self, ledger: Ledger, payer: bytes) -> int:
        """The largest deposit that would be believed from `payer` now; 0 for none."""
        ...


class MutualCredit:
    """Deposits are promises between peers: each payer is believed up to one limit in all.

    What is really at risk is less: the credit window W, one chunk, of work that is not yet
    covered by a voucher, plus vouchers that a dishonest payer later refuses to honour.
    """

    def __init__(self, limit_ucr: int) -> None:
        self.limit_ucr = limit_ucr

    def deposit_max_ucr(self, ledger: Ledger, payer: bytes) -> int:
        """The limit, less the deposits of the payer's open channels."""
        held = sum(channel.deposit_ucr for channel in ledger.with_peer(payer, Role.PAYEE))
        return max(0, self.limit_ucr - held)
