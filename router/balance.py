"""A node's sums over its channels and cheques. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.channel import Channel, Role


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums in ucr over channels and cheques. As payer: spent and locked; as payee: earned, unpaid.

    `spent_ucr`/`earned_ucr` count what was delivered; `locked_ucr` what open channels hold of
    our deposits beyond that; `unpaid_ucr` what we delivered and hold no voucher for;
    `cheques_ucr` what of the earned came by cheques.
    """

    spent_ucr: int
    locked_ucr: int
    earned_ucr: int
    unpaid_ucr: int
    cheques_ucr: int

    @property
    def net_ucr(self) -> int:
        """Earned less spent."""
        return self.earned_ucr - self.spent_ucr


def sum_up(
    channels: Iterable[Channel], spent_ucr: int, earned_ucr: int, cheques_ucr: int
) -> Balance:
    """The balance of channels, of those that are forgotten and of cheques, by their sums."""
    spent, earned = spent_ucr, earned_ucr + cheques_ucr
    locked = unpaid = 0
    for channel in channels:
        due = channel.due_ucr if channel.settled_ucr is None else channel.settled_ucr
        if channel.role is Role.PAYER:
            spent += due
            locked += channel.deposit_ucr - due if channel.is_open else 0
        else:
            earned += due
            unpaid += max(0, due - channel.total_ucr) if channel.is_open else 0
    return Balance(spent, locked, earned, unpaid, cheques_ucr)
