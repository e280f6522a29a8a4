"""What users of cheques owe, and which of their nonces are used: part of the ledger. Pure.

Changed by records alone, so a replay rebuilds it. Rule: router/README.md, "Cheques".
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from protocol import limits, records
from protocol.errors import LocalError


@dataclass(slots=True)
class ChequeAccount:
    """One user; amounts in ucr.

    `owed_ucr` is what was charged and not paid, `held` what each answer that is being made costs
    at most, by nonce. Used nonces are `nonces`, rising, and all up to `floor`.
    """

    owed_ucr: int = 0
    earned_ucr: int = 0
    answers: int = 0
    floor: int = 0
    nonces: list[int] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)

    @property
    def at_risk_ucr(self) -> int:
        """What this user owes, or may come to owe for what runs."""
        return self.owed_ucr + sum(self.held.values())

    def used(self, nonce: int) -> bool:
        """Whether a nonce was used, or is older than those that are remembered."""
        at = bisect_left(self.nonces, nonce)
        return nonce <= self.floor or self.nonces[at : at + 1] == [nonce]

    def use(self, nonce: int) -> None:
        """Remember a nonce; with too many of them the lowest become the floor."""
        insort(self.nonces, nonce)
        while len(self.nonces) > limits.CHEQUE_NONCES_KEPT:
            self.floor = self.nonces.pop(0)


class ChequeBook:
    """The accounts, in the order in which they came; none is ever forgotten."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, ChequeAccount] = {}
        self.at_risk_ucr = 0  # sums over all accounts
        self.earned_ucr = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChequeBook) and vars(self) == vars(other)

    def account(self, user: bytes) -> ChequeAccount:
        """The user's account; an empty one, which is not kept, for a user without."""
        return self.accounts.get(user) or ChequeAccount()

    def open_cheques(self) -> list[tuple[bytes, int]]:
        """User and nonce of every cheque whose answer was not charged yet."""
        return [(user, nonce) for user, one in self.accounts.items() for nonce in one.held]

    def apply(self, record: Any) -> bool:
        """Fold one record in; False for one that is not about cheques. LocalError
        `cheque.replayed` for a nonce that was used, or is charged and was not."""
        match record:
            case records.ChequeTaken():
                self._take(record)
            case records.ChequeCharged():
                self._charge(record)
            case records.ChequesPaid():
                account = self._known(record.user)
                paid = min(account.owed_ucr, record.amount_ucr)
                account.owed_ucr -= paid
                self.at_risk_ucr -= paid
            case _:
                return False
        return True

    def restore(self, accounts: Iterable[tuple[bytes, ChequeAccount]]) -> None:
        """Take accounts in as a snapshot has them."""
        for user, account in accounts:
            self.accounts[user] = account
            self.at_risk_ucr += account.at_risk_ucr
            self.earned_ucr += account.earned_ucr

    def _known(self, user: bytes) -> ChequeAccount:
        account = self.accounts.get(user)
        if account is None:
            raise LocalError("cheque.unknown_user", user.hex()[:16])
        return account

    def _take(self, record: records.ChequeTaken) -> None:
        user, nonce = record.cheque.user, record.cheque.nonce
        account = self.accounts.setdefault(user, ChequeAccount())
        if account.used(nonce):
            raise LocalError("cheque.replayed", str(nonce))
        account.use(nonce)
        account.held[nonce] = record.held_ucr
        self.at_risk_ucr += record.held_ucr

    def _charge(self, record: records.ChequeCharged) -> None:
        account = self._known(record.user)
        if record.nonce not in account.held:
            raise LocalError("cheque.replayed", str(record.nonce))
        held = account.held.pop(record.nonce)
        account.owed_ucr += record.cost_ucr
        account.earned_ucr += record.cost_ucr
        account.answers += record.receipt is not None
        self.at_risk_ucr += record.cost_ucr - held
        self.earned_ucr += record.cost_ucr
