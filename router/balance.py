"""A node's sums over its channels. A plain value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums over channels, in ucr. As payer: spent and locked; as payee: earned and unpaid.

    `spent_ucr`/`earned_ucr` count what was delivered; `locked_ucr` what open channels hold of
    our deposits beyond that; `unpaid_ucr` what we delivered and hold no voucher for.
    """

    spent_ucr: int
    locked_ucr: int
    earned_ucr: int
    unpaid_ucr: int

    @property
    def net_ucr(self) -> int:
        """Earned less spent."""
        return self.earned_ucr - self.spent_ucr
